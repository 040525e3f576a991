output "topic_arn" {
  description = "Topic of this region's alarms, once it lets services publish"
  value       = aws_sns_topic_policy.this.arn
}

output "dashboard_name" {
  description = "The dashboard"
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "alarm_names" {
  description = "Every alarm of this module, for tests, drills and the schedule that silences them"
  value = sort(concat(
    [for alarm in aws_cloudwatch_metric_alarm.high : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.global_lag : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.low : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.cache : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.bucket_errors : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.bucket_size : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.bucket_silent : alarm.alarm_name],
  ))
}
