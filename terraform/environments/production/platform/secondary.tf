# us-west-2: found by the names that the environment's root gives.

provider "aws" {
  alias               = "secondary"
  region              = "us-west-2"
  allowed_account_ids = var.account_ids
}

data "aws_eks_cluster" "secondary" {
  provider = aws.secondary
  name     = "${local.name}-us-west-2"
}

data "aws_lb_target_group" "secondary" {
  provider = aws.secondary
  name     = "${trimsuffix(substr("${local.name}-us-west-2", 0, 24), "-")}-gw"
}

provider "helm" {
  alias = "secondary"

  kubernetes = {
    host                   = lookup(var.kubernetes_hosts, "us-west-2", data.aws_eks_cluster.secondary.endpoint)
    tls_server_name        = trimprefix(data.aws_eks_cluster.secondary.endpoint, "https://")
    cluster_ca_certificate = try(base64decode(data.aws_eks_cluster.secondary.certificate_authority[0].data), "")

    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "aws"
      args        = ["eks", "get-token", "--region", "us-west-2", "--cluster-name", data.aws_eks_cluster.secondary.name]
    }
  }
}

module "secondary" {
  source    = "../../../modules/platform"
  providers = { aws = aws.secondary, helm = helm.secondary }

  cluster_name     = data.aws_eks_cluster.secondary.name
  region           = "us-west-2"
  vpc_id           = data.aws_eks_cluster.secondary.vpc_config[0].vpc_id
  target_group_arn = data.aws_lb_target_group.secondary.arn
  zone_name        = var.zone_name
  log_bucket_name  = "${local.name}-logs-${local.account_id}-us-west-2"
  values_dir       = "${path.module}/../../../helm-values"

  role_arns = {
    load_balancer = "${local.role_prefix}-us-west-2-load-balancer"
    external_dns  = "${local.role_prefix}-us-west-2-external-dns"
    autoscaler    = "${local.role_prefix}-us-west-2-autoscaler"
    loki          = "${local.role_prefix}-us-west-2-loki"
  }
}

output "releases_secondary" {
  description = "Chart and version of every release in us-west-2"
  value       = module.secondary.releases
}
