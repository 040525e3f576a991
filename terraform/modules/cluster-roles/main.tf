# Which program in the cluster may do what in AWS. One role per service account.
#
# Some actions that only describe cannot be limited to a resource; AWS documents them so. They stand in
# statements of their own, with the region as the limit that is left, and a test names them.

data "aws_region" "this" {}
data "aws_partition" "this" {}
data "aws_caller_identity" "this" {}

locals {
  region  = data.aws_region.this.region
  account = "${local.region}:${data.aws_caller_identity.this.account_id}"
  prefix  = "arn:${data.aws_partition.this.partition}"

  roles = {
    load-balancer = { account = "kube-system:aws-load-balancer-controller", policy = data.aws_iam_policy_document.load_balancer.json }
    # external-secrets has no role: it reads each namespace's secrets as that namespace's account.
    secrets      = { account = "${var.namespace}:engine-secrets", policy = data.aws_iam_policy_document.secrets.json }
    external-dns = { account = "external-dns:external-dns", policy = data.aws_iam_policy_document.external_dns.json }
    autoscaler   = { account = "kube-system:cluster-autoscaler", policy = data.aws_iam_policy_document.autoscaler.json }
    loki         = { account = "monitoring:loki", policy = data.aws_iam_policy_document.loki.json }
    backup       = { account = "${var.namespace}:engine-backup", policy = data.aws_iam_policy_document.backup.json }
  }
}

module "role" {
  source   = "../irsa"
  for_each = local.roles

  name            = "${var.cluster_name}-${each.key}"
  oidc            = var.oidc
  service_account = each.value.account
  policy_json     = each.value.policy
  policy_enabled  = true
}

# The load balancers are Terraform's. The controller only keeps the gateway's pods registered
# (TargetGroupBinding), so it gets a fraction of the policy that its documentation asks for.
data "aws_iam_policy_document" "load_balancer" {
  statement {
    sid       = "Register"
    actions   = ["elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"]
    resources = ["${local.prefix}:elasticloadbalancing:${local.account}:targetgroup/${substr(var.cluster_name, 0, 24)}-*/*"]
  }

  statement {
    sid = "Describe"
    actions = [
      "ec2:DescribeAvailabilityZones", "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs",
      "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }
}

data "aws_iam_policy_document" "secrets" {
  statement {
    sid       = "Read"
    actions   = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
    resources = var.secret_arns
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [var.data_kms_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${local.region}.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "external_dns" {
  statement {
    sid       = "Write"
    actions   = ["route53:ChangeResourceRecordSets", "route53:ListResourceRecordSets", "route53:ListTagsForResources"]
    resources = [var.zone_arn]
  }

  # Route 53 is global: no region to limit it by.
  statement {
    sid       = "Describe"
    actions   = ["route53:ListHostedZones"]
    resources = ["*"]
  }
}

data "aws_iam_policy_document" "autoscaler" {
  statement {
    sid       = "Scale"
    actions   = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
    resources = ["${local.prefix}:autoscaling:${local.account}:autoScalingGroup:*:autoScalingGroupName/eks-*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.cluster_name}"
      values   = ["owned"]
    }
  }

  statement {
    sid       = "DescribePools"
    actions   = ["eks:DescribeNodegroup"]
    resources = ["${local.prefix}:eks:${local.account}:nodegroup/${var.cluster_name}/*/*"]
  }

  statement {
    sid = "Describe"
    actions = [
      "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances",
      "autoscaling:DescribeLaunchConfigurations", "autoscaling:DescribeScalingActivities", "autoscaling:DescribeTags",
      "ec2:DescribeImages", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplateVersions",
      "ec2:GetInstanceTypesFromInstanceRequirements",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }
}

data "aws_iam_policy_document" "loki" {
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [var.log_bucket_arn]
  }

  statement {
    sid       = "Chunks"
    actions   = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
    resources = ["${var.log_bucket_arn}/*"]
  }

  statement {
    sid       = "Encrypt"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.data_kms_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${local.region}.amazonaws.com"]
    }
  }
}

# Backups are written and never read or deleted from the cluster: a stolen pod cannot destroy them.
data "aws_iam_policy_document" "backup" {
  # `aws s3 sync` compares by listing.
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [var.backup_bucket_arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["logical/*"]
    }
  }

  statement {
    sid       = "Write"
    actions   = ["s3:AbortMultipartUpload", "s3:PutObject"]
    resources = ["${var.backup_bucket_arn}/logical/*"]
  }

  statement {
    sid       = "Encrypt"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"] # an upload in parts reads its own data key back
    resources = [var.data_kms_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${local.region}.amazonaws.com"]
    }
  }
}
