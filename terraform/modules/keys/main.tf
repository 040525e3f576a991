# Customer keys of one region, one per purpose, so that who may read logs may not read the ledger.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account_id = data.aws_caller_identity.this.account_id
  region     = data.aws_region.this.region

  # Who besides this account's own IAM policies may use each key.
  services = {
    data   = []                                     # database, cache, secrets, backups, node disks: by grants
    logs   = ["logs.${local.region}.amazonaws.com"] # CloudWatch Logs
    events = ["backup.amazonaws.com", "cloudwatch.amazonaws.com", "budgets.amazonaws.com", "costalerts.amazonaws.com", "events.rds.amazonaws.com"]
    trail  = ["cloudtrail.amazonaws.com"]
  }

  # Everything but kms:*: an account's administrators can manage the key, and no action is given unseen.
  administration = [
    "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey",
    "kms:EnableKey", "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListAliases",
    "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource", "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
  ]
  use = [
    "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom", "kms:ReEncryptTo",
  ]
}

# In a key's policy the resource "*" means this key and nothing else.
data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109: in a key's policy "*" is that key
  #checkov:skip=CKV_AWS_111: in a key's policy "*" is that key
  #checkov:skip=CKV_AWS_356: in a key's policy "*" is that key

  for_each = local.services

  statement {
    sid       = "Account"
    actions   = distinct(concat(local.administration, local.use, ["kms:CreateGrant"]))
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.this.partition}:iam::${local.account_id}:root"]
    }
  }

  dynamic "statement" {
    for_each = length(each.value) == 0 ? [] : [each.value]

    content {
      sid = "Services"
      # Who only asks about a key sends neither context nor trail, so those conditions could never be met.
      actions   = [for action in local.use : action if !contains(["logs", "trail"], each.key) || action != "kms:DescribeKey"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = statement.value
      }

      # What each service is documented to send: log groups name the group, CloudTrail the trail.
      condition {
        test     = contains(["logs", "trail"], each.key) ? "ArnLike" : "StringEquals"
        variable = lookup({ logs = "kms:EncryptionContext:aws:logs:arn", trail = "aws:SourceArn" }, each.key, "aws:SourceAccount")
        values = [lookup({
          logs  = "arn:${data.aws_partition.this.partition}:logs:${local.region}:${local.account_id}:log-group:*"
          trail = "arn:${data.aws_partition.this.partition}:cloudtrail:*:${local.account_id}:trail/*"
        }, each.key, local.account_id)]
      }
    }
  }

  dynamic "statement" {
    for_each = each.key == "trail" ? [1] : []

    content {
      sid       = "TrailLooks"
      actions   = ["kms:DescribeKey"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["cloudtrail.amazonaws.com"]
      }
    }
  }

  # EventBridge brings GuardDuty's findings. It names no account when it writes to an encrypted topic, so a
  # condition on one would silence it.
  dynamic "statement" {
    for_each = each.key == "events" ? [1] : []

    content {
      sid       = "EventBridge"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["events.amazonaws.com"]
      }
    }
  }

  # Nodes are started by the autoscaling service, whose role must be able to attach their encrypted disks.
  dynamic "statement" {
    for_each = each.key == "data" ? [1] : []

    content {
      sid       = "NodeDisks"
      actions   = concat(local.use, ["kms:CreateGrant"])
      resources = ["*"]

      principals {
        type        = "AWS"
        identifiers = ["arn:${data.aws_partition.this.partition}:iam::${local.account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"]
      }
    }
  }
}

resource "aws_kms_key" "this" {
  for_each = local.services

  description             = "${var.name} ${each.key}"
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_window_days
  policy                  = data.aws_iam_policy_document.key[each.key].json
}

resource "aws_kms_alias" "this" {
  for_each = local.services

  name          = "alias/${var.name}-${each.key}"
  target_key_id = aws_kms_key.this[each.key].key_id
}
