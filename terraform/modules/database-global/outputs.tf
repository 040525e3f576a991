output "id" {
  description = "Identifier of the global database"
  value       = aws_rds_global_cluster.this.id
}

output "arn" {
  description = "ARN of the global database"
  value       = aws_rds_global_cluster.this.arn
}

output "writer_endpoint" {
  description = "Name that always resolves to the current writer, in whichever region it is"
  value       = aws_rds_global_cluster.this.endpoint
}

output "engine_version" {
  description = "Version that members start with"
  value       = aws_rds_global_cluster.this.engine_version
}
