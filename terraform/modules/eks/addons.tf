# What a cluster needs before its first pod, as EKS add-ons: network first, name service and disks
# once there are nodes.

locals {
  # Pinned like the charts, for the Kubernetes version that is the default (variables.tf): an upgrade raises both.
  addon_versions = merge({
    vpc-cni            = "v1.21.1-eksbuild.3"
    kube-proxy         = "v1.35.0-eksbuild.2"
    coredns            = "v1.13.2-eksbuild.1"
    aws-ebs-csi-driver = "v1.56.0-eksbuild.1"
  }, var.addon_versions)

  oidc = {
    provider_arn = aws_iam_openid_connect_provider.this.arn
    issuer       = trimprefix(aws_eks_cluster.this.identity[0].oidc[0].issuer, "https://")
  }
}

module "cni_role" {
  source = "../irsa"

  name                = "${var.name}-cni"
  oidc                = local.oidc
  service_account     = "kube-system:aws-node"
  managed_policy_arns = { cni = "arn:${data.aws_partition.this.partition}:iam::aws:policy/AmazonEKS_CNI_Policy" }
}

module "ebs_role" {
  source = "../irsa"

  name                = "${var.name}-ebs"
  oidc                = local.oidc
  service_account     = "kube-system:ebs-csi-controller-sa"
  managed_policy_arns = { ebs = "arn:${data.aws_partition.this.partition}:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy" }
  policy_json         = data.aws_iam_policy_document.ebs_key.json
  policy_enabled      = true
}

# Volumes are encrypted with this repository's key, which AWS's own policy does not know.
data "aws_iam_policy_document" "ebs_key" {
  statement {
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
    resources = [var.data_kms_key_arn]
  }

  statement {
    actions   = ["kms:CreateGrant"]
    resources = [var.data_kms_key_arn]

    condition {
      test     = "Bool"
      variable = "kms:GrantIsForAWSResource"
      values   = ["true"]
    }
  }
}

resource "aws_eks_addon" "before_nodes" {
  for_each = {
    # The engine's NetworkPolicies are enforced by the network add-on, and only if it is told to.
    vpc-cni    = { role = module.cni_role.arn, configuration = jsonencode({ enableNetworkPolicy = "true" }) }
    kube-proxy = { role = null, configuration = null }
  }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = local.addon_versions[each.key]
  service_account_role_arn    = each.value.role
  configuration_values        = each.value.configuration
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}

resource "aws_eks_addon" "after_nodes" {
  for_each = {
    coredns = { role = null, configuration = null }
    # Volumes of claims are made by the driver, which knows no tags of Terraform's.
    aws-ebs-csi-driver = { role = module.ebs_role.arn, configuration = jsonencode({ controller = { extraVolumeTags = data.aws_default_tags.this.tags } }) }
  }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = local.addon_versions[each.key]
  service_account_role_arn    = each.value.role
  configuration_values        = each.value.configuration
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.this]
}
