output "distribution_id" {
  description = "The distribution"
  value       = aws_cloudfront_distribution.this.id
}

output "domain_name" {
  description = "AWS's name of the distribution"
  value       = aws_cloudfront_distribution.this.domain_name
}
