output "secret_names" {
  description = "Name of each role's secret, the same in every region: master, owner, app, read"
  value       = { for role, secret in aws_secretsmanager_secret.this : role => secret.name }
}

output "secret_arns" {
  description = "ARN of each role's secret in this region"
  value       = { for role, secret in aws_secretsmanager_secret.this : role => secret.arn }
}
