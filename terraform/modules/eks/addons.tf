# What a cluster needs before its first pod, as EKS add-ons: network first, name service and disks
# once there are nodes.

locals {
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
  addon_version               = lookup(var.addon_versions, each.key, null)
  service_account_role_arn    = each.value.role
  configuration_values        = each.value.configuration
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}

resource "aws_eks_addon" "after_nodes" {
  for_each = {
    coredns            = null
    aws-ebs-csi-driver = module.ebs_role.arn
  }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = lookup(var.addon_versions, each.key, null)
  service_account_role_arn    = each.value
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.this]
}
