output "public_ip" {
  description = "Address of the machine"
  value       = module.single_host.public_ip
}

output "instance_id" {
  description = "For `aws ssm start-session --target`"
  value       = module.single_host.instance_id
}
