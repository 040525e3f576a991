variables {
  name              = "engine-test-us-east-1"
  member            = "primary"
  global_cluster_id = "engine-test"
  engine_version    = "16.8"
  subnet_ids        = ["subnet-a", "subnet-b", "subnet-c"]
  security_group_id = "sg-database"
  data_kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/data"
  logs_kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/logs"
}

run "the_ledger_is_encrypted_backed_up_and_protected" {
  command = apply

  assert {
    condition     = aws_rds_cluster.this.storage_encrypted && aws_rds_cluster.this.kms_key_id == var.data_kms_key_arn
    error_message = "The ledger is not encrypted with its key."
  }

  assert {
    condition     = aws_rds_cluster.this.backup_retention_period == 7 && aws_rds_cluster.this.deletion_protection && !aws_rds_cluster.this.skip_final_snapshot
    error_message = "The ledger could be lost."
  }

  assert {
    condition     = alltrue([for instance in aws_rds_cluster_instance.this : !instance.publicly_accessible])
    error_message = "An instance has a public address."
  }

  assert {
    condition     = !aws_rds_cluster.this.enable_global_write_forwarding && !aws_rds_cluster.this.enable_local_write_forwarding
    error_message = "Commits could go through write forwarding."
  }

  assert {
    condition     = output.parameters["synchronous_commit"] == "on" && output.parameters["rds.force_ssl"] == "1" && output.parameters["idle_in_transaction_session_timeout"] == "60000" && !contains(keys(output.parameters), "rds.global_db_rpo")
    error_message = "A setting that the guarantees rest on changed."
  }

  assert {
    condition     = aws_rds_cluster.this.master_password == null && aws_rds_cluster.this.master_username == "administrator"
    error_message = "The administrator's password would be in the state."
  }
}

run "a_secondary_is_equal_and_brings_no_roles_of_its_own" {
  command = apply

  variables {
    name          = "engine-test-us-west-2"
    member        = "secondary"
    source_region = "us-east-1"
  }

  assert {
    condition     = aws_rds_cluster.this.storage_encrypted && aws_rds_cluster.this.backup_retention_period == 7 && aws_rds_cluster.this.deletion_protection
    error_message = "The secondary is less protected than the primary that it becomes."
  }

  assert {
    condition     = length(aws_secretsmanager_secret.seed) == 0 && output.seed_secret_id == null
    error_message = "A secondary has the primary's roles and needs no password."
  }

  assert {
    condition     = length(aws_rds_cluster_instance.this) == 2
    error_message = "The secondary has no equal reader."
  }
}

run "the_loss_of_a_region_can_be_bounded" {
  command = plan

  variables {
    global_rpo_seconds = 20
  }

  assert {
    condition     = output.parameters["rds.global_db_rpo"] == "20"
    error_message = "The bound is not set."
  }
}

run "aurora_knows_no_bound_below_20_seconds" {
  command = plan

  variables {
    global_rpo_seconds = 19
  }

  expect_failures = [var.global_rpo_seconds]
}

run "a_secondary_names_its_source" {
  command = plan

  variables {
    member = "secondary"
  }

  expect_failures = [var.source_region]
}

run "a_member_names_its_global_database" {
  command = plan

  variables {
    global_cluster_id = null
  }

  expect_failures = [aws_rds_cluster.this]
}

run "a_class_that_cannot_join_is_refused" {
  command = plan

  variables {
    instance_class = "db.t4g.medium"
  }

  expect_failures = [var.instance_class]
}

run "six_days_of_backups_are_refused" {
  command = plan

  variables {
    backup_retention_days = 6
  }

  expect_failures = [var.backup_retention_days]
}
