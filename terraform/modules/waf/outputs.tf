output "arn" {
  description = "ARN of the access control list"
  value       = aws_wafv2_web_acl.this.arn
}

output "name" {
  description = "Name of the access control list, the dimension of its metrics"
  value       = aws_wafv2_web_acl.this.name
}
