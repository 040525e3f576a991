variables {
  zone_name   = "example.com"
  domain_name = "api.staging.example.com"
}

run "staging_is_one_region_that_sleeps" {
  command = plan

  assert {
    condition     = join(",", keys(output.regions)) == "us-east-1" && output.secondary_region == null && length(output.failover_functions) == 0
    error_message = "Staging has more than one region."
  }

  assert {
    condition     = output.database.global_cluster_id == null && join(",", keys(output.secret_names)) == "app,loadtest,master,owner,read,redis"
    error_message = "Staging belongs to a global database, which could not sleep, or lacks a secret."
  }

  assert {
    condition     = length(output.ci_role_arns) == 0
    error_message = "Roles for a pipeline that nobody named."
  }

  assert {
    condition     = strcontains(file("versions.tf"), "key          = \"${local.state_key}\"")
    error_message = "The drift check's role reads another state than the backend writes."
  }
}
