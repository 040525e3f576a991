# What the pipeline may do in AWS, without a stored key: GitHub vouches for a job, AWS lends it a role.
#
# images   a job on the main branch or a tag may push images
# deploy   a job in the approved environment may look the clusters up; inside, it may change the engine's namespace
# plan     a job on the main branch may read everything that `terraform plan` compares (drift check)

data "aws_partition" "this" {}

locals {
  host = "token.actions.githubusercontent.com"

  state_bucket_arn = var.state == null ? null : "arn:${data.aws_partition.this.partition}:s3:::${var.state.bucket_name}"

  subjects = merge(
    {
      images = ["repo:${var.repository}:ref:refs/heads/main", "repo:${var.repository}:ref:refs/tags/v*"]
      deploy = ["repo:${var.repository}:environment:${var.environment}"]
    },
    var.state == null ? {} : { plan = ["repo:${var.repository}:ref:refs/heads/main"] },
  )
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.create_provider ? 1 : 0

  url            = "https://${local.host}"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_openid_connect_provider" "github" {
  count = var.create_provider ? 0 : 1

  url = "https://${local.host}"
}

data "aws_iam_policy_document" "trust" {
  for_each = local.subjects

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [one(concat(aws_iam_openid_connect_provider.github[*].arn, data.aws_iam_openid_connect_provider.github[*].arn))]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.host}:aud"
      values   = ["sts.amazonaws.com"]
    }

    condition {
      test     = each.key == "images" ? "StringLike" : "StringEquals"
      variable = "${local.host}:sub"
      values   = each.value
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.subjects

  name                 = "${var.name}-ci-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = 3600
}

data "aws_iam_policy_document" "images" {
  statement {
    sid = "Push"
    actions = [
      "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
      "ecr:DescribeImageScanFindings", "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload", "ecr:PutImage",
      "ecr:UploadLayerPart",
    ]
    resources = var.image_repository_arns
  }

  # A token is for the whole registry; what it is good for is the statement above.
  statement {
    sid       = "LogIn"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
}

data "aws_iam_policy_document" "deploy" {
  statement {
    sid       = "FindClusters"
    actions   = ["eks:DescribeCluster"]
    resources = var.cluster_arns
  }

  statement {
    sid       = "FindImages"
    actions   = ["ecr:BatchGetImage", "ecr:DescribeImages"]
    resources = concat(var.image_repository_arns, var.image_copy_arns)
  }
}

resource "aws_iam_role_policy" "images" {
  name   = "push"
  role   = aws_iam_role.this["images"].id
  policy = data.aws_iam_policy_document.images.json
}

resource "aws_iam_role_policy" "deploy" {
  name   = "find"
  role   = aws_iam_role.this["deploy"].id
  policy = data.aws_iam_policy_document.deploy.json
}

data "aws_iam_policy_document" "plan" {
  count = var.state == null ? 0 : 1

  statement {
    sid       = "ReadState"
    actions   = ["s3:GetObject"]
    resources = ["${local.state_bucket_arn}/${var.state.key}"]
  }

  # ReadOnlyAccess opens every object, and the key every state: of these only the one.
  statement {
    sid           = "NoOtherObject"
    effect        = "Deny"
    actions       = ["s3:GetObject", "s3:GetObjectVersion"]
    not_resources = ["${local.state_bucket_arn}/${var.state.key}"]
  }

  statement {
    sid       = "ListState"
    actions   = ["s3:ListBucket"]
    resources = [local.state_bucket_arn]
  }

  statement {
    sid       = "DecryptState"
    actions   = ["kms:Decrypt"]
    resources = [var.state.kms_key_arn]
  }

  # Every plan asks for throw-away passwords (ephemeral resources), which no resource limits.
  statement {
    sid       = "MakeUpPasswords"
    actions   = ["secretsmanager:GetRandomPassword"]
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = var.plan_secrets == null ? [] : [var.plan_secrets]

    content {
      sid       = "ReadSecrets"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = statement.value.arns
    }
  }

  dynamic "statement" {
    for_each = var.plan_secrets == null ? [] : [var.plan_secrets]

    content {
      sid       = "DecryptSecrets"
      actions   = ["kms:Decrypt"]
      resources = [statement.value.kms_key_arn]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["secretsmanager.${statement.value.region}.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role_policy" "plan" {
  count = var.state == null ? 0 : 1

  name   = "state"
  role   = aws_iam_role.this["plan"].id
  policy = data.aws_iam_policy_document.plan[0].json
}

# Everything's settings. AWS's policy reads no secret; the two that a plan opens stand above.
resource "aws_iam_role_policy_attachment" "plan" {
  count = var.state == null ? 0 : 1

  role       = aws_iam_role.this["plan"].name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/ReadOnlyAccess"
}
