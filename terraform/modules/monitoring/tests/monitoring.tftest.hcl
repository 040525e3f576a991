variables {
  name               = "engine-test-us-east-1"
  events_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/events"
  emails             = ["oncall@example.com"]
  cluster_name       = "engine-test"
  cache_member_ids   = ["engine-test-001", "engine-test-002"]
  load_balancer      = { arn_suffix = "app/edge/1", target_group_arn_suffix = "targetgroup/gw/1", waf_name = "engine-test-edge" }
  database           = { cluster_id = "engine-test-us-east-1", global = true, connections_max = 1000 }
  buckets            = { logs = { name = "engine-test-logs", gib_max = 10 } }
}

run "every_alarm_tells_somebody" {
  command = apply

  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.high), values(aws_cloudwatch_metric_alarm.low), values(aws_cloudwatch_metric_alarm.cache), values(aws_cloudwatch_metric_alarm.bucket_errors), values(aws_cloudwatch_metric_alarm.bucket_size), values(aws_cloudwatch_metric_alarm.bucket_silent)) : contains(alarm.alarm_actions, aws_sns_topic.this.arn)])
    error_message = "An alarm tells nobody."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.bucket_errors["logs"].threshold == 1 && aws_cloudwatch_metric_alarm.bucket_errors["logs"].period == 300 && aws_cloudwatch_metric_alarm.bucket_errors["logs"].comparison_operator == "GreaterThanOrEqualToThreshold"
    error_message = "One refused request in five minutes must alarm."
  }

  assert {
    condition     = length(setsubtract(["server-errors", "edge-errors", "client-errors", "latency", "database-lag", "database-connection"], keys(aws_cloudwatch_metric_alarm.high))) == 0 && contains(keys(aws_cloudwatch_metric_alarm.low), "database-disk") && length(aws_cloudwatch_metric_alarm.global_lag) == 1
    error_message = "An alarm is gone."
  }

  assert {
    condition     = toset([for alarm in aws_cloudwatch_metric_alarm.cache : alarm.dimensions["CacheClusterId"]]) == toset(["engine-test-001", "engine-test-002"]) && length(aws_cloudwatch_metric_alarm.cache) == 8
    error_message = "A node of the cache has no alarms."
  }

  assert {
    condition     = aws_sns_topic.this.kms_master_key_id == var.events_kms_key_arn && !strcontains(data.aws_iam_policy_document.topic.json, "\"*\"")
    error_message = "The topic is open, or not encrypted."
  }

  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) == 8
    error_message = "A panel is missing."
  }
}
