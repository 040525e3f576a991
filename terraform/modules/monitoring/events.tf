# What RDS tells of itself: failovers, failures, maintenance.

resource "aws_db_event_subscription" "cluster" {
  name             = "${var.name}-database"
  sns_topic        = aws_sns_topic.this.arn
  source_type      = "db-cluster"
  source_ids       = [var.database.cluster_id]
  event_categories = ["failover", "failure", "global-failover", "maintenance", "notification"]
}
