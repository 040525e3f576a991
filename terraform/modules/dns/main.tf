# Names and health: which region a client is led to.
#
# A region's check asks that region's own name, so it goes through its load balancer, WAF, gateway and
# engine to the database: what is healthy can take a transfer.

resource "aws_route53_record" "region" {
  #checkov:skip=CKV2_AWS_23: an alias of the load balancer that is handed in

  for_each = var.regions

  zone_id = var.zone_id
  name    = each.value.name
  type    = "A"

  alias {
    name                   = each.value.alias_dns_name
    zone_id                = each.value.alias_zone_id
    evaluate_target_health = false # the check below would otherwise ask a name that hides the answer
  }
}

resource "aws_route53_health_check" "region" {
  for_each = var.regions

  type              = "HTTPS"
  fqdn              = each.value.name
  port              = 443
  resource_path     = var.health_path
  request_interval  = 10
  failure_threshold = var.failure_threshold
  measure_latency   = true
  enable_sni        = true

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_route53_record" "latency" {
  #checkov:skip=CKV2_AWS_23: an alias of the load balancer that is handed in

  for_each = var.routing == "latency" ? var.regions : {}

  zone_id         = var.zone_id
  name            = var.record_name
  type            = "A"
  set_identifier  = each.key
  health_check_id = aws_route53_health_check.region[each.key].id

  latency_routing_policy {
    region = each.key
  }

  alias {
    name                   = each.value.alias_dns_name
    zone_id                = each.value.alias_zone_id
    evaluate_target_health = true
  }
}

resource "aws_route53_record" "failover" {
  #checkov:skip=CKV2_AWS_23: an alias of the load balancer that is handed in

  for_each = var.routing == "failover" ? var.regions : {}

  zone_id         = var.zone_id
  name            = var.record_name
  type            = "A"
  set_identifier  = each.key
  health_check_id = aws_route53_health_check.region[each.key].id

  failover_routing_policy {
    type = each.value.primary ? "PRIMARY" : "SECONDARY"
  }

  alias {
    name                   = each.value.alias_dns_name
    zone_id                = each.value.alias_zone_id
    evaluate_target_health = true
  }
}

# Of the provider's region us-east-1, wherever the primary is.
resource "aws_cloudwatch_metric_alarm" "unhealthy" {
  for_each = var.regions

  alarm_name          = "${var.name}-${each.key}-unhealthy"
  alarm_description   = "Route 53's checkers find ${each.value.name}${var.health_path} failing. Runbook: terraform/modules/failover/README.md"
  namespace           = "AWS/Route53"
  metric_name         = "HealthCheckStatus"
  dimensions          = { HealthCheckId = aws_route53_health_check.region[each.key].id }
  statistic           = "Minimum"
  period              = 60
  evaluation_periods  = 2
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}
