# us-east-1: found by the names that the environment's root gives.

provider "aws" {
  alias               = "primary"
  region              = "us-east-1"
  allowed_account_ids = var.account_ids
}

data "aws_eks_cluster" "primary" {
  provider = aws.primary
  name     = "${local.name}-us-east-1"
}

data "aws_lb_target_group" "primary" {
  provider = aws.primary
  name     = "${trimsuffix(substr("${local.name}-us-east-1", 0, 24), "-")}-gw"
}

provider "helm" {
  alias = "primary"

  kubernetes = {
    host                   = lookup(var.kubernetes_hosts, "us-east-1", data.aws_eks_cluster.primary.endpoint)
    tls_server_name        = trimprefix(data.aws_eks_cluster.primary.endpoint, "https://")
    cluster_ca_certificate = try(base64decode(data.aws_eks_cluster.primary.certificate_authority[0].data), "")

    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "aws"
      args        = ["eks", "get-token", "--region", "us-east-1", "--cluster-name", data.aws_eks_cluster.primary.name]
    }
  }
}

module "primary" {
  source    = "../../../modules/platform"
  providers = { aws = aws.primary, helm = helm.primary }

  cluster_name     = data.aws_eks_cluster.primary.name
  region           = "us-east-1"
  vpc_id           = data.aws_eks_cluster.primary.vpc_config[0].vpc_id
  target_group_arn = data.aws_lb_target_group.primary.arn
  zone_name        = var.zone_name
  log_bucket_name  = "${local.name}-logs-${local.account_id}-us-east-1"
  values_dir       = "${path.module}/../../../helm-values"

  role_arns = {
    load_balancer = "${local.role_prefix}-us-east-1-load-balancer"
    external_dns  = "${local.role_prefix}-us-east-1-external-dns"
    autoscaler    = "${local.role_prefix}-us-east-1-autoscaler"
    loki          = "${local.role_prefix}-us-east-1-loki"
  }
}

output "releases_primary" {
  description = "Chart and version of every release in us-east-1"
  value       = module.primary.releases
}
