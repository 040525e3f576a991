# The way between the two regions: engines of one reach the database writer in the other.

resource "aws_vpc_peering_connection" "this" {
  provider = aws.primary

  vpc_id      = var.primary.vpc_id
  peer_vpc_id = var.secondary.vpc_id
  peer_region = var.secondary.region
  auto_accept = false # not possible across regions

  tags = { Name = var.name }
}

resource "aws_vpc_peering_connection_accepter" "this" {
  provider = aws.secondary

  vpc_peering_connection_id = aws_vpc_peering_connection.this.id
  auto_accept               = true

  tags = { Name = var.name }
}

# The writer's public name must resolve to its private address from the other side too.
resource "aws_vpc_peering_connection_options" "primary" {
  provider = aws.primary

  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.id

  requester {
    allow_remote_vpc_dns_resolution = true
  }
}

resource "aws_vpc_peering_connection_options" "secondary" {
  provider = aws.secondary

  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.id

  accepter {
    allow_remote_vpc_dns_resolution = true
  }
}

resource "aws_route" "to_secondary" {
  provider = aws.primary
  for_each = var.primary.route_table_ids

  route_table_id            = each.value
  destination_cidr_block    = var.secondary.cidr
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.id
}

resource "aws_route" "to_primary" {
  provider = aws.secondary
  for_each = var.secondary.route_table_ids

  route_table_id            = each.value
  destination_cidr_block    = var.primary.cidr
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this.id
}
