variables {
  zone_name   = "example.com"
  domain_name = "api.example.com"

  github = {
    repository  = "example/engine"
    environment = "production"
  }

  state = {
    bucket_name = "example-terraform-state"
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/state"
  }
}

run "the_secondary_region_is_complete" {
  command = plan

  assert {
    condition     = join(",", keys(output.regions)) == "us-east-1,us-west-2" && join(",", keys(output.regions["us-east-1"])) == join(",", keys(output.regions["us-west-2"]))
    error_message = "A region lacks what the other has."
  }

  assert {
    condition     = join(",", keys(output.database.clusters)) == "us-east-1,us-west-2" && join(",", keys(output.database.reader_endpoints)) == "us-east-1,us-west-2"
    error_message = "A region has no database, or no readers."
  }

  assert {
    condition     = join(",", values(output.failover_functions)) == "engine-production-us-east-1-failover,engine-production-us-west-2-failover"
    error_message = "A region cannot promote itself."
  }

  assert {
    condition     = join(",", keys(output.backups.buckets)) == "us-east-1,us-west-2" && join(",", keys(output.backups.vaults)) == "us-east-1,us-west-2"
    error_message = "Backups are not copied to the other region."
  }

  assert {
    condition     = length(setintersection(output.regions["us-east-1"].database_cidrs, output.regions["us-west-2"].database_cidrs)) == 0 && join(",", keys(output.health_check_ids)) == "us-east-1,us-west-2"
    error_message = "The regions share addresses, or one is not watched."
  }

  assert {
    condition     = join(",", keys(output.ci_role_arns)) == "deploy,images,plan"
    error_message = "The pipeline lacks a role: without `plan` the nightly drift check is never made."
  }

  assert {
    condition     = strcontains(file("versions.tf"), "key          = \"${local.state_key}\"")
    error_message = "The drift check's role reads another state than the backend writes."
  }
}
