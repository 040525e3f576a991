variables {
  name                 = "engine-test"
  kms_key_arn          = "arn:aws:kms:us-east-1:123456789012:key/data"
  database_cluster_ids = ["engine-test-us-east-1"]

  alarm_names = ["engine-test-us-east-1-gateways-gone"]

  autoscaling_groups = {
    general = { group_name = "eks-general", size_min = 2, size_max = 4, size_start = 2 }
  }
}

run "everything_that_sleeps_wakes" {
  command = plan

  assert {
    condition     = aws_autoscaling_schedule.sleep["general"].max_size == 0 && aws_autoscaling_schedule.wake["general"].desired_capacity == 2
    error_message = "The nodes do not sleep, or do not wake to their size."
  }

  assert {
    condition     = { for key, schedule in aws_scheduler_schedule.database : key => schedule.schedule_expression } == { stop-engine-test-us-east-1 = "cron(0 20 ? * MON-FRI *)", start-engine-test-us-east-1 = "cron(0 7 ? * MON-FRI *)" }
    error_message = "The database does not sleep and wake with the nodes."
  }

  assert {
    condition     = { for act, schedule in aws_scheduler_schedule.alarms : act => [schedule.schedule_expression, reverse(split(":", schedule.target[0].arn))[0], jsondecode(schedule.target[0].input).AlarmNames[0]] } == { stop = ["cron(0 20 ? * MON-FRI *)", "disableAlarmActions", "engine-test-us-east-1-gateways-gone"], start = ["cron(0 7 ? * MON-FRI *)", "enableAlarmActions", "engine-test-us-east-1-gateways-gone"] }
    error_message = "Every evening an alarm would ring."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(output.policy_json).Statement : !contains(flatten([statement.Resource]), "*") && length(setsubtract(flatten([statement.Action]), ["rds:StartDBCluster", "rds:StopDBCluster", "cloudwatch:DisableAlarmActions", "cloudwatch:EnableAlarmActions", "kms:Decrypt"])) == 0])
    error_message = "The schedule may do more than start and stop that database and its alarms."
  }
}
