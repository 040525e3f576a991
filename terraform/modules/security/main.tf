# Who did what in the account (CloudTrail), and what looks like an intruder (GuardDuty).

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account_id = data.aws_caller_identity.this.account_id
  trail_arn  = "arn:${data.aws_partition.this.partition}:cloudtrail:${data.aws_region.this.region}:${local.account_id}:trail/${var.name}"
  bucket     = "${var.name}-trail-${local.account_id}"
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "TrailChecks"
    actions   = ["s3:GetBucketAcl"]
    resources = ["arn:${data.aws_partition.this.partition}:s3:::${local.bucket}"]

    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.trail_arn]
    }
  }

  statement {
    sid       = "TrailWrites"
    actions   = ["s3:PutObject"]
    resources = ["arn:${data.aws_partition.this.partition}:s3:::${local.bucket}/AWSLogs/${local.account_id}/*"]

    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.trail_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "s3:x-amz-acl"
      values   = ["bucket-owner-full-control"]
    }
  }
}

module "bucket" {
  source = "../bucket"
  count  = var.cloudtrail_enabled ? 1 : 0

  name                 = local.bucket
  kms_key_arn          = var.trail_kms_key_arn
  archive_after_days   = 90
  expire_after_days    = var.trail_keep_days
  extra_policy_json    = data.aws_iam_policy_document.bucket.json
  extra_policy_enabled = true
  force_destroy        = var.force_destroy
}

resource "aws_cloudwatch_log_group" "trail" {
  count = var.cloudtrail_enabled ? 1 : 0

  name              = "/cloudtrail/${var.name}"
  retention_in_days = 365
  kms_key_id        = var.logs_kms_key_arn
}

data "aws_iam_policy_document" "trail_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.trail_arn]
    }
  }
}

data "aws_iam_policy_document" "trail" {
  count = var.cloudtrail_enabled ? 1 : 0

  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.trail[0].arn}:log-stream:${local.account_id}_CloudTrail_*"]
  }
}

resource "aws_iam_role" "trail" {
  count = var.cloudtrail_enabled ? 1 : 0

  name               = "${var.name}-trail"
  assume_role_policy = data.aws_iam_policy_document.trail_trust.json
}

resource "aws_iam_role_policy" "trail" {
  count = var.cloudtrail_enabled ? 1 : 0

  name   = "write"
  role   = aws_iam_role.trail[0].id
  policy = data.aws_iam_policy_document.trail[0].json
}

resource "aws_cloudtrail" "this" {
  #checkov:skip=CKV_AWS_252: a new log file is no news; GuardDuty's findings are

  count = var.cloudtrail_enabled ? 1 : 0

  name                          = var.name
  s3_bucket_name                = module.bucket[0].id
  kms_key_id                    = var.trail_kms_key_arn
  cloud_watch_logs_group_arn    = "${aws_cloudwatch_log_group.trail[0].arn}:*"
  cloud_watch_logs_role_arn     = aws_iam_role.trail[0].arn
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true

  depends_on = [aws_iam_role_policy.trail]
}

resource "aws_guardduty_detector" "this" {
  #checkov:skip=CKV2_AWS_3: by variable, for accounts whose organisation has a detector

  count = var.guardduty_enabled ? 1 : 0

  enable                       = true
  finding_publishing_frequency = "FIFTEEN_MINUTES"
}

resource "aws_guardduty_detector_feature" "this" {
  for_each = var.guardduty_enabled ? toset(["S3_DATA_EVENTS", "EKS_AUDIT_LOGS", "RDS_LOGIN_EVENTS", "LAMBDA_NETWORK_LOGS"]) : toset([])

  detector_id = aws_guardduty_detector.this[0].id
  name        = each.key
  status      = "ENABLED"
}

resource "aws_cloudwatch_event_rule" "finding" {
  count = var.guardduty_enabled ? 1 : 0

  name        = "${var.name}-guardduty"
  description = "Findings worth a person's look"
  event_pattern = jsonencode({
    source        = ["aws.guardduty"]
    "detail-type" = ["GuardDuty Finding"]
    detail        = { severity = [{ numeric = [">=", var.finding_severity_min] }] }
  })
}

resource "aws_cloudwatch_event_target" "finding" {
  count = var.guardduty_enabled ? 1 : 0

  rule = aws_cloudwatch_event_rule.finding[0].name
  arn  = var.alarm_topic_arn
}
