output "function_name" {
  description = "The function; call it with {\"action\": \"check\"}"
  value       = aws_lambda_function.this.function_name
}

output "function_arn" {
  description = "ARN of the function"
  value       = aws_lambda_function.this.arn
}

output "watched_url" {
  description = "The address that is asked each minute, for tests"
  value       = var.peer.health_url
}

output "policy_json" {
  description = "What the function may do, for tests"
  value       = data.aws_iam_policy_document.function.json
}

output "alarm_actions" {
  description = "Whom the alarm calls, for tests"
  value       = aws_cloudwatch_metric_alarm.writer_region.alarm_actions
}
