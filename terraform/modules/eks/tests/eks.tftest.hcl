variables {
  name                      = "engine-test"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  node_security_group_id    = "sg-nodes"
  bastion_security_group_id = "sg-bastion"
  data_kms_key_arn          = "arn:aws:kms:us-east-1:123456789012:key/data"
  logs_kms_key_arn          = "arn:aws:kms:us-east-1:123456789012:key/logs"

  node_pools = {
    general = { instance_types = ["m7g.xlarge"], size_min = 3, size_max = 6, size_start = 3 }
    spot    = { instance_types = ["m7g.xlarge", "m6g.xlarge"], spot = true, size_min = 0, size_max = 6, size_start = 0 }
  }
}

run "the_api_server_is_private_and_secrets_are_encrypted" {
  command = apply

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "The API server has a public address that nobody asked for."
  }

  assert {
    condition     = one(aws_eks_cluster.this.encryption_config[0].provider).key_arn == var.data_kms_key_arn && contains(aws_eks_cluster.this.encryption_config[0].resources, "secrets")
    error_message = "Kubernetes secrets are not encrypted with the key."
  }

  assert {
    condition     = contains(aws_eks_cluster.this.enabled_cluster_log_types, "audit") && !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "No audit log, or a hidden administrator."
  }

  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1 && one(template.block_device_mappings[0].ebs).encrypted == "true"])
    error_message = "A pod could take its node's credentials, or a disk is open."
  }

  assert {
    condition     = aws_eks_node_group.this["spot"].capacity_type == "SPOT" && one(aws_eks_node_group.this["spot"].taint).key == "spot" && length(aws_eks_node_group.this["general"].taint) == 0
    error_message = "The engine could land on a node that is taken away."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "NetworkPolicies would be accepted and not enforced."
  }

  assert {
    condition     = alltrue([for addon in concat(values(aws_eks_addon.before_nodes), values(aws_eks_addon.after_nodes)) : can(regex("^v[0-9.]+-eksbuild\\.[0-9]+$", addon.addon_version))])
    error_message = "An add-on is not pinned: two clusters made a month apart would differ."
  }

  assert {
    condition     = startswith(aws_eks_addon.before_nodes["kube-proxy"].addon_version, "v${var.kubernetes_version}.") && strcontains(file("../../helm-values/cluster-autoscaler.yaml"), "tag: v${var.kubernetes_version}.")
    error_message = "kube-proxy or the autoscaler is of another Kubernetes version than the cluster."
  }
}

run "the_whole_internet_is_refused" {
  command = plan

  variables {
    public_access_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.public_access_cidrs]
}

run "spot_alone_is_refused" {
  command = plan

  variables {
    node_pools = { spot = { instance_types = ["m7g.xlarge", "m6g.xlarge"], spot = true, size_min = 1, size_max = 6, size_start = 1 } }
  }

  expect_failures = [var.node_pools]
}

run "a_pool_outside_its_bounds_is_refused" {
  command = plan

  variables {
    node_pools = { general = { instance_types = ["m7g.xlarge"], size_min = 3, size_max = 6, size_start = 7 } }
  }

  expect_failures = [var.node_pools]
}
