# Watching the writer's region from the other one. Route 53's metrics live in us-east-1 and would be lost
# with it, so the function probes for itself, and the alarm stands where the function stands.

data "aws_iam_policy_document" "schedule_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account_id]
    }
  }
}

data "aws_iam_policy_document" "schedule" {
  statement {
    actions   = ["lambda:InvokeFunction"]
    resources = [aws_lambda_function.this.arn]
  }
}

resource "aws_iam_role" "schedule" {
  name               = "${local.function_name}-probe"
  assume_role_policy = data.aws_iam_policy_document.schedule_trust.json
}

resource "aws_iam_role_policy" "schedule" {
  name   = "invoke"
  role   = aws_iam_role.schedule.id
  policy = data.aws_iam_policy_document.schedule.json
}

resource "aws_scheduler_schedule" "probe" {
  name                = "${local.function_name}-probe"
  schedule_expression = "rate(1 minute)"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.this.arn
    role_arn = aws_iam_role.schedule.arn
    input    = jsonencode({ action = "probe" })

    retry_policy {
      maximum_retry_attempts = 0 # the next minute is the retry
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "writer_region" {
  alarm_name          = "${var.name}-writer-region-unhealthy"
  alarm_description   = "Seen from ${var.own.region}, the writer's region fails ${var.peer.health_url}. Runbook: terraform/modules/failover/README.md"
  namespace           = local.namespace
  metric_name         = "WriterRegionHealthy"
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = var.unhealthy_minutes
  datapoints_to_alarm = var.unhealthy_minutes
  comparison_operator = "LessThanThreshold"
  threshold           = 1

  # A probe that stopped says nothing about the writer; it must not promote anybody.
  treat_missing_data = "missing"

  alarm_actions             = concat([var.alarm_topic_arn], var.automatic ? [aws_lambda_function.this.arn] : [])
  ok_actions                = [var.alarm_topic_arn]
  insufficient_data_actions = [var.alarm_topic_arn]
}

resource "aws_lambda_permission" "alarm" {
  count = var.automatic ? 1 : 0

  statement_id   = "alarm"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.this.function_name
  principal      = "lambda.alarms.cloudwatch.amazonaws.com"
  source_account = local.account_id
  source_arn     = aws_cloudwatch_metric_alarm.writer_region.arn
}

resource "aws_cloudwatch_metric_alarm" "events" {
  alarm_name          = "${var.name}-failover-event"
  alarm_description   = "A switchover, failover or unfence was asked for in ${var.own.region}"
  namespace           = local.namespace
  metric_name         = "FailoverEvents"
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
}
