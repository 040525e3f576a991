variables {
  name             = "engine-test"
  cidr             = "10.10.0.0/16"
  peer_cidr        = "10.20.0.0/16"
  cluster_name     = "engine-test"
  logs_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/logs"
  data_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/data"
}

run "only_the_edge_is_open_to_the_world" {
  command = apply

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.internet : rule.security_group_id == output.security_group_ids["edge"]])
    error_message = "Another tier than the edge is open to the world."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.flow : rule.referenced_security_group_id != null && rule.cidr_ipv4 == null])
    error_message = "A flow between tiers does not name its peer."
  }

  assert {
    condition = (
      sort([for rule in aws_vpc_security_group_ingress_rule.peer_database : rule.cidr_ipv4]) == tolist(["10.20.0.0/19", "10.20.32.0/19", "10.20.64.0/19"])
      && alltrue([for rule in aws_vpc_security_group_ingress_rule.peer_database : rule.from_port == 5432 && rule.to_port == 5432])
    )
    error_message = "More or less of the peer region than its private subnets reaches the database."
  }

  assert {
    condition     = !contains([for rule in aws_vpc_security_group_ingress_rule.flow : rule.security_group_id], output.security_group_ids["bastion"])
    error_message = "Something may connect to the bastion."
  }

  assert {
    condition     = !aws_instance.bastion[0].associate_public_ip_address && aws_instance.bastion[0].metadata_options[0].http_tokens == "required" && aws_instance.bastion[0].root_block_device[0].encrypted
    error_message = "The bastion is public, speaks IMDSv1 or has an open disk."
  }

  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "A subnet gives public addresses by itself."
  }
}

run "subnets_do_not_overlap_and_span_three_zones" {
  command = plan

  assert {
    condition = sort(concat([for subnet in aws_subnet.private : subnet.cidr_block], [for subnet in aws_subnet.public : subnet.cidr_block], [for subnet in aws_subnet.database : subnet.cidr_block])) == sort(tolist([
      "10.10.0.0/19", "10.10.32.0/19", "10.10.64.0/19", "10.10.96.0/24", "10.10.97.0/24", "10.10.98.0/24", "10.10.112.0/24", "10.10.113.0/24", "10.10.114.0/24",
    ]))
    error_message = "The plan of addresses changed: peering and NetworkPolicies name these."
  }

  assert {
    condition     = length(distinct([for subnet in aws_subnet.database : subnet.availability_zone])) == 3
    error_message = "The database does not span three zones."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "A zone shares another's NAT gateway."
  }
}

run "without_a_peer_nothing_outside_reaches_the_database" {
  command = plan

  variables {
    peer_cidr    = null
    nat_per_zone = false
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.peer_database) + length(aws_vpc_security_group_egress_rule.peer_database) == 0
    error_message = "A peer that does not exist has a rule."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1
    error_message = "One NAT gateway was asked for."
  }
}

run "behind_cloudfront_the_world_stays_outside" {
  command = plan

  variables {
    edge_prefix_lists = ["com.amazonaws.global.cloudfront.origin-facing"]
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.internet) == 0 && length(aws_vpc_security_group_ingress_rule.edge_prefix_list) == 1
    error_message = "The load balancer can be reached past CloudFront."
  }
}

run "the_fence_lets_nothing_through" {
  command = plan

  # aws_network_acl without rules: AWS's implicit denial is all that is left.
  assert {
    condition     = alltrue([for rule in concat(values(aws_network_acl_rule.database_in), values(aws_network_acl_rule.database_out)) : contains(["10.10.0.0/16", "10.20.0.0/16"], rule.cidr_block)])
    error_message = "The database's list lets others in than the two VPCs."
  }

  assert {
    condition     = length(aws_network_acl_rule.database_in) == 2 && length(aws_network_acl_rule.database_out) == 2
    error_message = "The database's list has more or fewer rules than two VPCs need."
  }
}

run "a_small_network_is_refused" {
  command = plan

  variables {
    cidr = "10.10.0.0/20"
  }

  expect_failures = [var.cidr]
}
