# Daily snapshots of the ledger's disk, and a look at the machine itself. PostgreSQL's own backup (base
# backup and archived WAL) is the playbook's; a snapshot of a running database is crash-consistent, which
# PostgreSQL recovers from like from a power cut.

data "aws_iam_policy_document" "lifecycle_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["dlm.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "lifecycle" {
  name               = "${var.name}-snapshots"
  assume_role_policy = data.aws_iam_policy_document.lifecycle_trust.json
}

resource "aws_iam_role_policy_attachment" "lifecycle" {
  role       = aws_iam_role.lifecycle.name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/service-role/AWSDataLifecycleManagerServiceRole"
}

resource "aws_dlm_lifecycle_policy" "this" {
  description        = "Daily snapshots of ${var.name}"
  execution_role_arn = aws_iam_role.lifecycle.arn
  state              = "ENABLED"

  policy_details {
    resource_types = ["VOLUME"]
    target_tags    = { Backup = var.name }

    schedule {
      name      = "daily"
      copy_tags = true

      create_rule {
        interval      = 24
        interval_unit = "HOURS"
        times         = ["05:00"]
      }

      retain_rule {
        interval      = var.snapshot_keep_days
        interval_unit = "DAYS"
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "status" {
  alarm_name          = "${var.name}-status"
  alarm_description   = "The machine fails EC2's checks; AWS moves it to other hardware"
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed_System"
  dimensions          = { InstanceId = aws_instance.this.id }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "missing"
  alarm_actions = concat(
    ["arn:${data.aws_partition.this.partition}:automate:${data.aws_region.this.region}:ec2:recover"],
    var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn],
  )
}
