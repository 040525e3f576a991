variables {
  name             = "engine-test"
  logs_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/logs"
}

run "every_kind_of_attack_has_its_rule_and_blocks" {
  command = plan

  assert {
    condition     = sort([for rule in aws_wafv2_web_acl.this.rule : rule.name]) == tolist(["bad-inputs", "common", "rate", "reputation", "sql-injection"])
    error_message = "A rule is missing."
  }

  assert {
    condition     = alltrue([for rule in aws_wafv2_web_acl.this.rule : length(rule.override_action[0].none) == 1 && length(rule.override_action[0].count) == 0 if rule.name != "rate"])
    error_message = "A managed group only counts."
  }

  assert {
    condition     = length(distinct([for rule in aws_wafv2_web_acl.this.rule : rule.priority])) == 5
    error_message = "Two rules share a priority."
  }
}

run "a_new_group_can_be_watched_first" {
  command = plan

  variables {
    count_only = ["common"]
  }

  assert {
    condition     = [for rule in aws_wafv2_web_acl.this.rule : length(rule.override_action[0].count) if rule.name == "common"] == [1]
    error_message = "The group blocks all the same."
  }
}

run "behind_cloudfront_addresses_are_not_counted" {
  command = plan

  variables {
    rate_limit = null
  }

  assert {
    condition     = sort([for rule in aws_wafv2_web_acl.this.rule : rule.name]) == tolist(["bad-inputs", "common", "reputation", "sql-injection"])
    error_message = "All clients would be blocked together, for they come from CloudFront's few addresses."
  }
}

run "an_unknown_group_is_refused" {
  command = plan

  variables {
    count_only = ["comon"]
  }

  expect_failures = [var.count_only]
}
