# One page per region for the first look: is it us, the edge, the database or the cache?

locals {
  region = data.aws_region.this.region

  # Title, and the metrics: namespace, metric, dimensions as name and value, options.
  panels = [
    { title = "Answers by class", metrics = [for class in ["2XX", "4XX", "5XX"] : ["AWS/ApplicationELB", "HTTPCode_Target_${class}_Count", "LoadBalancer", var.load_balancer.arn_suffix, { stat = "Sum" }]] },
    { title = "Latency at the load balancer (s)", metrics = [for stat in ["p50", "p95", "p99"] : ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", var.load_balancer.arn_suffix, { stat = stat }]] },
    { title = "Gateways and refusals", metrics = [
      ["AWS/ApplicationELB", "HealthyHostCount", "TargetGroup", var.load_balancer.target_group_arn_suffix, "LoadBalancer", var.load_balancer.arn_suffix, { stat = "Minimum" }],
      ["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", "LoadBalancer", var.load_balancer.arn_suffix, { stat = "Sum" }],
      ["AWS/WAFV2", "BlockedRequests", "WebACL", var.load_balancer.waf_name, "Region", local.region, "Rule", "ALL", { stat = "Sum" }],
    ] },
    { title = "Database: processor (%) and connections", metrics = [
      ["AWS/RDS", "CPUUtilization", "DBClusterIdentifier", var.database.cluster_id, { stat = "Maximum" }],
      ["AWS/RDS", "DatabaseConnections", "DBClusterIdentifier", var.database.cluster_id, { stat = "Maximum", yAxis = "right" }],
    ] },
    { title = "Database: commit latency (ms) and lag (ms)", metrics = [
      ["AWS/RDS", "CommitLatency", "DBClusterIdentifier", var.database.cluster_id, { stat = "Average" }],
      ["AWS/RDS", "AuroraReplicaLagMaximum", "DBClusterIdentifier", var.database.cluster_id, { stat = "Maximum" }],
      ["AWS/RDS", "AuroraGlobalDBReplicationLag", "DBClusterIdentifier", var.database.cluster_id, { stat = "Maximum" }],
    ] },
    { title = "Database: stored and free bytes", metrics = [
      ["AWS/RDS", "VolumeBytesUsed", "DBClusterIdentifier", var.database.cluster_id, { stat = "Average" }],
      ["AWS/RDS", "FreeLocalStorage", "DBClusterIdentifier", var.database.cluster_id, { stat = "Minimum", yAxis = "right" }],
    ] },
    { title = "Cache: processor (%)", metrics = [for member in var.cache_member_ids : ["AWS/ElastiCache", "EngineCPUUtilization", "CacheClusterId", member, { stat = "Average" }]] },
    { title = "Failover", metrics = [
      ["Engine/Failover", "WriterRegionHealthy", { stat = "Minimum" }],
      ["Engine/Failover", "FailoverEvents", { stat = "Sum" }],
    ] },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for index, panel in local.panels : {
      type   = "metric"
      x      = (index % 2) * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title   = "${var.cluster_name}: ${panel.title}"
        region  = local.region
        period  = 60
        view    = "timeSeries"
        metrics = panel.metrics
      }
    }]
  })
}
