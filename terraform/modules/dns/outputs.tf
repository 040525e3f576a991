output "health_check_ids" {
  description = "Health check of each region"
  value       = { for region, check in aws_route53_health_check.region : region => check.id }
}

output "regional_names" {
  description = "Name of each region alone"
  value       = { for region, value in var.regions : region => value.name }
}

output "record_name" {
  description = "Name that leads to the regions"
  value       = var.record_name
}
