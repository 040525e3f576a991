# The function that promotes this region, who may call it, and what it may do. One in each region: the
# one that is needed is the one in the region that is left.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

locals {
  function_name = "${var.name}-failover"
  namespace     = "Engine/Failover"
  prefix        = "arn:${data.aws_partition.this.partition}"
  account_id    = data.aws_caller_identity.this.account_id
}

data "archive_file" "function" {
  type        = "zip"
  source_file = "${path.module}/lambda/failover.py"
  output_path = "${path.root}/.terraform/failover-${var.own.region}.zip"

  # The same bytes on every machine: otherwise the umask of whoever plans would show up as drift.
  output_file_mode = "0644"
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${local.function_name}"
  retention_in_days = 400 # a failover is explained long after it happened
  kms_key_id        = var.logs_kms_key_arn
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "function" {
  statement {
    sid       = "Promote"
    actions   = ["rds:FailoverGlobalCluster", "rds:SwitchoverGlobalCluster"]
    resources = [var.global_cluster_arn, var.own.cluster_arn, var.peer.cluster_arn]
  }

  statement {
    sid       = "LookAtDatabases"
    actions   = ["rds:DescribeDBClusters", "rds:DescribeGlobalClusters"]
    resources = [var.global_cluster_arn, var.own.cluster_arn, var.peer.cluster_arn]
  }

  # Only these subnets, and only between these two lists: the fence is all that it can build. AWS asks for
  # both kinds of resource.
  statement {
    sid       = "Fence"
    actions   = ["ec2:ReplaceNetworkAclAssociation"]
    resources = concat([var.peer.serving_acl_arn, var.peer.fence_acl_arn], var.peer.subnet_arns)
  }

  # Describing access lists and reading metrics cannot be limited to a resource.
  statement {
    sid       = "LookAtFence"
    actions   = ["ec2:DescribeNetworkAcls"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.peer.region]
    }
  }

  statement {
    sid       = "LookAtLag"
    actions   = ["cloudwatch:GetMetricStatistics", "cloudwatch:ListMetrics"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.own.region]
    }
  }

  statement {
    sid       = "Count"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [local.namespace]
    }
  }

  statement {
    sid       = "Tell"
    actions   = ["sns:Publish"]
    resources = [var.alarm_topic_arn]
  }

  statement {
    sid       = "TellEncrypted"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.events_kms_key_arn]
  }

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function.arn}:*"]
  }

  statement {
    sid       = "DeadLetters"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
}

resource "aws_iam_role" "function" {
  name               = local.function_name
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "function" {
  name   = "promote"
  role   = aws_iam_role.function.id
  policy = data.aws_iam_policy_document.function.json
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${local.function_name}-dead-letters"
  message_retention_seconds = 1209600 # 14 days, the longest
  sqs_managed_sse_enabled   = true
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_117: it must reach the other region's API and health address when this VPC is ill
  #checkov:skip=CKV_AWS_173: its environment is names; under a key of ours the drift check could not compare it
  #checkov:skip=CKV_AWS_272: its code comes from this repository by Terraform, whose state and pipeline guard it

  function_name    = local.function_name
  description      = "Promotes ${var.own.region} when ${var.peer.region} is lost"
  role             = aws_iam_role.function.arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "failover.handler"
  filename         = data.archive_file.function.output_path
  source_code_hash = data.archive_file.function.output_base64sha256
  timeout          = 900 # Lambda's longest; a promotion takes Aurora minutes
  memory_size      = 256

  # One act and the probe beside it. Of two acts at once the second finds Aurora busy and refuses.
  reserved_concurrent_executions = 2

  environment {
    variables = {
      GLOBAL_CLUSTER_ID   = var.global_cluster_id
      OWN_REGION          = var.own.region
      OWN_CLUSTER_ARN     = var.own.cluster_arn
      PEER_REGION         = var.peer.region
      PEER_CLUSTER_ARN    = var.peer.cluster_arn
      PEER_HEALTH_URL     = var.peer.health_url
      PEER_SUBNET_IDS     = join(",", var.peer.subnet_ids)
      PEER_SERVING_ACL_ID = var.peer.serving_acl_id
      PEER_FENCE_ACL_ID   = var.peer.fence_acl_id
      TOPIC_ARN           = var.alarm_topic_arn
      METRIC_NAMESPACE    = local.namespace
      LAG_SECONDS_MAX     = tostring(var.lag_seconds_max)
    }
  }

  dead_letter_config {
    target_arn = aws_sqs_queue.dead_letters.arn
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.function.name
  }

  tracing_config {
    mode = "PassThrough"
  }

  depends_on = [aws_iam_role_policy.function]
}

# An act whose outcome is unknown is never repeated by a machine.
resource "aws_lambda_function_event_invoke_config" "this" {
  function_name                = aws_lambda_function.this.function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 300
}
