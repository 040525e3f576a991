# The VPC of one region: three tiers of subnets in each zone.
#
# public    load balancer and NAT gateways
# private   nodes, bastion, endpoints: reach the internet through NAT, are reached by nobody
# database  Aurora and ElastiCache: no route to the internet at all

data "aws_availability_zones" "this" {
  #checkov:skip=CKV_AWS_394: zones are taken from the front of a sorted list, so a new one at its end changes nothing

  state = "available"

  # Local zones carry neither Aurora nor EKS control planes.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_region" "this" {}

locals {
  zones    = slice(data.aws_availability_zones.this.names, 0, var.zone_count)
  zone_set = { for index, zone in local.zones : zone => index }

  # In a /16: three private /19 (8,190 pods and nodes each), then /24s.
  private_cidrs  = { for zone, index in local.zone_set : zone => cidrsubnet(var.cidr, 3, index) }
  public_cidrs   = { for zone, index in local.zone_set : zone => cidrsubnet(var.cidr, 8, 96 + index) }
  database_cidrs = { for zone, index in local.zone_set : zone => cidrsubnet(var.cidr, 8, 112 + index) }

  nat_zones = var.nat_per_zone ? local.zone_set : { for zone, index in local.zone_set : zone => index if index == 0 }

  # The peer's VPC has the same plan of addresses.
  peer_private_cidrs = var.peer_cidr == null ? {} : { for index in range(3) : tostring(index) => cidrsubnet(var.peer_cidr, 3, index) }
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# What a forgotten setting falls back to lets nothing through.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  for_each = local.zone_set

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = local.public_cidrs[each.key]
  map_public_ip_on_launch = false

  tags = {
    Name                                        = "${var.name}-public-${each.key}"
    Tier                                        = "public"
    "kubernetes.io/role/elb"                    = "1"
    "kubernetes.io/cluster/${var.cluster_name}" = "shared"
  }
}

resource "aws_subnet" "private" {
  for_each = local.zone_set

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = local.private_cidrs[each.key]

  tags = {
    Name                                        = "${var.name}-private-${each.key}"
    Tier                                        = "private"
    "kubernetes.io/role/internal-elb"           = "1"
    "kubernetes.io/cluster/${var.cluster_name}" = "shared"
  }
}

resource "aws_subnet" "database" {
  for_each = local.zone_set

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = local.database_cidrs[each.key]

  tags = {
    Name = "${var.name}-database-${each.key}"
    Tier = "database"
  }
}

resource "aws_eip" "nat" {
  for_each = local.nat_zones

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${each.key}" }
}

resource "aws_nat_gateway" "this" {
  for_each = local.nat_zones

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id

  tags = { Name = "${var.name}-${each.key}" }

  depends_on = [aws_internet_gateway.this]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  for_each = local.zone_set

  subnet_id      = aws_subnet.public[each.key].id
  route_table_id = aws_route_table.public.id
}

# One table per zone, so that a zone uses its own NAT gateway where it has one.
resource "aws_route_table" "private" {
  for_each = local.zone_set

  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_route" "nat" {
  for_each = local.zone_set

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[var.nat_per_zone ? each.key : local.zones[0]].id
}

resource "aws_route_table_association" "private" {
  for_each = local.zone_set

  subnet_id      = aws_subnet.private[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}

# Local routes, and the peer region's when `peering` adds them; nothing else.
resource "aws_route_table" "database" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-database" }
}

resource "aws_route_table_association" "database" {
  for_each = local.zone_set

  subnet_id      = aws_subnet.database[each.key].id
  route_table_id = aws_route_table.database.id
}
