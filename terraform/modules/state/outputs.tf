output "bucket_name" {
  description = "For `terraform init -backend-config=bucket=...`"
  value       = module.bucket.id
}

output "kms_key_arn" {
  description = "Key of the state"
  value       = aws_kms_key.this.arn
}
