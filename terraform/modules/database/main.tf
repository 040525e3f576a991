# The Aurora cluster of one region.
#
# Terraform makes it; which region writes is decided at run time (switchover, failover). So nothing
# here depends on the role once the cluster stands, and what a failover changes is ignored.

data "aws_partition" "this" {}

resource "aws_db_subnet_group" "this" {
  name        = var.name
  description = "Database subnets of ${var.name}"
  subnet_ids  = var.subnet_ids
}

resource "aws_cloudwatch_log_group" "postgresql" {
  name              = "/aws/rds/cluster/${var.name}/postgresql"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.logs_kms_key_arn
}

resource "aws_rds_cluster" "this" {
  #checkov:skip=CKV2_AWS_8: the module backups does
  #checkov:skip=CKV2_AWS_27: parameters.tf sets log_statement and log_min_duration_statement, in a dynamic block

  cluster_identifier        = var.name
  engine                    = "aurora-postgresql"
  engine_version            = var.engine_version
  global_cluster_identifier = var.global_cluster_id
  source_region             = var.source_region

  # A secondary has its database and its roles from the primary.
  database_name              = var.member == "secondary" ? null : var.database_name
  master_username            = var.member == "secondary" ? null : var.master_username
  master_password_wo         = var.member == "secondary" ? null : ephemeral.aws_secretsmanager_secret_version.seed[0].secret_string
  master_password_wo_version = var.member == "secondary" ? null : var.password_version

  # Commits never go through a secondary: forwarded writes know no row locks of ours across statements
  # in the way the engine counts on, and answer later. Engines connect to the writer themselves.
  enable_global_write_forwarding = false
  enable_local_write_forwarding  = false

  db_subnet_group_name            = aws_db_subnet_group.this.name
  vpc_security_group_ids          = [var.security_group_id]
  db_cluster_parameter_group_name = aws_rds_cluster_parameter_group.this.name
  network_type                    = "IPV4"

  storage_encrypted                   = true
  kms_key_id                          = var.data_kms_key_arn
  iam_database_authentication_enabled = true # people and the monitor; the engine uses passwords

  backup_retention_period      = var.backup_retention_days
  preferred_backup_window      = "05:00-06:00" # UTC: night in both regions
  preferred_maintenance_window = "sun:07:00-sun:08:00"
  copy_tags_to_snapshot        = true
  deletion_protection          = var.deletion_protection
  delete_automated_backups     = !var.deletion_protection
  skip_final_snapshot          = !var.deletion_protection
  final_snapshot_identifier    = var.deletion_protection ? "${var.name}-final" : null
  allow_major_version_upgrade  = false
  apply_immediately            = var.apply_immediately

  enabled_cloudwatch_logs_exports = ["postgresql"]

  dynamic "serverlessv2_scaling_configuration" {
    for_each = var.instance_class == "db.serverless" ? [var.serverless_capacity] : []

    content {
      min_capacity = serverlessv2_scaling_configuration.value.min
      max_capacity = serverlessv2_scaling_configuration.value.max
    }
  }

  lifecycle {
    precondition {
      condition     = (var.member == "alone") == (var.global_cluster_id == null)
      error_message = "A primary or secondary needs global_cluster_id, and a cluster that is alone has none."
    }

    ignore_changes = [
      # A switchover or failover swaps these between the regions.
      global_cluster_identifier, replication_source_identifier, source_region, database_name, master_username,
      # Upgrades go through the global database, which upgrades its members.
      engine_version,
    ]
  }

  depends_on = [aws_cloudwatch_log_group.postgresql]
}

resource "aws_rds_cluster_instance" "this" {
  count = var.instance_count

  identifier         = "${var.name}-${count.index + 1}"
  cluster_identifier = aws_rds_cluster.this.id
  engine             = aws_rds_cluster.this.engine
  instance_class     = var.instance_class

  db_parameter_group_name = aws_db_parameter_group.this.name
  publicly_accessible     = false
  # The first reader takes over within the region; equal in size, so that it can carry the load.
  promotion_tier             = min(count.index, 15)
  auto_minor_version_upgrade = true
  apply_immediately          = var.apply_immediately
  copy_tags_to_snapshot      = true

  performance_insights_enabled          = true
  performance_insights_kms_key_id       = var.data_kms_key_arn
  performance_insights_retention_period = 7 # the free tier
  monitoring_interval                   = 15
  monitoring_role_arn                   = aws_iam_role.monitoring.arn

  lifecycle {
    ignore_changes = [engine_version]
  }
}

data "aws_iam_policy_document" "monitoring_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["monitoring.rds.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "monitoring" {
  name               = "${var.name}-rds-monitoring"
  assume_role_policy = data.aws_iam_policy_document.monitoring_trust.json
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}
