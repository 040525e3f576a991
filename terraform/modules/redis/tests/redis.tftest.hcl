variables {
  name              = "engine-test"
  subnet_ids        = ["subnet-a", "subnet-b", "subnet-c"]
  security_group_id = "sg-cache"
  data_kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/data"
  logs_kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/logs"
  auth_token        = "0123456789abcdef"
}

run "the_cache_has_a_replica_tls_and_a_password" {
  command = apply

  assert {
    condition     = aws_elasticache_replication_group.this.transit_encryption_mode == "required" && aws_elasticache_replication_group.this.at_rest_encryption_enabled == "true" && aws_elasticache_replication_group.this.auth_token != null
    error_message = "The cache can be read by others."
  }

  assert {
    condition     = aws_elasticache_replication_group.this.automatic_failover_enabled && aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.num_cache_clusters == 2
    error_message = "The cache does not survive its primary."
  }

  assert {
    condition     = output.member_ids == ["engine-test-001", "engine-test-002"] && output.global_datastore_id == null
    error_message = "The nodes are called otherwise, or a global datastore was made."
  }
}

run "a_global_datastore_starts_here_or_is_copied_here" {
  command = apply

  variables {
    node_type               = "cache.r7g.large"
    global_datastore_suffix = "engine-test"
  }

  assert {
    condition     = length(aws_elasticache_global_replication_group.this) == 1
    error_message = "No global datastore was made."
  }
}

run "a_copy_repeats_nothing_of_its_primary" {
  command   = apply
  state_key = "copy" # a cluster of its own, not a change of the one above

  variables {
    is_copy             = true
    global_datastore_id = "abcde-engine-test"
  }

  assert {
    condition     = aws_elasticache_replication_group.this.global_replication_group_id == "abcde-engine-test" && length(aws_elasticache_parameter_group.this) == 0 && aws_elasticache_replication_group.this.auth_token != null
    error_message = "The copy does not belong to the datastore."
  }
}

run "a_small_node_cannot_be_global" {
  command = plan

  variables {
    global_datastore_suffix = "engine-test"
  }

  expect_failures = [var.global_datastore_suffix]
}

run "a_short_password_is_refused" {
  command = plan

  variables {
    auth_token = "0123456789abcde"
  }

  expect_failures = [var.auth_token]
}
