# What ties the regions' clusters together: one writer, storage replicated to the other region, and an
# endpoint that always leads to whichever cluster is the writer.

resource "aws_rds_global_cluster" "this" {
  global_cluster_identifier = var.name
  engine                    = "aurora-postgresql"
  engine_version            = var.engine_version
  database_name             = var.database_name
  storage_encrypted         = true
  deletion_protection       = var.deletion_protection
}
