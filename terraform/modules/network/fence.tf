# Two access lists for the database subnets. Taking away a security group's rule leaves open
# connections alone, because the group tracks them; an access list has no memory, so replacing
# `database` by `fence` silences a writer at once. The failover function does that to a region
# before it promotes the other.

resource "aws_network_acl" "database" {
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for subnet in aws_subnet.database : subnet.id]

  tags = { Name = "${var.name}-database" }

  lifecycle {
    # The fence is put up and taken down by the failover function; a later apply must not undo it.
    ignore_changes = [subnet_ids]
  }
}

resource "aws_network_acl_rule" "database_in" {
  for_each = { for index, cidr in compact([var.cidr, var.peer_cidr]) : tostring(100 + index) => cidr }

  network_acl_id = aws_network_acl.database.id
  rule_number    = tonumber(each.key)
  egress         = false
  protocol       = "tcp"
  rule_action    = "allow"
  cidr_block     = each.value
  from_port      = 1024
  to_port        = 65535
}

resource "aws_network_acl_rule" "database_out" {
  for_each = { for index, cidr in compact([var.cidr, var.peer_cidr]) : tostring(100 + index) => cidr }

  network_acl_id = aws_network_acl.database.id
  rule_number    = tonumber(each.key)
  egress         = true
  protocol       = "tcp"
  rule_action    = "allow"
  cidr_block     = each.value
  from_port      = 443
  to_port        = 65535
}

# No rule: nothing passes in either direction. Aurora's storage and its replication do not go through it.
resource "aws_network_acl" "fence" {
  #checkov:skip=CKV2_AWS_1: it waits for a failover

  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-fence" }
}
