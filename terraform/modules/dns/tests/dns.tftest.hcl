variables {
  name            = "engine-test"
  zone_id         = "Z1"
  record_name     = "api.example.com"
  alarm_topic_arn = "arn:aws:sns:us-east-1:123456789012:alarms"

  regions = {
    us-east-1 = { primary = true, name = "us-east-1.api.example.com", alias_dns_name = "east.elb.amazonaws.com", alias_zone_id = "ZE" }
    us-west-2 = { primary = false, name = "us-west-2.api.example.com", alias_dns_name = "west.elb.amazonaws.com", alias_zone_id = "ZW" }
  }
}

run "both_regions_serve_by_latency" {
  command = apply

  assert {
    condition     = length(aws_route53_record.latency) == 2 && length(aws_route53_record.failover) == 0
    error_message = "Latency needs one record per region and no others."
  }

  assert {
    condition     = alltrue([for region, record in aws_route53_record.latency : record.latency_routing_policy[0].region == region && record.health_check_id == output.health_check_ids[region]])
    error_message = "A region's record does not hang on that region's health."
  }
}

run "failover_records_are_a_pair" {
  command = apply

  variables {
    routing = "failover"
  }

  assert {
    condition     = { for region, record in aws_route53_record.failover : region => record.failover_routing_policy[0].type } == { us-east-1 = "PRIMARY", us-west-2 = "SECONDARY" }
    error_message = "There must be one PRIMARY and one SECONDARY."
  }

  assert {
    condition     = length(aws_route53_record.latency) == 0 && length(distinct([for record in aws_route53_record.failover : record.name])) == 1 && alltrue([for region, record in aws_route53_record.failover : record.health_check_id == output.health_check_ids[region]])
    error_message = "The pair must share a name, and each hang on its own region's health."
  }
}

run "a_check_asks_its_own_region_for_the_engines_verdict" {
  command = plan

  assert {
    condition     = alltrue([for region, check in aws_route53_health_check.region : check.type == "HTTPS" && check.fqdn == "${region}.api.example.com" && check.resource_path == "/health" && check.request_interval == 10])
    error_message = "A check asks another name or another path."
  }
}

run "two_primaries_are_refused" {
  command = plan

  variables {
    regions = {
      us-east-1 = { primary = true, name = "us-east-1.api.example.com", alias_dns_name = "east.elb.amazonaws.com", alias_zone_id = "ZE" }
      us-west-2 = { primary = true, name = "us-west-2.api.example.com", alias_dns_name = "west.elb.amazonaws.com", alias_zone_id = "ZW" }
    }
  }

  expect_failures = [var.regions]
}

run "another_routing_is_refused" {
  command = plan

  variables {
    routing = "weighted"
  }

  expect_failures = [var.routing]
}
