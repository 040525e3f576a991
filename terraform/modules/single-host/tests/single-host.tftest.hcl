variables {
  repository_url    = "https://git.example.com/engine.git"
  repository_ref    = "v1.2.3"
  client_cidrs      = ["203.0.113.0/24", "10.0.0.0/8"]
  ansible_variables = { engine_domain = "engine.example.com" }
}

run "only_443_is_open_and_disks_are_encrypted" {
  command = apply

  assert {
    condition     = aws_vpc_security_group_ingress_rule.https.from_port == 443 && aws_vpc_security_group_ingress_rule.https.to_port == 443
    error_message = "Another port is open."
  }

  assert {
    condition     = aws_instance.this.metadata_options[0].http_tokens == "required" && aws_instance.this.root_block_device[0].encrypted && aws_ebs_volume.data.encrypted
    error_message = "IMDSv1 answers, or a disk is open."
  }

  assert {
    condition     = strcontains(output.user_data, "ansible-pull --url 'https://git.example.com/engine.git'") && strcontains(output.user_data, "v1.2.3") && strcontains(output.user_data, "{\"engine_client_cidrs\":\"203.0.113.0/24,10.0.0.0/8\",\"engine_domain\":\"engine.example.com\"}")
    error_message = "The machine does not run the playbook of that version."
  }

  assert {
    condition     = one(one(aws_dlm_lifecycle_policy.this.policy_details[0].schedule).retain_rule).interval == 7
    error_message = "Snapshots are not kept for seven days."
  }
}

run "nobody_may_call_is_refused" {
  command = plan

  variables {
    client_cidrs = []
  }

  expect_failures = [var.client_cidrs]
}

run "a_branch_is_refused" {
  command = plan

  variables {
    repository_ref = "main"
  }

  expect_failures = [var.repository_ref]
}

run "a_secret_is_refused" {
  command = plan

  variables {
    ansible_variables = { postgres_password = "x" }
  }

  expect_failures = [var.ansible_variables]
}
