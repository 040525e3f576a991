# Staging: one region, small, asleep out of hours. The same modules and the same order as production.
#
# The second region is rehearsed in an account of its own: production's root with a smaller class, as
# terraform/README.md says under "A rehearsal".

locals {
  name = "engine-staging"

  # As in the backend (versions.tf), which can hold no variable.
  state_key = "engine/staging.tfstate"

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
    primary = { name = local.regions.primary, cidr = "10.40.0.0/16" }
  }

  domain_name = var.domain_name
  zone_name   = var.zone_name

  database = {
    instance_class      = "db.serverless"
    primary_instances   = 1
    serverless_capacity = { min = 0.5, max = 8 }
    rotation_days       = 30
    rotate_immediately  = var.rotate_immediately
  }

  size = {
    nat_per_zone = false

    node_pools = {
      # One in each zone: a disk that was made in a zone finds a node there again in the morning.
      general = { instance_types = ["m7g.large"], size_min = 3, size_max = 4, size_start = 3 }
      spot    = { instance_types = ["m7g.large", "m6g.large", "c7g.large", "c6g.large"], spot = true, size_min = 1, size_max = 6, size_start = 1 }
    }

    cache_node_type      = "cache.t4g.small"
    cache_nodes          = 1
    database_connections = 450 # the engines take 400 at most (k8s/values)
    bastion              = true
  }

  cluster = {
    administrators = var.administrator_role_arns
  }

  # Monday to Friday, 7 to 20 o'clock.
  sleep = {
    sleep     = "0 20 * * MON-FRI"
    wake      = "0 7 * * MON-FRI"
    time_zone = "America/New_York"
  }

  # An account of its own has the organisation's trail and detector.
  security = {
    cloudtrail = var.security_enabled
    guardduty  = var.security_enabled
  }

  alarm_emails       = var.alarm_emails
  monthly_budget_usd = 700
  github             = var.github

  state     = var.state == null ? null : { bucket_name = var.state.bucket_name, kms_key_arn = var.state.kms_key_arn, key = local.state_key }
  protected = false
}
