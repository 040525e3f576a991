# What never reaches the engine: floods, known attackers, known bad inputs, SQL injection, scripts.

locals {
  groups = {
    reputation = { priority = 10, name = "AWSManagedRulesAmazonIpReputationList", counted = [] }
    bad-inputs = { priority = 20, name = "AWSManagedRulesKnownBadInputsRuleSet", counted = [] }
    # SQL injection: the engine binds every value, so this guards against what is not known yet.
    sql-injection = { priority = 30, name = "AWSManagedRulesSQLiRuleSet", counted = [] }
    # Cross-site scripting and the like. Two of its rules contradict the engine's contract:
    # bodies up to 8 MiB are allowed (batch calls), and clients are programs that may send no User-Agent.
    common = { priority = 40, name = "AWSManagedRulesCommonRuleSet", counted = ["SizeRestrictions_BODY", "NoUserAgent_HEADER"] }
  }
}

resource "aws_wafv2_web_acl" "this" {
  #checkov:skip=CKV_AWS_192: AWSManagedRulesKnownBadInputsRuleSet is among the groups, in a dynamic block that the scanner does not unfold

  name        = var.name
  description = "In front of the engine"
  scope       = var.scope

  default_action {
    allow {}
  }

  dynamic "rule" {
    for_each = var.rate_limit == null ? [] : [var.rate_limit]
    iterator = rate

    content {
      name     = "rate"
      priority = 1

      action {
        block {
          custom_response {
            response_code = 429

            response_header {
              name  = "Retry-After"
              value = "60"
            }
          }
        }
      }

      statement {
        rate_based_statement {
          limit                 = rate.value
          aggregate_key_type    = "IP"
          evaluation_window_sec = 300
        }
      }

      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "${var.name}-rate"
        sampled_requests_enabled   = true
      }
    }
  }

  dynamic "rule" {
    for_each = local.groups

    content {
      name     = rule.key
      priority = rule.value.priority

      override_action {
        dynamic "none" {
          for_each = contains(var.count_only, rule.key) ? [] : [1]
          content {}
        }

        dynamic "count" {
          for_each = contains(var.count_only, rule.key) ? [1] : []
          content {}
        }
      }

      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.value.name

          dynamic "rule_action_override" {
            for_each = rule.value.counted

            content {
              name = rule_action_override.value

              action_to_use {
                count {}
              }
            }
          }
        }
      }

      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "${var.name}-${rule.key}"
        sampled_requests_enabled   = true
      }
    }
  }

  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = var.name
    sampled_requests_enabled   = true
  }
}

# WAF writes only to groups whose name starts so.
resource "aws_cloudwatch_log_group" "this" {
  name              = "aws-waf-logs-${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.logs_kms_key_arn
}

resource "aws_wafv2_web_acl_logging_configuration" "this" {
  resource_arn            = aws_wafv2_web_acl.this.arn
  log_destination_configs = [aws_cloudwatch_log_group.this.arn]

  # Credentials do not belong in a log.
  dynamic "redacted_fields" {
    for_each = ["authorization", "cookie"]

    content {
      single_header {
        name = redacted_fields.value
      }
    }
  }

  # What was let through is in the load balancer's log.
  logging_filter {
    default_behavior = "DROP"

    filter {
      behavior    = "KEEP"
      requirement = "MEETS_ANY"

      condition {
        action_condition {
          action = "BLOCK"
        }
      }

      condition {
        action_condition {
          action = "COUNT"
        }
      }
    }
  }
}
