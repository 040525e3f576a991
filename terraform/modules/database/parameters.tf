# The settings that the engine's guarantees rest on, and those that make trouble visible.
# Everything else keeps Aurora's default.

locals {
  family = "aurora-postgresql${split(".", var.engine_version)[0]}"

  cluster_parameters = merge(
    {
      # An acknowledged transfer is durable. It is the default; it is written out so that nobody
      # loosens it for a benchmark and forgets.
      synchronous_commit = { value = "on" }
      "rds.force_ssl"    = { value = var.force_ssl ? "1" : "0" }

      # The engine sets 5 s for itself; this bounds everyone else, who could hold accounts locked.
      idle_in_transaction_session_timeout = { value = "60000" }

      log_connections            = { value = "1" }
      log_disconnections         = { value = "1" }
      log_lock_waits             = { value = "1" }
      log_min_duration_statement = { value = "1000" } # milliseconds: a healthy commit takes a few
      log_statement              = { value = "ddl" }  # data statements would log amounts
      track_io_timing            = { value = "1" }
      shared_preload_libraries   = { value = "pg_stat_statements", reboot = true }
    },
    var.global_rpo_seconds == null ? {} : { "rds.global_db_rpo" = { value = tostring(var.global_rpo_seconds) } },
  )
}

resource "aws_rds_cluster_parameter_group" "this" {
  name_prefix = "${var.name}-"
  family      = local.family
  description = "Ledger of ${var.name}"

  dynamic "parameter" {
    for_each = local.cluster_parameters

    content {
      name         = parameter.key
      value        = parameter.value.value
      apply_method = try(parameter.value.reboot, false) ? "pending-reboot" : "immediate"
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

# Nothing differs per instance. Of our own all the same, because the default group cannot be changed
# without replacing it, and that restarts the writer.
resource "aws_db_parameter_group" "this" {
  name_prefix = "${var.name}-"
  family      = local.family
  description = "Instances of ${var.name}"

  lifecycle {
    create_before_destroy = true
  }
}
