# Puts an environment to sleep out of hours: nodes to none, Aurora stopped. 65 of 168 hours stay awake.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  # EventBridge has six fields and wants one of day and weekday to be "?".
  cron = { for act, fields in { stop = split(" ", var.sleep), start = split(" ", var.wake) } :
    act => "cron(${fields[0]} ${fields[1]} ? ${fields[3]} ${fields[4]} *)"
  }
  database_acts = merge([for act in ["stop", "start"] : { for id in var.database_cluster_ids : "${act}-${id}" => { act = act, id = id } }]...)
}

resource "aws_autoscaling_schedule" "sleep" {
  for_each = var.autoscaling_groups

  scheduled_action_name  = "sleep"
  autoscaling_group_name = each.value.group_name
  recurrence             = var.sleep
  time_zone              = var.time_zone
  min_size               = 0
  max_size               = 0
  desired_capacity       = 0
}

resource "aws_autoscaling_schedule" "wake" {
  for_each = var.autoscaling_groups

  scheduled_action_name  = "wake"
  autoscaling_group_name = each.value.group_name
  recurrence             = var.wake
  time_zone              = var.time_zone
  min_size               = each.value.size_min
  max_size               = each.value.size_max
  desired_capacity       = each.value.size_start
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.this.account_id]
    }
  }
}

data "aws_iam_policy_document" "acts" {
  statement {
    actions   = ["rds:StartDBCluster", "rds:StopDBCluster"]
    resources = [for id in var.database_cluster_ids : "arn:${data.aws_partition.this.partition}:rds:${data.aws_region.this.region}:${data.aws_caller_identity.this.account_id}:cluster:${id}"]
  }

  dynamic "statement" {
    for_each = length(var.alarm_names) == 0 ? [] : [1]

    content {
      actions   = ["cloudwatch:DisableAlarmActions", "cloudwatch:EnableAlarmActions"]
      resources = [for name in var.alarm_names : "arn:${data.aws_partition.this.partition}:cloudwatch:${data.aws_region.this.region}:${data.aws_caller_identity.this.account_id}:alarm:${name}"]
    }
  }

  # The schedules' inputs are encrypted with the key.
  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [1]

    content {
      actions   = ["kms:Decrypt"]
      resources = [var.kms_key_arn]
    }
  }
}

resource "aws_iam_role" "this" {
  name               = "${var.name}-schedule"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "this" {
  name   = "start-and-stop"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.acts.json
}

# Without nodes there is no healthy gateway: the alarms keep quiet meanwhile, or nobody would read them. One
# that rings when it is switched on again tells only of its next change.
resource "aws_scheduler_schedule" "alarms" {
  for_each = { for act, call in { stop = "disableAlarmActions", start = "enableAlarmActions" } : act => call if 0 < length(var.alarm_names) }

  name                         = "${var.name}-${each.key}-alarms"
  schedule_expression          = local.cron[each.key]
  schedule_expression_timezone = var.time_zone
  kms_key_arn                  = var.kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:${data.aws_partition.this.partition}:scheduler:::aws-sdk:cloudwatch:${each.value}"
    role_arn = aws_iam_role.this.arn
    input    = jsonencode({ AlarmNames = var.alarm_names })
  }
}

# The database sleeps with the nodes and wakes with them: a node needs minutes, and so does Aurora.
resource "aws_scheduler_schedule" "database" {
  for_each = local.database_acts

  name                         = "${var.name}-${each.key}"
  schedule_expression          = local.cron[each.value.act]
  schedule_expression_timezone = var.time_zone
  kms_key_arn                  = var.kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:${data.aws_partition.this.partition}:scheduler:::aws-sdk:rds:${each.value.act}DBCluster"
    role_arn = aws_iam_role.this.arn
    input    = jsonencode({ DbClusterIdentifier = each.value.id })
  }
}
