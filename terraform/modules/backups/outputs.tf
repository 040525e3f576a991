output "bucket_arn" {
  description = "Bucket of logical backups"
  value       = module.bucket.arn
}

output "bucket_names" {
  description = "Bucket of logical backups and its copy in the other region"
  value       = { primary = module.bucket.id, secondary = module.copy.id }
}

output "vault_names" {
  description = "Vaults of snapshots"
  value       = { primary = aws_backup_vault.primary.name, secondary = aws_backup_vault.secondary.name }
}

output "replication_policy_json" {
  description = "What replication may do, for tests"
  value       = data.aws_iam_policy_document.replication.json
}
