# One private bucket: versioned, encrypted, TLS only, with a lifecycle and, if asked for, a lock.

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18: who read and wrote what matters for the trail's bucket, and CloudTrail tells; logs of logs have no reader
  #checkov:skip=CKV_AWS_144: backups are replicated by their module; logs need not survive a region
  #checkov:skip=CKV2_AWS_62: nothing acts on a new object

  bucket              = var.name
  object_lock_enabled = 0 < var.lock_days
  force_destroy       = var.force_destroy
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# ACLs are off: access is decided by policies alone.
resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    # One data key per object and hour instead of one KMS call per object.
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_object_lock_configuration" "this" {
  count  = 0 < var.lock_days ? 1 : 0
  bucket = aws_s3_bucket.this.id

  rule {
    default_retention {
      # Governance mode could be lifted by an administrator, and so by a stolen administrator.
      mode = "COMPLIANCE"
      days = var.lock_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  #checkov:skip=CKV_AWS_300: the first rule does; the scanner wants it without the filter that AWS asks for

  bucket = aws_s3_bucket.this.id

  rule {
    id     = "versions-and-leftovers"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = max(var.old_version_days, var.lock_days, 1)
    }

    # Parts of uploads that never finished are invisible in listings, but are paid for.
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  dynamic "rule" {
    for_each = 0 < var.archive_after_days ? [var.archive_after_days] : []

    content {
      id     = "archive"
      status = "Enabled"

      filter {}

      transition {
        days          = rule.value
        storage_class = "GLACIER_IR"
      }
    }
  }

  dynamic "rule" {
    for_each = 0 < var.expire_after_days ? [var.expire_after_days] : []

    content {
      id     = "expire"
      status = "Enabled"

      filter {}

      expiration {
        days = rule.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_metric" "all" {
  count  = var.request_metrics_enabled ? 1 : 0
  bucket = aws_s3_bucket.this.id
  name   = "EntireBucket"
}

data "aws_iam_policy_document" "this" {
  source_policy_documents = var.extra_policy_enabled ? [var.extra_policy_json] : []

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"] # a denial: the wider, the safer
    resources = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = data.aws_iam_policy_document.this.json

  depends_on = [aws_s3_bucket_public_access_block.this]
}
