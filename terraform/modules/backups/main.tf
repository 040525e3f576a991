# Three nets, each of which survives what breaks the one before:
#
# 1. Aurora's continuous backup (module `database`): any second of the last days, same region, same account.
# 2. Snapshots by AWS Backup, copied to a locked vault in the other region.
# 3. Logical backups (pg_dump by the CronJob) in a locked bucket, replicated: they go into any PostgreSQL.

data "aws_caller_identity" "this" {
  provider = aws.primary
}

data "aws_partition" "this" {
  provider = aws.primary
}

locals {
  bucket_names = {
    primary   = "${var.name}-backups-${data.aws_caller_identity.this.account_id}-${var.primary.region}"
    secondary = "${var.name}-backups-${data.aws_caller_identity.this.account_id}-${var.secondary.region}"
  }
}

module "bucket" {
  source    = "../bucket"
  providers = { aws = aws.primary }

  name                    = local.bucket_names.primary
  kms_key_arn             = var.primary.kms_key_arn
  lock_days               = var.lock_days
  expire_after_days       = var.keep_days
  old_version_days        = var.keep_days
  request_metrics_enabled = true
  force_destroy           = var.force_destroy
}

module "copy" {
  source    = "../bucket"
  providers = { aws = aws.secondary }

  name                    = local.bucket_names.secondary
  kms_key_arn             = var.secondary.kms_key_arn
  lock_days               = var.lock_days
  archive_after_days      = 30
  expire_after_days       = max(var.keep_days, 120) # Glacier Instant Retrieval is paid for 90 days at least
  old_version_days        = var.keep_days
  request_metrics_enabled = true
  force_destroy           = var.force_destroy
}

data "aws_iam_policy_document" "replication_trust" {
  provider = aws.primary

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.this.account_id]
    }
  }
}

data "aws_iam_policy_document" "replication" {
  provider = aws.primary

  statement {
    sid       = "Bucket"
    actions   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
    resources = [module.bucket.arn]
  }

  statement {
    sid = "Read"
    actions = [
      "s3:GetObjectLegalHold", "s3:GetObjectRetention", "s3:GetObjectVersionAcl", "s3:GetObjectVersionForReplication",
      "s3:GetObjectVersionTagging",
    ]
    resources = ["${module.bucket.arn}/*"]
  }

  # No ReplicateDelete: what is deleted here stays there.
  statement {
    sid       = "Write"
    actions   = ["s3:ReplicateObject", "s3:ReplicateTags"]
    resources = ["${module.copy.arn}/*"]
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [var.primary.kms_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${var.primary.region}.amazonaws.com"]
    }
  }

  statement {
    sid       = "Encrypt"
    actions   = ["kms:Encrypt", "kms:GenerateDataKey"]
    resources = [var.secondary.kms_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${var.secondary.region}.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "replication" {
  provider = aws.primary

  name               = "${var.name}-backup-replication"
  assume_role_policy = data.aws_iam_policy_document.replication_trust.json
}

resource "aws_iam_role_policy" "replication" {
  provider = aws.primary

  name   = "replicate"
  role   = aws_iam_role.replication.id
  policy = data.aws_iam_policy_document.replication.json
}

resource "aws_s3_bucket_replication_configuration" "this" {
  provider = aws.primary

  bucket = module.bucket.id
  role   = aws_iam_role.replication.arn

  rule {
    id     = "everything"
    status = "Enabled"

    filter {}

    delete_marker_replication {
      status = "Disabled"
    }

    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }

    destination {
      bucket        = module.copy.arn
      storage_class = "STANDARD_IA"

      encryption_configuration {
        replica_kms_key_id = var.secondary.kms_key_arn
      }

      # Replication with a promise (15 minutes) and the metrics that show when it is broken.
      replication_time {
        status = "Enabled"

        time {
          minutes = 15
        }
      }

      metrics {
        status = "Enabled"

        event_threshold {
          minutes = 15
        }
      }
    }
  }

  depends_on = [aws_iam_role_policy.replication, module.copy]
}
