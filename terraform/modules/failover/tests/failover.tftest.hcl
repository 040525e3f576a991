variables {
  name               = "engine-test-us-west-2"
  global_cluster_id  = "engine-test"
  global_cluster_arn = "arn:aws:rds::123456789012:global-cluster:engine-test"
  alarm_topic_arn    = "arn:aws:sns:us-west-2:123456789012:alarms"
  logs_kms_key_arn   = "arn:aws:kms:us-west-2:123456789012:key/logs"
  events_kms_key_arn = "arn:aws:kms:us-west-2:123456789012:key/events"

  own = {
    region      = "us-west-2"
    cluster_arn = "arn:aws:rds:us-west-2:123456789012:cluster:engine-test-us-west-2"
  }

  peer = {
    region          = "us-east-1"
    cluster_arn     = "arn:aws:rds:us-east-1:123456789012:cluster:engine-test-us-east-1"
    health_url      = "https://us-east-1.api.example.com/health"
    subnet_ids      = ["subnet-a", "subnet-b", "subnet-c"]
    subnet_arns     = ["arn:aws:ec2:us-east-1:123456789012:subnet/subnet-a", "arn:aws:ec2:us-east-1:123456789012:subnet/subnet-b", "arn:aws:ec2:us-east-1:123456789012:subnet/subnet-c"]
    serving_acl_id  = "acl-serving"
    serving_acl_arn = "arn:aws:ec2:us-east-1:123456789012:network-acl/acl-serving"
    fence_acl_id    = "acl-fence"
    fence_acl_arn   = "arn:aws:ec2:us-east-1:123456789012:network-acl/acl-fence"
  }
}

run "people_are_told_and_nothing_promotes_by_itself" {
  command = apply

  assert {
    condition     = toset(output.alarm_actions) == toset(["arn:aws:sns:us-west-2:123456789012:alarms"]) && length(aws_lambda_permission.alarm) == 0
    error_message = "Without `automatic` the alarm may only tell."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.writer_region.treat_missing_data == "missing"
    error_message = "A probe that stopped must not promote anybody."
  }

  assert {
    condition     = aws_lambda_function_event_invoke_config.this.maximum_retry_attempts == 0
    error_message = "Lambda would repeat an act whose outcome is unknown."
  }

  assert {
    condition     = aws_lambda_function.this.environment[0].variables["PEER_SUBNET_IDS"] == "subnet-a,subnet-b,subnet-c"
    error_message = "The function does not know all of the peer's database subnets."
  }
}

run "the_alarm_calls_the_function_when_told_to" {
  command = apply

  variables {
    automatic = true
  }

  assert {
    condition     = contains(output.alarm_actions, output.function_arn) && aws_lambda_permission.alarm[0].principal == "lambda.alarms.cloudwatch.amazonaws.com"
    error_message = "The alarm cannot call the function."
  }
}

run "the_function_may_promote_and_fence_and_nothing_else" {
  command = apply

  assert {
    condition     = alltrue([for statement in jsondecode(output.policy_json).Statement : alltrue([for action in flatten([statement.Action]) : !strcontains(action, "*")])])
    error_message = "The function holds a wildcard action."
  }

  assert {
    condition     = toset([for statement in jsondecode(output.policy_json).Statement : statement.Sid if contains(flatten([statement.Resource]), "*")]) == toset(["LookAtFence", "LookAtLag", "Count"])
    error_message = "An action that can be limited to a resource is not."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(output.policy_json).Statement : can(statement.Condition) if contains(flatten([statement.Resource]), "*")])
    error_message = "What cannot be limited to a resource is not limited otherwise either."
  }

  assert {
    condition     = toset(flatten([for statement in jsondecode(output.policy_json).Statement : statement.Resource if statement.Sid == "Fence"])) == toset(concat([var.peer.serving_acl_arn, var.peer.fence_acl_arn], var.peer.subnet_arns))
    error_message = "The fence could be built of other lists or subnets, or AWS would refuse it for want of either."
  }
}

run "a_minute_of_trouble_is_not_an_outage" {
  command = plan

  variables {
    unhealthy_minutes = 2
  }

  expect_failures = [var.unhealthy_minutes]
}
