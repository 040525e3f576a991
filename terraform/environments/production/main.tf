# Production: two regions, both serving, one writer.

locals {
  name = "engine-production"

  # As in the backend (versions.tf), which can hold no variable.
  state_key = "engine/production.tfstate"

  regions = {
    primary   = "us-east-1"
    secondary = "us-west-2"
  }
}

module "deployment" {
  source    = "../../modules/deployment"
  providers = { aws.primary = aws.primary, aws.secondary = aws.secondary }

  name = local.name

  regions = {
    primary   = { name = local.regions.primary, cidr = "10.10.0.0/16" }
    secondary = { name = local.regions.secondary, cidr = "10.20.0.0/16" }
  }

  domain_name = var.domain_name
  zone_name   = var.zone_name
  routing     = var.routing
  cdn_enabled = var.cdn_enabled

  database = {
    instance_class      = "db.r8g.xlarge" # 4 cores, 32 GiB
    primary_instances   = 2               # the writer, and a reader that takes over and serves history
    secondary_instances = 2               # equal, for it becomes the primary
    backup_days         = 7
    global_rpo_seconds  = var.global_rpo_seconds
    rotation_days       = 30
    rotate_immediately  = var.rotate_immediately
  }

  size = {
    nat_per_zone = true

    node_pools = {
      # Engines (2 cores each), gateways, monitoring: three zones.
      general = { instance_types = ["m7g.xlarge"], size_min = 3, size_max = 12, size_start = 3 }
      # Load tests and other work that may be evicted.
      spot = { instance_types = ["m7g.xlarge", "m6g.xlarge", "c7g.xlarge", "c6g.xlarge"], spot = true, size_min = 0, size_max = 6, size_start = 0 }
    }

    cache_node_type      = "cache.r7g.large"
    cache_nodes          = 2
    database_connections = 2200 # of about 2,600; the engines of each region take 1,000 at most (k8s/values)
    bastion              = true
  }

  cluster = {
    administrators = var.administrator_role_arns
  }

  # An account of its own has the organisation's trail and detector.
  security = {
    cloudtrail = var.security_enabled
    guardduty  = var.security_enabled
  }

  global_datastore_enabled = var.global_datastore_enabled
  failover_automatic       = var.failover_automatic
  alarm_emails             = var.alarm_emails
  monthly_budget_usd       = 7500
  github                   = var.github

  state     = var.state == null ? null : { bucket_name = var.state.bucket_name, kms_key_arn = var.state.kms_key_arn, key = local.state_key }
  protected = var.protected
}
