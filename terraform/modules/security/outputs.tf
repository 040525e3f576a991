output "trail_arn" {
  description = "The trail; null where it is off"
  value       = one(aws_cloudtrail.this[*].arn)
}

output "detector_id" {
  description = "GuardDuty's detector; null where it is off"
  value       = one(aws_guardduty_detector.this[*].id)
}
