# What the environments leave at its default: CloudFront, routing by failover, and what is refused.

provider "aws" {
  alias  = "primary"
  region = "us-east-1"
}

provider "aws" {
  alias  = "secondary"
  region = "us-west-2"
}

variables {
  name               = "engine-test"
  zone_name          = "example.com"
  domain_name        = "api.example.com"
  monthly_budget_usd = 1000

  regions = {
    primary   = { name = "us-east-1", cidr = "10.10.0.0/16" }
    secondary = { name = "us-west-2", cidr = "10.20.0.0/16" }
  }

  database = {
    instance_class      = "db.r8g.large"
    primary_instances   = 2
    secondary_instances = 2
  }

  size = {
    nat_per_zone         = false
    node_pools           = { general = { instance_types = ["m7g.large"], size_min = 3, size_max = 3, size_start = 3 } }
    cache_node_type      = "cache.t4g.small"
    cache_nodes          = 2
    database_connections = 100
    bastion              = false
  }
}

run "behind_cloudfront_the_regions_are_still_watched" {
  command   = plan
  providers = { aws.primary = aws.primary, aws.secondary = aws.secondary }

  variables {
    cdn_enabled        = true
    routing            = "failover"
    failover_automatic = true
  }

  assert {
    condition     = length(module.cdn) == 1 && local.record_name == "origin.api.example.com" && length(local.edge_prefix_lists) == 2
    error_message = "CloudFront is missing, or somebody else reaches the load balancers."
  }

  assert {
    condition     = module.failover_secondary[0].watched_url == "https://api.example.com/health" && module.failover_primary[0].watched_url == "https://api.example.com/health"
    error_message = "The failover functions ask a load balancer that answers CloudFront only: every minute would count as an outage."
  }

  assert {
    condition     = toset(values(output.regions)[*].health_url) == toset(["https://api.example.com/health"])
    error_message = "Deployments and drills ask an address that answers CloudFront only."
  }
}

run "without_cloudfront_each_function_asks_the_other_region" {
  command   = plan
  providers = { aws.primary = aws.primary, aws.secondary = aws.secondary }

  assert {
    condition     = module.failover_secondary[0].watched_url == "https://us-east-1.api.example.com/health" && module.failover_primary[0].watched_url == "https://us-west-2.api.example.com/health"
    error_message = "A function watches its own region."
  }

  assert {
    condition     = output.regions["us-west-2"].health_url == "https://us-west-2.api.example.com/health"
    error_message = "Deployments ask another region than the one they changed."
  }
}

run "another_primary_region_is_refused" {
  command   = plan
  providers = { aws.primary = aws.primary, aws.secondary = aws.secondary }

  variables {
    regions = {
      primary = { name = "eu-west-1", cidr = "10.10.0.0/16" }
    }
  }

  expect_failures = [var.regions]
}

run "a_deployment_of_two_regions_does_not_sleep" {
  command   = plan
  providers = { aws.primary = aws.primary, aws.secondary = aws.secondary }

  variables {
    sleep = { sleep = "0 20 * * MON-FRI", wake = "0 7 * * MON-FRI", time_zone = "America/New_York" }
  }

  expect_failures = [var.sleep]
}
