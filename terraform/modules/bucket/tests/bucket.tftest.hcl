variables {
  name = "example-bucket"
}

run "a_bucket_is_private_versioned_and_encrypted" {
  command = apply

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.this.block_public_acls, aws_s3_bucket_public_access_block.this.block_public_policy,
      aws_s3_bucket_public_access_block.this.ignore_public_acls, aws_s3_bucket_public_access_block.this.restrict_public_buckets,
    ])
    error_message = "A way to make the bucket public is left open."
  }

  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "The bucket has no versions."
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "Without a key of its own the bucket must use S3's."
  }

  assert {
    condition     = one([for statement in jsondecode(output.policy_json).Statement : statement if statement.Effect == "Deny"]).Condition.Bool["aws:SecureTransport"] == "false"
    error_message = "The bucket can be reached without TLS."
  }

  assert {
    condition     = length(aws_s3_bucket_object_lock_configuration.this) == 0
    error_message = "A lock that nobody asked for."
  }
}

run "a_key_and_a_lock_are_used_where_given" {
  command = apply

  variables {
    kms_key_arn       = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    lock_days         = 35
    expire_after_days = 35
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "The key is not used."
  }

  assert {
    condition     = one(one(aws_s3_bucket_object_lock_configuration.this[0].rule).default_retention).mode == "COMPLIANCE"
    error_message = "The lock can be lifted."
  }
}

run "what_is_locked_does_not_expire" {
  command = plan

  variables {
    lock_days         = 35
    expire_after_days = 34
  }

  expect_failures = [var.expire_after_days]
}
