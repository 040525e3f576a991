output "id" {
  description = "Identifier of the replication group"
  value       = aws_elasticache_replication_group.this.replication_group_id
}

output "member_ids" {
  description = "Identifiers of the nodes, for alarms; named here because AWS numbers them"
  value       = [for number in range(1, var.node_count + 1) : format("%s-%03d", var.name, number)]
}

output "primary_endpoint" {
  description = "Name that always resolves to the primary"
  value       = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "port" {
  description = "Port of both names; TLS only"
  value       = aws_elasticache_replication_group.this.port
}

output "reader_endpoint" {
  description = "Name that resolves to the replicas"
  value       = aws_elasticache_replication_group.this.reader_endpoint_address
}

output "global_datastore_id" {
  description = "The global datastore whose primary this is; null otherwise"
  value       = one(aws_elasticache_global_replication_group.this[*].global_replication_group_id)
}
