output "vpc_id" {
  description = "The VPC"
  value       = aws_vpc.this.id
}

output "cidr" {
  description = "Addresses of the VPC"
  value       = aws_vpc.this.cidr_block
}

output "public_subnet_ids" {
  description = "Subnets of load balancers"
  value       = [for zone in local.zones : aws_subnet.public[zone].id]
}

output "private_subnet_ids" {
  description = "Subnets of nodes"
  value       = [for zone in local.zones : aws_subnet.private[zone].id]
}

output "database_subnet_ids" {
  description = "Subnets of Aurora and ElastiCache"
  value       = [for zone in local.zones : aws_subnet.database[zone].id]
}

output "database_subnet_arns" {
  description = "ARNs of the subnets of Aurora and ElastiCache, by which the fence may be moved"
  value       = [for zone in local.zones : aws_subnet.database[zone].arn]
}

output "security_group_ids" {
  description = "Group of each tier: edge, nodes, database, cache, endpoints, bastion"
  value       = { for tier, group in aws_security_group.this : tier => group.id }
}

output "route_table_ids" {
  description = "Tables that need a route to the peer region, by a name that is known before apply"
  value = merge(
    { for index, zone in local.zones : "private-${index}" => aws_route_table.private[zone].id },
    { database = aws_route_table.database.id },
  )
}

output "fence_acl_id" {
  description = "Access list that lets nothing through"
  value       = aws_network_acl.fence.id
}

output "fence_acl_arn" {
  description = "ARN of the fence"
  value       = aws_network_acl.fence.arn
}

output "database_acl_id" {
  description = "Access list of the database subnets while they serve"
  value       = aws_network_acl.database.id
}

output "database_acl_arn" {
  description = "ARN of the database subnets' access list"
  value       = aws_network_acl.database.arn
}

output "bastion_id" {
  description = "Instance to start a Session Manager session on; null without a bastion"
  value       = one(aws_instance.bastion[*].id)
}
