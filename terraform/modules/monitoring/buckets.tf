# The buckets: somebody who may not, something that grows, and backups that stopped coming.

resource "aws_cloudwatch_metric_alarm" "bucket_errors" {
  for_each = var.buckets

  alarm_name          = "${var.name}-${each.key}-4xx"
  alarm_description   = "Somebody was refused by ${each.value.name}"
  namespace           = "AWS/S3"
  metric_name         = "4xxErrors"
  dimensions          = { BucketName = each.value.name, FilterId = "EntireBucket" }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.this.arn]
}

resource "aws_cloudwatch_metric_alarm" "bucket_size" {
  for_each = var.buckets

  alarm_name          = "${var.name}-${each.key}-size"
  alarm_description   = "${each.value.name} holds more than planned: is its lifecycle at work?"
  namespace           = "AWS/S3"
  metric_name         = "BucketSizeBytes"
  dimensions          = { BucketName = each.value.name, StorageType = "StandardStorage" }
  statistic           = "Average"
  period              = 86400 # S3 measures sizes once a day
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.gib_max * local.gib
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.this.arn]
}

resource "aws_cloudwatch_metric_alarm" "bucket_silent" {
  for_each = var.buckets

  alarm_name          = "${var.name}-${each.key}-silent"
  alarm_description   = "Nobody wrote to or read from ${each.value.name} for a day: whoever writes there every night or all the time, does not"
  namespace           = "AWS/S3"
  metric_name         = "AllRequests"
  dimensions          = { BucketName = each.value.name, FilterId = "EntireBucket" }
  statistic           = "Sum"
  period              = 86400
  evaluation_periods  = 1
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.this.arn]
}
