output "budget_name" {
  description = "The budget"
  value       = aws_budgets_budget.this.name
}

output "anomaly_monitor_arn" {
  description = "The monitor of anomalies"
  value       = aws_ce_anomaly_monitor.this.arn
}
