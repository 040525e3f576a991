variables {
  name                  = "engine-test"
  repository            = "example/engine"
  environment           = "production"
  cluster_arns          = ["arn:aws:eks:us-east-1:123456789012:cluster/engine-test-us-east-1"]
  image_repository_arns = ["arn:aws:ecr:us-east-1:123456789012:repository/engine-test"]
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
    condition     = alltrue(flatten([for policy in output.policies_json : [for statement in jsondecode(policy).Statement : [for action in flatten([statement.Action]) : !strcontains(action, "*") && (action == "ecr:GetAuthorizationToken" || !contains(flatten([statement.Resource]), "*"))]]]))
    error_message = "A role may do more than it names."
  }
}

run "a_wildcard_repository_is_refused" {
  command = plan

  variables {
    repository = "example/*"
  }

  expect_failures = [var.repository]
}
