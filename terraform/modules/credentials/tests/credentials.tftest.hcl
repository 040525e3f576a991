variables {
  name              = "engine-test"
  data_kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/data"
  replicas          = { us-west-2 = { kms_key_arn = "arn:aws:kms:us-west-2:123456789012:key/data" } }
  subnet_ids        = ["subnet-a", "subnet-b", "subnet-c"]
  security_group_id = "sg-nodes"

  database = {
    host            = "engine-test.global-x.global.rds.amazonaws.com"
    port            = 5432
    name            = "ledger"
    master_username = "administrator"
    seed_secret_id  = "arn:aws:secretsmanager:us-east-1:123456789012:secret:seed-abcdef"
  }
}

run "every_role_has_a_secret_that_rotates_and_is_copied" {
  command = apply

  assert {
    condition     = sort(keys(aws_secretsmanager_secret_rotation.this)) == tolist(["app", "master", "owner", "read"]) && alltrue([for rotation in aws_secretsmanager_secret_rotation.this : rotation.rotation_rules[0].automatically_after_days == 30])
    error_message = "A role's password is kept for ever."
  }

  assert {
    condition     = alltrue([for secret in aws_secretsmanager_secret.this : one(secret.replica).region == "us-west-2" && one(secret.replica).kms_key_id == "arn:aws:kms:us-west-2:123456789012:key/data"])
    error_message = "The other region could not log in after a failover."
  }

  assert {
    condition     = alltrue([for version in concat([aws_secretsmanager_secret_version.master], values(aws_secretsmanager_secret_version.role)) : version.secret_string == null && contains(version.version_stages, "MADE_BY_TERRAFORM")])
    error_message = "A password is in the state, or would be put in force again after two rotations."
  }

  # Engines reconnect with the former password until they have read the new one; who owns tables must stay one user.
  assert {
    condition     = [for role in ["app", "owner"] : strcontains(aws_serverlessapplicationrepository_cloudformation_stack.rotation[local.roles[role].alternates ? "alternating" : "single"].application_id, "MultiUser")] == [true, false]
    error_message = "The engine could be locked out by a rotation, or partitions get a second owner."
  }
}

run "without_rotation_nothing_is_installed" {
  command = apply

  variables {
    rotation_days = 0
  }

  assert {
    condition     = length(aws_serverlessapplicationrepository_cloudformation_stack.rotation) == 0 && length(aws_secretsmanager_secret_rotation.this) == 0
    error_message = "Rotation was switched off and is there."
  }
}
