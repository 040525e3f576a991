# Snapshots by AWS Backup, in vaults that keep them whoever asks.

resource "aws_backup_vault" "primary" {
  provider = aws.primary

  name          = var.name
  kms_key_arn   = var.primary.kms_key_arn
  force_destroy = var.force_destroy
}

resource "aws_backup_vault" "secondary" {
  provider = aws.secondary

  name          = var.name
  kms_key_arn   = var.secondary.kms_key_arn
  force_destroy = var.force_destroy
}

# Without changeable_for_days this is governance mode: an administrator of vault locks can lift it.
# Making it final is a decision of its own, taken once the retention has proved right.
resource "aws_backup_vault_lock_configuration" "primary" {
  provider = aws.primary
  count    = var.force_destroy ? 0 : 1

  backup_vault_name  = aws_backup_vault.primary.name
  min_retention_days = 7
}

resource "aws_backup_vault_lock_configuration" "secondary" {
  provider = aws.secondary
  count    = var.force_destroy ? 0 : 1

  backup_vault_name  = aws_backup_vault.secondary.name
  min_retention_days = 7
}

resource "aws_backup_plan" "this" {
  provider = aws.primary

  name = var.name

  rule {
    rule_name         = "daily"
    target_vault_name = aws_backup_vault.primary.name
    schedule          = "cron(0 6 * * ? *)" # UTC, after Aurora's own window
    start_window      = 60
    completion_window = 360

    lifecycle {
      delete_after = var.keep_days
    }

    copy_action {
      destination_vault_arn = aws_backup_vault.secondary.arn

      lifecycle {
        delete_after = var.keep_days
      }
    }
  }

  rule {
    rule_name         = "monthly"
    target_vault_name = aws_backup_vault.primary.name
    schedule          = "cron(0 9 1 * ? *)"
    start_window      = 60
    completion_window = 720

    # Aurora's snapshots cannot move to cold storage.
    lifecycle {
      delete_after = var.monthly_keep_days
    }

    copy_action {
      destination_vault_arn = aws_backup_vault.secondary.arn

      lifecycle {
        delete_after = var.monthly_keep_days
      }
    }
  }
}

data "aws_iam_policy_document" "backup_trust" {
  provider = aws.primary

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["backup.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.this.account_id]
    }
  }
}

resource "aws_iam_role" "backup" {
  provider = aws.primary

  name               = "${var.name}-backup"
  assume_role_policy = data.aws_iam_policy_document.backup_trust.json
}

resource "aws_iam_role_policy_attachment" "backup" {
  provider = aws.primary
  for_each = toset(["AWSBackupServiceRolePolicyForBackup", "AWSBackupServiceRolePolicyForRestores"])

  role       = aws_iam_role.backup.name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/service-role/${each.key}"
}

resource "aws_backup_selection" "database" {
  provider = aws.primary

  name         = "database"
  plan_id      = aws_backup_plan.this.id
  iam_role_arn = aws_iam_role.backup.arn
  resources    = [var.primary.cluster_arn]
}

# A backup that failed is noticed the same day, not on the day that it is needed.
resource "aws_backup_vault_notifications" "primary" {
  provider = aws.primary

  backup_vault_name   = aws_backup_vault.primary.name
  sns_topic_arn       = var.alarm_topic_arns.primary
  backup_vault_events = ["BACKUP_JOB_FAILED", "COPY_JOB_FAILED", "RESTORE_JOB_COMPLETED"]
}

resource "aws_backup_vault_notifications" "secondary" {
  provider = aws.secondary

  backup_vault_name   = aws_backup_vault.secondary.name
  sns_topic_arn       = var.alarm_topic_arns.secondary
  backup_vault_events = ["COPY_JOB_FAILED", "RESTORE_JOB_COMPLETED"]
}
