output "public_ip" {
  description = "Address for the domain's A record"
  value       = aws_eip.this.public_ip
}

output "instance_id" {
  description = "For `aws ssm start-session --target`"
  value       = aws_instance.this.id
}

output "data_volume_id" {
  description = "The ledger's disk"
  value       = aws_ebs_volume.data.id
}

output "user_data" {
  description = "What the machine runs once, for tests"
  value       = local.user_data
}
