variables {
  name = "engine-test"
}

run "keys_rotate_and_no_policy_gives_everything" {
  command = apply

  assert {
    condition     = alltrue([for key in aws_kms_key.this : key.enable_key_rotation])
    error_message = "A key does not rotate."
  }

  assert {
    condition     = sort(keys(output.arns)) == tolist(["data", "events", "logs", "trail"])
    error_message = "A purpose lost its key."
  }

  assert {
    condition = alltrue(flatten([for policy in output.policies_json : [for statement in jsondecode(policy).Statement :
      [for action in flatten([statement.Action]) : !strcontains(action, "*")]
    ]]))
    error_message = "A key's policy holds a wildcard action."
  }

  assert {
    condition     = alltrue([for policy in output.policies_json : alltrue([for statement in jsondecode(policy).Statement : !strcontains(jsonencode(statement.Principal), "\"*\"")])])
    error_message = "A key may be used by anybody."
  }
}

run "a_key_cannot_vanish_within_a_week" {
  command = plan

  variables {
    deletion_window_days = 6
  }

  expect_failures = [var.deletion_window_days]
}
