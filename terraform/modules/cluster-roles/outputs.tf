output "arns" {
  description = "ARN of each role: load-balancer, secrets, external-dns, autoscaler, loki, backup"
  value       = { for purpose, role in module.role : purpose => role.arn }
}

output "policies_json" {
  description = "Policy of each role, for tests"
  value       = { for purpose, role in local.roles : purpose => role.policy }
}

output "trusts_json" {
  description = "Who may take each role, for tests"
  value       = { for purpose, role in module.role : purpose => role.trust_json }
}
