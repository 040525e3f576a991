# One group per tier, and every rule names its peer. Only `edge` is open to the world.

locals {
  groups = {
    edge      = "Load balancer: the only tier that the internet reaches"
    nodes     = "Kubernetes nodes and their pods"
    database  = "Aurora"
    cache     = "ElastiCache"
    endpoints = "AWS services inside the VPC"
    bastion   = "Session Manager only: nothing may connect to it"
  }

  # from, to: another tier. Each becomes an egress rule of one and an ingress rule of the other.
  flows = {
    edge_to_gateway        = { from = "edge", to = "nodes", port = var.gateway_port }
    edge_to_gateway_health = { from = "edge", to = "nodes", port = var.gateway_health_port }
    nodes_to_database      = { from = "nodes", to = "database", port = 5432 }
    nodes_to_cache         = { from = "nodes", to = "cache", port = 6379 }
    nodes_to_endpoints     = { from = "nodes", to = "endpoints", port = 443 }
    bastion_to_database    = { from = "bastion", to = "database", port = 5432 }
    bastion_to_endpoints   = { from = "bastion", to = "endpoints", port = 443 }
    # The rotation function of `credentials` runs in the nodes' group and needs no rule of its own.
  }
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5: used by the other modules

  for_each = local.groups

  name        = "${var.name}-${each.key}"
  description = each.value
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_security_group_ingress_rule" "flow" {
  for_each = local.flows

  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  description                  = "from ${each.value.from}"
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_egress_rule" "flow" {
  for_each = local.flows

  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  description                  = "to ${each.value.to}"
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

# The edge: HTTPS for clients, and HTTP only to be told to use HTTPS.
resource "aws_vpc_security_group_ingress_rule" "internet" {
  for_each = length(var.edge_prefix_lists) == 0 ? { http = 80, https = 443 } : {}

  security_group_id = aws_security_group.this["edge"].id
  description       = "clients"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}

data "aws_ec2_managed_prefix_list" "edge" {
  for_each = toset(var.edge_prefix_lists)

  name = each.key
}

resource "aws_vpc_security_group_ingress_rule" "edge_prefix_list" {
  for_each = toset(var.edge_prefix_lists)

  security_group_id = aws_security_group.this["edge"].id
  description       = each.key
  prefix_list_id    = data.aws_ec2_managed_prefix_list.edge[each.key].id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# Pods speak to pods of other nodes on any port; who may speak to whom is NetworkPolicy's and Istio's.
resource "aws_vpc_security_group_ingress_rule" "nodes_self" {
  security_group_id            = aws_security_group.this["nodes"].id
  referenced_security_group_id = aws_security_group.this["nodes"].id
  description                  = "pods of other nodes"
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_egress_rule" "nodes_self" {
  security_group_id            = aws_security_group.this["nodes"].id
  referenced_security_group_id = aws_security_group.this["nodes"].id
  description                  = "pods of other nodes"
  ip_protocol                  = "-1"
}

# Outward HTTPS through NAT: image registries, S3 through its gateway, Helm charts, Session Manager.
resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = toset(["nodes", "bastion"])

  security_group_id = aws_security_group.this[each.key].id
  description       = "HTTPS outward"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# A group cannot be named across a peering of regions, so the peer's private subnets are.
resource "aws_vpc_security_group_ingress_rule" "peer_database" {
  for_each = local.peer_private_cidrs

  security_group_id = aws_security_group.this["database"].id
  description       = "engines of the peer region"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
}

resource "aws_vpc_security_group_egress_rule" "peer_database" {
  for_each = var.peer_cidr == null ? {} : { for index in range(3) : tostring(index) => cidrsubnet(var.peer_cidr, 8, 112 + index) }

  security_group_id = aws_security_group.this["nodes"].id
  description       = "the writer, while it is in the peer region"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
}
