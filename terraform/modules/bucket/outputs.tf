output "id" {
  description = "Name of the bucket, once its policy is in place"
  value       = aws_s3_bucket_policy.this.bucket
}

output "arn" {
  description = "ARN of the bucket"
  value       = aws_s3_bucket.this.arn
}

output "policy_json" {
  description = "The bucket's policy, for tests"
  value       = data.aws_iam_policy_document.this.json
}
