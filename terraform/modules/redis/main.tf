# ElastiCache for balances. It decides nothing: a lost, wiped or lagging cache costs latency only, so
# there is no backup, and memory that runs out evicts.

resource "aws_elasticache_subnet_group" "this" {
  name        = var.name
  description = "Database subnets of ${var.name}"
  subnet_ids  = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "this" {
  count = var.is_copy ? 0 : 1

  name        = var.name
  family      = "redis7"
  description = "Cache of ${var.name}"

  parameter {
    name  = "maxmemory-policy"
    value = "allkeys-lru" # every entry can be had from PostgreSQL again
  }

  parameter {
    name  = "timeout"
    value = "0" # the engine keeps one connection open
  }
}

resource "aws_cloudwatch_log_group" "slow" {
  name              = "/elasticache/${var.name}/slow"
  retention_in_days = 365
  kms_key_id        = var.logs_kms_key_arn
}

resource "aws_elasticache_replication_group" "this" {
  #checkov:skip=CKV2_AWS_50: on wherever there is more than one node
  #checkov:skip=CKV_AWS_191: the key is given; a copy in a global datastore must not repeat the primary's
  replication_group_id = var.name
  description          = "Balances of ${var.name}"

  # What a copy inherits from its global datastore must be left out of it.
  engine               = var.is_copy ? null : "redis"
  engine_version       = var.is_copy ? null : var.engine_version
  node_type            = var.is_copy ? null : var.node_type
  parameter_group_name = var.is_copy ? null : aws_elasticache_parameter_group.this[0].name

  global_replication_group_id = var.is_copy ? var.global_datastore_id : null
  num_cache_clusters          = var.node_count
  automatic_failover_enabled  = 1 < var.node_count
  multi_az_enabled            = 1 < var.node_count

  subnet_group_name  = aws_elasticache_subnet_group.this.name
  security_group_ids = [var.security_group_id]
  port               = 6379

  at_rest_encryption_enabled = var.is_copy ? null : true
  kms_key_id                 = var.data_kms_key_arn
  transit_encryption_enabled = var.is_copy ? null : true
  transit_encryption_mode    = var.is_copy ? null : "required"
  auth_token                 = var.auth_token
  auth_token_update_strategy = "ROTATE" # the former token goes on working until the change is confirmed

  auto_minor_version_upgrade = true
  maintenance_window         = "sun:08:00-sun:09:00"
  snapshot_retention_limit   = 0
  apply_immediately          = var.apply_immediately

  log_delivery_configuration {
    destination      = aws_cloudwatch_log_group.slow.name
    destination_type = "cloudwatch-logs"
    log_format       = "json"
    log_type         = "slow-log"
  }

  lifecycle {
    # Rotation happens outside (ops/drills/aws/rotate_credentials.sh); a failover of a global datastore
    # swaps roles; its version and node type are the datastore's.
    ignore_changes = [auth_token, global_replication_group_id, engine_version, node_type, num_cache_clusters]
  }
}

resource "aws_elasticache_global_replication_group" "this" {
  count = var.global_datastore_suffix == null ? 0 : 1

  global_replication_group_id_suffix   = var.global_datastore_suffix
  global_replication_group_description = "Balances, copied to the other region"
  primary_replication_group_id         = aws_elasticache_replication_group.this.id

  lifecycle {
    ignore_changes = [primary_replication_group_id]
  }
}
