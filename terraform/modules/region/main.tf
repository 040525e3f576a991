# Everything of one region but the database, which spans both. The two regions are two instances of this
# module, so the secondary is complete by construction.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}
data "aws_elb_service_account" "this" {}

locals {
  full_name  = "${var.name}-${var.region}"
  account_id = data.aws_caller_identity.this.account_id
  prefix     = "arn:${data.aws_partition.this.partition}"

  # By their names, so that nothing waits for what stands in another module or region.
  database_id        = local.full_name
  backup_bucket_name = "${var.name}-backups-${local.account_id}-${var.region}"
  # Secrets Manager adds six characters to each name.
  secret_arns = [for secret in ["database/app", "database/owner", "database/read", "loadtest", "redis"] :
    "${local.prefix}:secretsmanager:${var.region}:${local.account_id}:secret:${var.name}/${secret}-??????"
  ]
}

# A provider that points elsewhere would build the wrong region without a word.
resource "terraform_data" "region" {
  input = var.region

  lifecycle {
    precondition {
      condition     = data.aws_region.this.region == var.region
      error_message = "The provider of this module stands in ${data.aws_region.this.region}, not in ${var.region}."
    }
  }
}

module "keys" {
  source = "../keys"

  name = local.full_name
}

module "network" {
  source = "../network"

  name              = local.full_name
  cidr              = var.cidr
  peer_cidr         = var.peer_cidr
  nat_per_zone      = var.size.nat_per_zone
  cluster_name      = local.full_name
  logs_kms_key_arn  = module.keys.arns["logs"]
  data_kms_key_arn  = module.keys.arns["data"]
  bastion_enabled   = var.size.bastion
  edge_prefix_lists = var.edge_prefix_lists
}

module "eks" {
  source = "../eks"

  name                      = local.full_name
  kubernetes_version        = var.cluster.version
  addon_versions            = var.cluster.addon_versions
  subnet_ids                = module.network.private_subnet_ids
  node_security_group_id    = module.network.security_group_ids["nodes"]
  bastion_security_group_id = module.network.security_group_ids["bastion"]
  data_kms_key_arn          = module.keys.arns["data"]
  logs_kms_key_arn          = module.keys.arns["logs"]
  public_access_cidrs       = var.cluster.public_access_cidrs
  administrator_role_arns   = var.cluster.administrators
  deployer_role_arns        = var.cluster.deployers
  node_pools                = var.size.node_pools
  deletion_protection       = var.protected
}

module "cache" {
  source = "../redis"

  # 40 characters at most.
  name                    = substr("${var.name}-${var.region}", 0, 40)
  node_type               = var.size.cache_node_type
  node_count              = var.size.cache_nodes
  subnet_ids              = module.network.database_subnet_ids
  security_group_id       = module.network.security_group_ids["cache"]
  data_kms_key_arn        = module.keys.arns["data"]
  logs_kms_key_arn        = module.keys.arns["logs"]
  auth_token              = var.auth_token
  global_datastore_suffix = var.global_datastore_suffix
}

# The load balancer's access log. Its writer cannot use a customer key.
data "aws_iam_policy_document" "edge_log" {
  statement {
    sid       = "LoadBalancerWrites"
    actions   = ["s3:PutObject"]
    resources = ["${local.prefix}:s3:::${var.name}-edge-${local.account_id}-${var.region}/alb/AWSLogs/${local.account_id}/*"]

    principals {
      type        = "Service"
      identifiers = ["logdelivery.elasticloadbalancing.amazonaws.com"]
    }

    # The regions of before 2022 used to write as this account.
    principals {
      type        = "AWS"
      identifiers = [data.aws_elb_service_account.this.arn]
    }
  }
}

module "edge_log" {
  source = "../bucket"

  name                 = "${var.name}-edge-${local.account_id}-${var.region}"
  expire_after_days    = 90
  extra_policy_json    = data.aws_iam_policy_document.edge_log.json
  extra_policy_enabled = true
  force_destroy        = !var.protected
}

# Loki's chunks.
module "logs" {
  source = "../bucket"

  name                    = "${var.name}-logs-${local.account_id}-${var.region}"
  kms_key_arn             = module.keys.arns["data"]
  expire_after_days       = 120 # Loki itself deletes after 90
  old_version_days        = 7
  request_metrics_enabled = true
  force_destroy           = !var.protected
}

module "edge" {
  source = "../edge"

  name                = local.full_name
  vpc_id              = module.network.vpc_id
  subnet_ids          = module.network.public_subnet_ids
  security_group_id   = module.network.security_group_ids["edge"]
  domain_name         = var.domain_name
  regional_name       = "${var.region}.${var.domain_name}"
  zone_id             = var.zone.id
  logs_kms_key_arn    = module.keys.arns["logs"]
  log_bucket_name     = module.edge_log.id
  deletion_protection = var.protected

  # Behind CloudFront it is CloudFront's own rule that tells clients apart.
  waf_rate_limit = length(var.edge_prefix_lists) == 0 ? 300000 : null
}

module "roles" {
  source = "../cluster-roles"

  cluster_name      = local.full_name
  oidc              = module.eks.oidc
  secret_arns       = local.secret_arns
  data_kms_key_arn  = module.keys.arns["data"]
  zone_arn          = var.zone.arn
  log_bucket_arn    = module.logs.arn
  backup_bucket_arn = "${local.prefix}:s3:::${local.backup_bucket_name}"
}

module "monitoring" {
  source = "../monitoring"

  name               = local.full_name
  events_kms_key_arn = module.keys.arns["events"]
  emails             = var.alarm_emails
  cluster_name       = local.full_name
  cache_member_ids   = module.cache.member_ids

  load_balancer = {
    arn_suffix              = module.edge.arn_suffix
    target_group_arn_suffix = module.edge.target_group_arn_suffix
    waf_name                = module.edge.waf_name
  }

  database = {
    cluster_id      = local.database_id
    global          = var.global_database
    connections_max = var.size.database_connections
  }

  buckets = {
    logs = { name = module.logs.id, gib_max = 500 }
    # Made by the deployment, in every region, with request metrics on.
    backups = { name = local.backup_bucket_name, gib_max = 2048 }
  }
}
