output "id" {
  description = "The accepted peering"
  value       = aws_vpc_peering_connection_accepter.this.id
}

output "routes" {
  description = "How many tables know the way, in each direction"
  value = {
    to_secondary = length(aws_route.to_secondary)
    to_primary   = length(aws_route.to_primary)
  }
}
