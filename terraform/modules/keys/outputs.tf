output "arns" {
  description = "ARN of each key by purpose: data, logs, events, trail"
  value       = { for purpose, key in aws_kms_key.this : purpose => key.arn }
}

output "policies_json" {
  description = "Key policies by purpose, for tests"
  value       = { for purpose, document in data.aws_iam_policy_document.key : purpose => document.json }
}
