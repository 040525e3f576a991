output "arn" {
  description = "ARN of the role, once its policies are attached"
  value       = aws_iam_role.this.arn

  depends_on = [aws_iam_role_policy.this, aws_iam_role_policy_attachment.this]
}

output "trust_json" {
  description = "Who may take the role, for tests"
  value       = data.aws_iam_policy_document.trust.json
}
