output "schedules" {
  description = "Names of everything that is scheduled"
  value = concat(
    [for pool, schedule in aws_autoscaling_schedule.sleep : "${pool}: ${schedule.recurrence}"],
    [for schedule in aws_scheduler_schedule.database : schedule.name],
  )
}

output "policy_json" {
  description = "What the schedule may do, for tests"
  value       = data.aws_iam_policy_document.acts.json
}
