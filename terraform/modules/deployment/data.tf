# The ledger: databases, their credentials, their backups, and who promotes which.

module "database_global" {
  source    = "../database-global"
  providers = { aws = aws.primary }
  count     = local.two ? 1 : 0

  name                = var.name
  engine_version      = var.database.engine_version
  deletion_protection = var.protected
}

module "database_primary" {
  source    = "../database"
  providers = { aws = aws.primary }

  name                = module.primary.database_id
  member              = local.two ? "primary" : "alone"
  global_cluster_id   = one(module.database_global[*].id)
  engine_version      = var.database.engine_version
  instance_class      = var.database.instance_class
  instance_count      = var.database.primary_instances
  serverless_capacity = var.database.serverless_capacity
  subnet_ids          = module.primary.network.database_subnet_ids
  security_group_id   = module.primary.network.security_group_ids["database"]
  data_kms_key_arn    = module.primary.key_arns["data"]
  logs_kms_key_arn    = module.primary.key_arns["logs"]

  backup_retention_days = var.database.backup_days
  global_rpo_seconds    = local.two ? var.database.global_rpo_seconds : null
  force_ssl             = var.database.force_ssl
  deletion_protection   = var.protected
  apply_immediately     = !var.protected
}

module "database_secondary" {
  source    = "../database"
  providers = { aws = aws.secondary }
  count     = local.two ? 1 : 0

  name                = module.secondary[0].database_id
  member              = "secondary"
  global_cluster_id   = module.database_global[0].id
  source_region       = local.primary
  engine_version      = var.database.engine_version
  instance_class      = var.database.instance_class
  instance_count      = var.database.secondary_instances
  serverless_capacity = var.database.serverless_capacity
  subnet_ids          = module.secondary[0].network.database_subnet_ids
  security_group_id   = module.secondary[0].network.security_group_ids["database"]
  data_kms_key_arn    = module.secondary[0].key_arns["data"]
  logs_kms_key_arn    = module.secondary[0].key_arns["logs"]

  # The same as the primary's, for it becomes the primary.
  backup_retention_days = var.database.backup_days
  global_rpo_seconds    = var.database.global_rpo_seconds
  force_ssl             = var.database.force_ssl
  deletion_protection   = var.protected
  apply_immediately     = !var.protected

  # A secondary can join only once the primary has a writer.
  depends_on = [module.database_primary]
}

locals {
  writer_endpoint = local.two ? module.database_global[0].writer_endpoint : module.database_primary.writer_endpoint
}

module "credentials" {
  source    = "../credentials"
  providers = { aws = aws.primary }

  name                 = var.name
  data_kms_key_arn     = module.primary.key_arns["data"]
  replicas             = local.two ? { (coalesce(local.secondary, "none")) = { kms_key_arn = module.secondary[0].key_arns["data"] } } : {}
  rotation_days        = var.database.rotation_days
  rotate_immediately   = var.database.rotate_immediately
  subnet_ids           = module.primary.network.private_subnet_ids
  security_group_id    = module.primary.network.security_group_ids["nodes"]
  recovery_window_days = var.protected ? 30 : 0

  database = {
    host            = local.writer_endpoint
    port            = module.database_primary.port
    name            = "ledger"
    master_username = module.database_primary.master_username
    seed_secret_id  = module.database_primary.seed_secret_id
  }
}

resource "aws_secretsmanager_secret" "cache" {
  provider = aws.primary

  #checkov:skip=CKV2_AWS_57: ElastiCache has no rotation function; ops/drills/aws/rotate_credentials.sh rotates it
  name                    = "${var.name}/redis"
  description             = "Password of the caches"
  kms_key_id              = module.primary.key_arns["data"]
  recovery_window_in_days = var.protected ? 30 : 0

  dynamic "replica" {
    for_each = local.two ? [local.secondary] : []

    content {
      region     = replica.value
      kms_key_id = module.secondary[0].key_arns["data"]
    }
  }
}

resource "aws_secretsmanager_secret_version" "cache" {
  provider = aws.primary

  secret_id     = aws_secretsmanager_secret.cache.id
  secret_string = jsonencode({ password = random_password.cache.result })
  # The second label keeps this version when others follow (module credentials says why).
  version_stages = ["AWSCURRENT", "MADE_BY_TERRAFORM"]

  lifecycle {
    ignore_changes = [secret_string, version_stages] # rotated outside
  }
}

# What a load test's coordinator and workers know each other by. It guards no money, so nothing rotates it:
# raise the version to have another.
ephemeral "aws_secretsmanager_random_password" "loadtest" {
  provider = aws.primary

  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "loadtest" {
  provider = aws.primary

  #checkov:skip=CKV2_AWS_57: see above
  name                    = "${var.name}/loadtest"
  description             = "Token of load tests"
  kms_key_id              = module.primary.key_arns["data"]
  recovery_window_in_days = var.protected ? 30 : 0

  dynamic "replica" {
    for_each = local.two ? [local.secondary] : []

    content {
      region     = replica.value
      kms_key_id = module.secondary[0].key_arns["data"]
    }
  }
}

resource "aws_secretsmanager_secret_version" "loadtest" {
  provider = aws.primary

  secret_id                = aws_secretsmanager_secret.loadtest.id
  secret_string_wo         = jsonencode({ token = ephemeral.aws_secretsmanager_random_password.loadtest.random_password })
  secret_string_wo_version = 1
}

module "backups" {
  source    = "../backups"
  providers = { aws.primary = aws.primary, aws.secondary = aws.secondary }
  count     = local.two ? 1 : 0

  name          = var.name
  lock_days     = var.protected ? 35 : 0
  force_destroy = !var.protected

  primary = {
    region      = local.primary
    kms_key_arn = module.primary.key_arns["data"]
    cluster_arn = module.database_primary.cluster_arn
  }

  secondary = {
    region      = local.secondary
    kms_key_arn = module.secondary[0].key_arns["data"]
  }

  alarm_topic_arns = {
    primary   = module.primary.topic_arn
    secondary = module.secondary[0].topic_arn
  }
}

# With one region: a place for logical backups, in that region.
module "backup_bucket" {
  source    = "../bucket"
  providers = { aws = aws.primary }
  count     = local.two ? 0 : 1

  name              = "${var.name}-backups-${data.aws_caller_identity.this.account_id}-${local.primary}"
  kms_key_arn       = module.primary.key_arns["data"]
  expire_after_days = 14
  force_destroy     = !var.protected

  request_metrics_enabled = true
}

# What the functions and the scripts of ops ask whether a region serves. Behind CloudFront no load balancer
# answers them; they ask for the whole then, which answers while any region can write.
locals {
  health_urls = {
    of_primary   = "https://${var.cdn_enabled ? "" : "${local.primary}."}${var.domain_name}/health"
    of_secondary = "https://${var.cdn_enabled || !local.two ? "" : "${local.secondary}."}${var.domain_name}/health"
  }
}

# One function in each region: whichever is left must be able to act.
module "failover_secondary" {
  source    = "../failover"
  providers = { aws = aws.secondary }
  count     = local.two ? 1 : 0

  name               = "${var.name}-${local.secondary}"
  global_cluster_id  = module.database_global[0].id
  global_cluster_arn = module.database_global[0].arn
  automatic          = var.failover_automatic
  alarm_topic_arn    = module.secondary[0].topic_arn
  logs_kms_key_arn   = module.secondary[0].key_arns["logs"]
  events_kms_key_arn = module.secondary[0].key_arns["events"]

  own = {
    region      = local.secondary
    cluster_arn = module.database_secondary[0].cluster_arn
  }

  peer = {
    region          = local.primary
    cluster_arn     = module.database_primary.cluster_arn
    health_url      = local.health_urls.of_primary
    subnet_ids      = module.primary.network.database_subnet_ids
    subnet_arns     = module.primary.network.database_subnet_arns
    serving_acl_id  = module.primary.network.database_acl_id
    serving_acl_arn = module.primary.network.database_acl_arn
    fence_acl_id    = module.primary.network.fence_acl_id
    fence_acl_arn   = module.primary.network.fence_acl_arn
  }
}

# For the way back. Never automatic: two functions that promote by themselves could chase each other.
module "failover_primary" {
  source    = "../failover"
  providers = { aws = aws.primary }
  count     = local.two ? 1 : 0

  name               = "${var.name}-${local.primary}"
  global_cluster_id  = module.database_global[0].id
  global_cluster_arn = module.database_global[0].arn
  automatic          = false
  alarm_topic_arn    = module.primary.topic_arn
  logs_kms_key_arn   = module.primary.key_arns["logs"]
  events_kms_key_arn = module.primary.key_arns["events"]

  own = {
    region      = local.primary
    cluster_arn = module.database_primary.cluster_arn
  }

  peer = {
    region          = local.secondary
    cluster_arn     = module.database_secondary[0].cluster_arn
    health_url      = local.health_urls.of_secondary
    subnet_ids      = module.secondary[0].network.database_subnet_ids
    subnet_arns     = module.secondary[0].network.database_subnet_arns
    serving_acl_id  = module.secondary[0].network.database_acl_id
    serving_acl_arn = module.secondary[0].network.database_acl_arn
    fence_acl_id    = module.secondary[0].network.fence_acl_id
    fence_acl_arn   = module.secondary[0].network.fence_acl_arn
  }
}
