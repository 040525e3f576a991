output "cluster_id" {
  description = "Identifier of the cluster, once its instances stand"
  value       = aws_rds_cluster.this.cluster_identifier

  depends_on = [aws_rds_cluster_instance.this]
}

output "cluster_arn" {
  description = "ARN of the cluster, once its instances stand"
  value       = aws_rds_cluster.this.arn

  depends_on = [aws_rds_cluster_instance.this]
}

output "writer_endpoint" {
  description = "The region's own writer endpoint; only of use while the region is the primary. Engines use the global one"
  value       = aws_rds_cluster.this.endpoint
}

output "reader_endpoint" {
  description = "Readers of this region, for history"
  value       = aws_rds_cluster.this.reader_endpoint
}

output "port" {
  description = "Port of PostgreSQL"
  value       = aws_rds_cluster.this.port
}

output "master_username" {
  description = "The administrator"
  value       = var.master_username
}

output "seed_secret_id" {
  description = "Secret with the administrator's first password; null in a secondary"
  value       = one(aws_secretsmanager_secret_version.seed[*].secret_id)
}

output "parameters" {
  description = "Settings that differ from Aurora's defaults, for tests"
  value       = { for name, parameter in local.cluster_parameters : name => parameter.value }
}
