output "dns_name" {
  description = "AWS's name of the load balancer, for alias records"
  value       = aws_lb.this.dns_name
}

output "zone_id" {
  description = "AWS's zone of that name"
  value       = aws_lb.this.zone_id
}

output "arn_suffix" {
  description = "The load balancer as a dimension of metrics"
  value       = aws_lb.this.arn_suffix
}

output "target_group_arn" {
  description = "Where the gateway's pods are registered"
  value       = aws_lb_target_group.gateway.arn
}

output "target_group_name" {
  description = "Name of that target group, by which `platform` finds it"
  value       = aws_lb_target_group.gateway.name
}

output "target_group_arn_suffix" {
  description = "The target group as a dimension of metrics"
  value       = aws_lb_target_group.gateway.arn_suffix
}

output "waf_arn" {
  description = "ARN of the access control list"
  value       = module.waf.arn
}

output "waf_name" {
  description = "Name of the access control list"
  value       = module.waf.name
}
