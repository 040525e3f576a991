variables {
  cluster_name      = "engine-test-us-east-1"
  oidc              = { provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.example.com/id/1", issuer = "oidc.example.com/id/1" }
  secret_arns       = ["arn:aws:secretsmanager:us-east-1:123456789012:secret:engine-test/database/app-??????"]
  data_kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/data"
  zone_arn          = "arn:aws:route53:::hostedzone/Z1"
  log_bucket_arn    = "arn:aws:s3:::engine-test-logs"
  backup_bucket_arn = "arn:aws:s3:::engine-test-backups"
}

run "no_role_may_do_everything" {
  command = apply

  assert {
    condition = alltrue(flatten([for policy in output.policies_json : [for statement in jsondecode(policy).Statement :
      [for action in flatten([statement.Action]) : !strcontains(action, "*")]
    ]]))
    error_message = "A role holds a wildcard action."
  }

  # AWS cannot limit these to a resource. Everything else names what it touches.
  assert {
    condition = alltrue(flatten([for policy in output.policies_json : [for statement in jsondecode(policy).Statement :
      !contains(flatten([statement.Resource]), "*") || alltrue([for action in flatten([statement.Action]) : can(regex("^(ec2|autoscaling|elasticloadbalancing):(Describe|Get)|^route53:ListHostedZones$", action))])
    ]]))
    error_message = "An action that can be limited to a resource is not."
  }
}

run "a_role_is_one_service_accounts" {
  command = apply

  assert {
    condition     = { for purpose, trust in output.trusts_json : purpose => jsondecode(trust).Statement[0].Condition.StringEquals["oidc.example.com/id/1:sub"] }["secrets"] == "system:serviceaccount:engine:engine-secrets"
    error_message = "The engine's secrets are another account's."
  }

  assert {
    condition     = alltrue([for trust in output.trusts_json : !strcontains(trust, "*") && length(jsondecode(trust).Statement) == 1])
    error_message = "A role can be taken by several."
  }
}

run "backups_cannot_be_destroyed_from_the_cluster" {
  command = apply

  assert {
    condition     = alltrue([for statement in jsondecode(output.policies_json["backup"]).Statement : alltrue([for action in flatten([statement.Action]) : !can(regex("Delete|GetObject|PutObjectRetention|BypassGovernance", action))])])
    error_message = "The backup job may delete or read backups."
  }
}

run "secrets_must_be_named" {
  command = plan

  variables {
    secret_arns = []
  }

  expect_failures = [var.secret_arns]
}
