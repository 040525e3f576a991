output "repository_urls" {
  description = "Where images are pushed to and pulled from"
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "repository_arns" {
  description = "ARNs of the repositories, for the pipeline's role"
  value       = [for repository in aws_ecr_repository.this : repository.arn]
}
