variables {
  name                  = "engine-test"
  repository            = "example/engine"
  environment           = "production"
  cluster_arns          = ["arn:aws:eks:us-east-1:123456789012:cluster/engine-test-us-east-1"]
  image_repository_arns = ["arn:aws:ecr:us-east-1:123456789012:repository/engine-test"]
  image_copy_arns       = ["arn:aws:ecr:us-west-2:123456789012:repository/engine-test"]
}

run "only_this_repository_and_environment_may_deploy" {
  command = apply

  assert {
    condition     = jsondecode(output.trusts_json["deploy"]).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == "repo:example/engine:environment:production"
    error_message = "Another job may deploy."
  }

  assert {
    condition     = alltrue([for trust in output.trusts_json : jsondecode(trust).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"])
    error_message = "A token for somebody else is accepted."
  }

  assert {
    condition     = alltrue([for subject in flatten([jsondecode(output.trusts_json["images"]).Statement[0].Condition.StringLike["token.actions.githubusercontent.com:sub"]]) : startswith(subject, "repo:example/engine:ref:refs/")])
    error_message = "A pull request could push images."
  }

  assert {
    condition = { for statement in jsondecode(output.policies_json["deploy"]).Statement : statement.Sid => flatten([statement.Resource]) }["FindImages"] == [
      "arn:aws:ecr:us-east-1:123456789012:repository/engine-test",
      "arn:aws:ecr:us-west-2:123456789012:repository/engine-test",
    ]
    error_message = "A deployment cannot see the image that a region pulls."
  }

  assert {
    condition     = alltrue(flatten([for policy in output.policies_json : [for statement in jsondecode(policy).Statement : [for action in flatten([statement.Action]) : !strcontains(action, "*") && (action == "ecr:GetAuthorizationToken" || !contains(flatten([statement.Resource]), "*"))]]]))
    error_message = "A role may do more than it names."
  }
}

run "the_drift_check_reads_its_state_and_two_secrets" {
  command = apply

  variables {
    state = {
      bucket_name = "example-state"
      kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/state"
      key         = "engine/test.tfstate"
    }

    plan_secrets = {
      arns        = ["arn:aws:secretsmanager:us-east-1:123456789012:secret:engine-test/redis-??????"]
      kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/data"
      region      = "us-east-1"
    }
  }

  assert {
    condition     = join(",", keys(output.role_arns)) == "deploy,images,plan" && jsondecode(output.trusts_json["plan"]).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == "repo:example/engine:ref:refs/heads/main"
    error_message = "No role for the drift check, or a job of another branch may take it."
  }

  assert {
    condition = { for statement in jsondecode(output.policies_json["plan"]).Statement : statement.Sid => [statement.Action, statement.Resource] if statement.Effect == "Allow" } == {
      ReadState       = ["s3:GetObject", "arn:aws:s3:::example-state/engine/test.tfstate"]
      ListState       = ["s3:ListBucket", "arn:aws:s3:::example-state"]
      DecryptState    = ["kms:Decrypt", "arn:aws:kms:us-east-1:123456789012:key/state"]
      MakeUpPasswords = ["secretsmanager:GetRandomPassword", "*"]
      ReadSecrets     = ["secretsmanager:GetSecretValue", "arn:aws:secretsmanager:us-east-1:123456789012:secret:engine-test/redis-??????"]
      DecryptSecrets  = ["kms:Decrypt", "arn:aws:kms:us-east-1:123456789012:key/data"]
    }
    error_message = "The drift check may do more than look, or less than a plan needs."
  }

  assert {
    condition = [for statement in jsondecode(output.policies_json["plan"]).Statement : [toset(statement.Action), flatten([statement.NotResource])] if statement.Effect == "Deny"] == [
      [toset(["s3:GetObject", "s3:GetObjectVersion"]), ["arn:aws:s3:::example-state/engine/test.tfstate"]]
    ]
    error_message = "The drift check may open another state, or other objects."
  }

  assert {
    condition     = endswith(aws_iam_role_policy_attachment.plan[0].policy_arn, ":policy/ReadOnlyAccess")
    error_message = "The drift check cannot look at what runs, or may change it."
  }
}

run "a_wildcard_repository_is_refused" {
  command = plan

  variables {
    repository = "example/*"
  }

  expect_failures = [var.repository]
}
