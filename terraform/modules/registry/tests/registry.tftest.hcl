variables {
  kms_key_arn     = "arn:aws:kms:us-east-1:123456789012:key/data"
  replica_regions = ["us-west-2"]
}

run "tags_do_not_move_and_every_region_has_a_copy" {
  command = plan

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "IMMUTABLE" && repository.image_scanning_configuration[0].scan_on_push && repository.encryption_configuration[0].encryption_type == "KMS"])
    error_message = "A tag can move, a push is not scanned, or images are not encrypted with the key."
  }

  assert {
    condition     = [for destination in one(one(aws_ecr_replication_configuration.this[0].replication_configuration).rule).destination : destination.region] == ["us-west-2"]
    error_message = "The other region has no copy."
  }
}
