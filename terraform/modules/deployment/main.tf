# The whole of one environment: one or two regions, and what spans them.

data "aws_caller_identity" "this" {
  provider = aws.primary
}

data "aws_partition" "this" {
  provider = aws.primary
}

data "aws_route53_zone" "this" {
  provider = aws.primary

  name         = var.zone_name
  private_zone = false
}

locals {
  two     = var.regions.secondary != null
  primary = var.regions.primary.name
  # Where there is no second region its provider is still given, and nothing is built with it.
  secondary = try(var.regions.secondary.name, null)
  prefix    = "arn:${data.aws_partition.this.partition}"

  # CloudFront takes the clients' name; the regions stand behind one of their own.
  record_name = var.cdn_enabled ? "origin.${var.domain_name}" : var.domain_name
  edge_prefix_lists = var.cdn_enabled ? [
    "com.amazonaws.global.cloudfront.origin-facing",
    "com.amazonaws.${local.primary}.route53-healthchecks",
  ] : []

  zone = {
    id   = data.aws_route53_zone.this.zone_id
    arn  = "${local.prefix}:route53:::hostedzone/${data.aws_route53_zone.this.zone_id}"
    name = var.zone_name
  }

  deployers = var.github == null ? [] : [module.ci_roles[0].role_arns["deploy"]]
}

# ElastiCache has no write-only argument for it, so this one password is in the state, which is encrypted
# and private. It guards balances that are shown, and no transfer is decided by them.
resource "random_password" "cache" {
  length  = 40
  special = false
}

module "primary" {
  source    = "../region"
  providers = { aws = aws.primary }

  name                    = var.name
  region                  = local.primary
  cidr                    = var.regions.primary.cidr
  peer_cidr               = try(var.regions.secondary.cidr, null)
  domain_name             = var.domain_name
  zone                    = local.zone
  size                    = var.size
  cluster                 = merge(var.cluster, { deployers = local.deployers })
  auth_token              = random_password.cache.result
  global_datastore_suffix = local.two && var.global_datastore_enabled ? var.name : null
  global_database         = local.two
  edge_prefix_lists       = local.edge_prefix_lists
  alarm_emails            = var.alarm_emails
  protected               = var.protected
}

module "secondary" {
  source    = "../region"
  providers = { aws = aws.secondary }
  count     = local.two ? 1 : 0

  name              = var.name
  region            = local.secondary
  cidr              = var.regions.secondary.cidr
  peer_cidr         = var.regions.primary.cidr
  domain_name       = var.domain_name
  zone              = local.zone
  size              = var.size
  cluster           = merge(var.cluster, { deployers = local.deployers })
  auth_token        = random_password.cache.result
  global_database   = true
  edge_prefix_lists = [for list in local.edge_prefix_lists : replace(list, local.primary, local.secondary)]
  alarm_emails      = var.alarm_emails
  protected         = var.protected
}

module "peering" {
  source    = "../peering"
  providers = { aws.primary = aws.primary, aws.secondary = aws.secondary }
  count     = local.two ? 1 : 0

  name = var.name

  primary = {
    vpc_id          = module.primary.network.vpc_id
    cidr            = var.regions.primary.cidr
    route_table_ids = module.primary.network.route_table_ids
  }

  secondary = {
    vpc_id          = module.secondary[0].network.vpc_id
    cidr            = var.regions.secondary.cidr
    region          = local.secondary
    route_table_ids = module.secondary[0].network.route_table_ids
  }
}

# A read-only copy of the primary's cache. The secondary's engines use a cache of their own, beside it.
module "cache_copy" {
  source    = "../redis"
  providers = { aws = aws.secondary }
  count     = local.two && var.global_datastore_enabled ? 1 : 0

  name                = substr("${var.name}-copy", 0, 40)
  node_type           = var.size.cache_node_type
  node_count          = var.size.cache_nodes
  subnet_ids          = module.secondary[0].network.database_subnet_ids
  security_group_id   = module.secondary[0].network.security_group_ids["cache"]
  data_kms_key_arn    = module.secondary[0].key_arns["data"]
  logs_kms_key_arn    = module.secondary[0].key_arns["logs"]
  auth_token          = random_password.cache.result
  is_copy             = true
  global_datastore_id = module.primary.global_datastore_id
}

module "dns" {
  source    = "../dns"
  providers = { aws = aws.primary }

  name            = var.name
  zone_id         = local.zone.id
  record_name     = local.record_name
  routing         = var.routing
  alarm_topic_arn = module.primary.topic_arn

  regions = merge(
    {
      (local.primary) = {
        primary        = true
        name           = "${local.primary}.${var.domain_name}"
        alias_dns_name = module.primary.edge.dns_name
        alias_zone_id  = module.primary.edge.zone_id
      }
    },
    local.two ? {
      (coalesce(local.secondary, "none")) = {
        primary        = false
        name           = "${local.secondary}.${var.domain_name}"
        alias_dns_name = module.secondary[0].edge.dns_name
        alias_zone_id  = module.secondary[0].edge.zone_id
      }
    } : {},
  )
}

module "cdn" {
  source    = "../cdn"
  providers = { aws = aws.primary }
  count     = var.cdn_enabled ? 1 : 0

  name             = var.name
  domain_name      = var.domain_name
  origin_name      = local.record_name
  zone_id          = local.zone.id
  logs_kms_key_arn = module.primary.key_arns["logs"]
}

module "registry" {
  source    = "../registry"
  providers = { aws = aws.primary }

  repositories    = [var.name, "${var.name}-loadtest"]
  replica_regions = local.two ? [local.secondary] : []
  kms_key_arn     = module.primary.key_arns["data"]
  force_delete    = !var.protected

  depends_on = [module.registry_secondary]
}

# What replication would make by itself has no scan, tags that move, and images that pile up.
module "registry_secondary" {
  source    = "../registry"
  providers = { aws = aws.secondary }
  count     = local.two ? 1 : 0

  repositories = [var.name, "${var.name}-loadtest"]
  kms_key_arn  = module.secondary[0].key_arns["data"]
  force_delete = !var.protected
}

module "security_primary" {
  source    = "../security"
  providers = { aws = aws.primary }

  name               = var.name
  cloudtrail_enabled = var.security.cloudtrail
  guardduty_enabled  = var.security.guardduty
  trail_kms_key_arn  = module.primary.key_arns["trail"]
  logs_kms_key_arn   = module.primary.key_arns["logs"]
  alarm_topic_arn    = module.primary.topic_arn
  force_destroy      = !var.protected
}

# The trail covers all regions; GuardDuty stands in each.
module "security_secondary" {
  source    = "../security"
  providers = { aws = aws.secondary }
  count     = local.two ? 1 : 0

  name               = "${var.name}-${local.secondary}"
  cloudtrail_enabled = false
  guardduty_enabled  = var.security.guardduty
  trail_kms_key_arn  = module.secondary[0].key_arns["trail"]
  logs_kms_key_arn   = module.secondary[0].key_arns["logs"]
  alarm_topic_arn    = module.secondary[0].topic_arn
}

module "cost" {
  source    = "../cost"
  providers = { aws = aws.primary }

  name               = var.name
  monthly_budget_usd = var.monthly_budget_usd
  topic_arn          = module.primary.topic_arn
}

module "ci_roles" {
  source    = "../ci-roles"
  providers = { aws = aws.primary }
  count     = var.github == null ? 0 : 1

  name                  = var.name
  repository            = var.github.repository
  environment           = var.github.environment
  create_provider       = var.github.create_provider
  image_repository_arns = module.registry.repository_arns
  image_copy_arns       = flatten(module.registry_secondary[*].repository_arns)
  cluster_arns = [for region in compact([local.primary, local.secondary]) :
    "${local.prefix}:eks:${region}:${data.aws_caller_identity.this.account_id}:cluster/${var.name}-${region}"
  ]

  state = var.state

  # Of all secrets a plan opens these two: the administrator's first password (ephemeral, module
  # credentials) and the caches' (in the state, for want of a write-only argument). By name, because the
  # clusters, whose entries name the roles, must not wait for the database.
  plan_secrets = {
    arns = [for secret in ["${module.primary.database_id}/database/seed", "${var.name}/redis"] :
      "${local.prefix}:secretsmanager:${local.primary}:${data.aws_caller_identity.this.account_id}:secret:${secret}-??????"
    ]
    kms_key_arn = module.primary.key_arns["data"]
    region      = local.primary
  }
}

module "schedule" {
  source    = "../schedule"
  providers = { aws = aws.primary }
  count     = var.sleep == null ? 0 : 1

  name                 = var.name
  sleep                = var.sleep.sleep
  wake                 = var.sleep.wake
  time_zone            = var.sleep.time_zone
  kms_key_arn          = module.primary.key_arns["data"]
  database_cluster_ids = [module.primary.database_id]
  alarm_names          = concat(module.primary.alarm_names, ["${var.name}-${local.primary}-unhealthy"])

  autoscaling_groups = { for pool, value in var.size.node_pools : pool => {
    group_name = module.primary.cluster.autoscaling_groups[pool]
    size_min   = value.size_min
    size_max   = value.size_max
    size_start = value.size_start
  } }
}
