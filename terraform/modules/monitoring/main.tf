# What AWS itself measures: a topic, and alarms that hold even when the cluster with Prometheus is gone.
# Alarms on the engine's own metrics are Prometheus' (ops/monitoring).

data "aws_caller_identity" "this" {}
data "aws_region" "this" {}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "Publish"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.this.arn]

    principals {
      type        = "Service"
      identifiers = ["backup.amazonaws.com", "cloudwatch.amazonaws.com", "budgets.amazonaws.com", "costalerts.amazonaws.com", "events.rds.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.this.account_id]
    }
  }

  # EventBridge takes no conditions in a topic's policy: with one, findings of GuardDuty would be dropped.
  statement {
    sid       = "PublishEvents"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.this.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
  }
}

resource "aws_sns_topic" "this" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.events_kms_key_arn
}

resource "aws_sns_topic_policy" "this" {
  arn    = aws_sns_topic.this.arn
  policy = data.aws_iam_policy_document.topic.json
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.emails)

  topic_arn = aws_sns_topic.this.arn
  protocol  = "email"
  endpoint  = each.key
}

locals {
  balancer = { LoadBalancer = var.load_balancer.arn_suffix }
  targets  = { LoadBalancer = var.load_balancer.arn_suffix, TargetGroup = var.load_balancer.target_group_arn_suffix }
  cluster  = { DBClusterIdentifier = var.database.cluster_id }
  gib      = 1024 * 1024 * 1024

  # statistic: a plain one, or a percentile such as p99. missing: what no data means.
  alarms = {
    server-errors       = { description = "The engine or the gateway answers 5xx", namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.balancer, statistic = "Sum", above = var.server_error_rate_max, minutes = 3, missing = "notBreaching" }
    edge-errors         = { description = "The load balancer itself answers 5xx: it reaches no gateway", namespace = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer, statistic = "Sum", above = 10, minutes = 2, missing = "notBreaching" }
    client-errors       = { description = "Many 4xx: a client gone wrong, or probing", namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_4XX_Count", dimensions = local.balancer, statistic = "Sum", above = var.client_error_rate_max, minutes = 5, missing = "notBreaching" }
    latency             = { description = "99th percentile of answers", namespace = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.balancer, statistic = "p99", above = var.latency_p99_seconds, minutes = 5, missing = "notBreaching" }
    unhealthy-gateways  = { description = "Gateway pods that fail their health page", namespace = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.targets, statistic = "Maximum", above = 0, minutes = 3, missing = "notBreaching" }
    blocked-requests    = { description = "WAF blocks more than a stray scanner would send", namespace = "AWS/WAFV2", metric = "BlockedRequests", dimensions = { WebACL = var.load_balancer.waf_name, Region = data.aws_region.this.region, Rule = "ALL" }, statistic = "Sum", above = 1000, minutes = 5, missing = "notBreaching" }
    database-cpu        = { description = "The writer or a reader is busy", namespace = "AWS/RDS", metric = "CPUUtilization", dimensions = local.cluster, statistic = "Maximum", above = 85, minutes = 10, missing = "missing" }
    database-connection = { description = "Connections near what the instance allows", namespace = "AWS/RDS", metric = "DatabaseConnections", dimensions = local.cluster, statistic = "Maximum", above = var.database.connections_max, minutes = 3, missing = "missing" }
    database-lag        = { description = "A reader of the region lags behind its writer", namespace = "AWS/RDS", metric = "AuroraReplicaLagMaximum", dimensions = local.cluster, statistic = "Maximum", above = var.database.replica_lag_ms, minutes = 5, missing = "notBreaching" }
    database-deadlocks  = { description = "Deadlocks: engines lock in one order, so another program does not", namespace = "AWS/RDS", metric = "Deadlocks", dimensions = local.cluster, statistic = "Sum", above = 0, minutes = 1, missing = "notBreaching" }
    database-storage    = { description = "The ledger outgrows what was planned", namespace = "AWS/RDS", metric = "VolumeBytesUsed", dimensions = local.cluster, statistic = "Average", above = var.database.storage_gib_max * local.gib, minutes = 60, missing = "notBreaching" }
  }

  # Where less is worse.
  low_alarms = {
    database-disk = { description = "Local storage for sorts and temporary tables runs out", namespace = "AWS/RDS", metric = "FreeLocalStorage", dimensions = local.cluster, statistic = "Minimum", below = var.database.local_storage_gib * local.gib, minutes = 5, missing = "notBreaching" }
    gateways-gone = { description = "No gateway pod is registered and healthy", namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.targets, statistic = "Maximum", below = 1, minutes = 2, missing = "breaching" }
  }

  cache_alarms = merge([for member in var.cache_member_ids : {
    "${member}-cpu"       = { metric = "EngineCPUUtilization", above = 85, description = "Redis' one thread is busy" }
    "${member}-evictions" = { metric = "Evictions", above = 1000, description = "Balances are pushed out: the node is too small" }
    "${member}-lag"       = { metric = "ReplicationLag", above = 5, description = "The replica lags, in seconds" }
    "${member}-memory"    = { metric = "DatabaseMemoryUsagePercentage", above = 95, description = "Memory is nearly full" }
  }]...)
}

resource "aws_cloudwatch_metric_alarm" "high" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  period              = 60
  evaluation_periods  = each.value.minutes
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.this.arn]
  ok_actions          = [aws_sns_topic.this.arn]
}

resource "aws_cloudwatch_metric_alarm" "low" {
  for_each = local.low_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = 60
  evaluation_periods  = each.value.minutes
  comparison_operator = "LessThanThreshold"
  threshold           = each.value.below
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.this.arn]
  ok_actions          = [aws_sns_topic.this.arn]
}

resource "aws_cloudwatch_metric_alarm" "cache" {
  for_each = local.cache_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.description}. A slow cache costs reads only; transfers do not need it"
  namespace           = "AWS/ElastiCache"
  metric_name         = each.value.metric
  dimensions          = { CacheClusterId = trimsuffix(trimsuffix(trimsuffix(trimsuffix(each.key, "-cpu"), "-evictions"), "-lag"), "-memory") }
  statistic           = each.value.metric == "Evictions" ? "Sum" : "Average"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.this.arn]
  ok_actions          = [aws_sns_topic.this.arn]
}

# Only a secondary publishes it, and under which dimensions AWS does not say: a query over all of the
# region's clusters needs none.
resource "aws_cloudwatch_metric_alarm" "global_lag" {
  count = var.database.global ? 1 : 0

  alarm_name          = "${var.name}-global-lag"
  alarm_description   = "This region lags behind the writer's: a failover now would lose this much"
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.database.global_lag_ms
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.this.arn]
  ok_actions          = [aws_sns_topic.this.arn]

  metric_query {
    id          = "lag"
    expression  = "SELECT MAX(AuroraGlobalDBReplicationLag) FROM \"AWS/RDS\""
    period      = 60
    return_data = true
  }
}
