# The cluster of one region: control plane, who may enter it, and the trust for service accounts.

data "aws_partition" "this" {}

data "aws_iam_policy_document" "cluster_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = data.aws_iam_policy_document.cluster_trust.json
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/AmazonEKSClusterPolicy"
}

# Made here and not by EKS, which would keep it for ever and unencrypted.
resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.logs_kms_key_arn
}

resource "aws_eks_cluster" "this" {
  name                          = var.name
  version                       = var.kubernetes_version
  role_arn                      = aws_iam_role.cluster.arn
  enabled_cluster_log_types     = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  deletion_protection           = var.deletion_protection
  bootstrap_self_managed_addons = false # the add-ons below, in known versions

  vpc_config {
    subnet_ids              = var.subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = 0 < length(var.public_access_cidrs)
    public_access_cidrs     = 0 < length(var.public_access_cidrs) ? var.public_access_cidrs : null
  }

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = false
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = var.data_kms_key_arn
    }
  }

  upgrade_policy {
    support_type = "STANDARD" # extended support costs six times as much per hour
  }

  depends_on = [aws_cloudwatch_log_group.cluster, aws_iam_role_policy_attachment.cluster]
}

resource "aws_eks_access_entry" "administrator" {
  for_each = toset(var.administrator_role_arns)

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.key
}

resource "aws_eks_access_policy_association" "administrator" {
  for_each = toset(var.administrator_role_arns)

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = aws_eks_access_entry.administrator[each.key].principal_arn
  policy_arn    = "arn:${data.aws_partition.this.partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}

# By a position and not by its ARN: the pipeline's role may be made in the same apply.
resource "aws_eks_access_entry" "deployer" {
  count = length(var.deployer_role_arns)

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = var.deployer_role_arns[count.index]

  # Bound to what EKS's policy below leaves out (modules/platform/charts/ground).
  kubernetes_groups = ["engine-deployers"]
}

resource "aws_eks_access_policy_association" "deployer" {
  count = length(var.deployer_role_arns)

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = aws_eks_access_entry.deployer[count.index].principal_arn
  policy_arn    = "arn:${data.aws_partition.this.partition}:eks::aws:cluster-access-policy/AmazonEKSAdminPolicy"

  access_scope {
    type       = "namespace"
    namespaces = [var.namespace]
  }
}

# kubectl from the bastion; nobody else inside the VPC but the nodes reaches the API server.
resource "aws_vpc_security_group_ingress_rule" "bastion" {
  security_group_id            = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  referenced_security_group_id = var.bastion_security_group_id
  description                  = "kubectl from the bastion"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

# What lets a service account take an IAM role (IRSA). AWS checks the issuer's certificate by its own
# list of authorities, so no thumbprint is kept here.
resource "aws_iam_openid_connect_provider" "this" {
  url            = aws_eks_cluster.this.identity[0].oidc[0].issuer
  client_id_list = ["sts.amazonaws.com"]
}
