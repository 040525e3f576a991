# One secret per role of the database, copied to the other region, and rotated.
#
# No password is in a plan or in the state: each is generated while applying and written once
# (secret_string_wo). Who needs one reads the secret.

locals {
  roles = {
    master = { username = var.database.master_username, alternates = false }
    # Owns the tables. With two users each would own the partitions that it made, so one user.
    owner = { username = "engine_owner", alternates = false }
    # Two users take turns (NAME and NAME_clone): the former password goes on working until the next
    # rotation, so an engine that reconnects in that moment is never locked out.
    app  = { username = "engine_app", alternates = true }
    read = { username = "engine_read", alternates = true }
  }

  # AWS forgets a version that has lost its last label, which a second rotation brings about. Terraform would
  # find its version gone and put a password in force that the database does not know: the label of its own
  # keeps it.
  stages = ["AWSCURRENT", "MADE_BY_TERRAFORM"]

  engine_roles = { for role, value in local.roles : role => value if role != "master" }
}

resource "aws_secretsmanager_secret" "this" {
  for_each = local.roles

  #checkov:skip=CKV2_AWS_57: rotated by aws_secretsmanager_secret_rotation below, unless rotation_days is 0
  name                    = "${var.name}/database/${each.key}"
  description             = "PostgreSQL role ${each.value.username}"
  kms_key_id              = var.data_kms_key_arn
  recovery_window_in_days = var.recovery_window_days

  dynamic "replica" {
    for_each = var.replicas

    content {
      region     = replica.key
      kms_key_id = replica.value.kms_key_arn
    }
  }
}

ephemeral "aws_secretsmanager_random_password" "this" {
  for_each = local.engine_roles

  password_length     = 40
  exclude_punctuation = true
}

ephemeral "aws_secretsmanager_secret_version" "seed" {
  secret_id = var.database.seed_secret_id
}

# The fields are those that AWS's rotation functions read.
resource "aws_secretsmanager_secret_version" "master" {
  secret_id = aws_secretsmanager_secret.this["master"].id
  secret_string_wo = jsonencode({
    engine   = "postgres"
    host     = var.database.host
    port     = var.database.port
    dbname   = var.database.name
    username = local.roles.master.username
    password = ephemeral.aws_secretsmanager_secret_version.seed.secret_string
  })
  secret_string_wo_version = 1 # later passwords are the rotation's
  version_stages           = local.stages

  lifecycle {
    ignore_changes = [version_stages] # a rotation takes AWSCURRENT on
  }
}

resource "aws_secretsmanager_secret_version" "role" {
  for_each = local.engine_roles

  secret_id = aws_secretsmanager_secret.this[each.key].id
  secret_string_wo = jsonencode({
    engine    = "postgres"
    host      = var.database.host
    port      = var.database.port
    dbname    = var.database.name
    username  = each.value.username
    password  = ephemeral.aws_secretsmanager_random_password.this[each.key].random_password
    masterarn = aws_secretsmanager_secret.this["master"].arn
  })
  secret_string_wo_version = var.password_version
  version_stages           = local.stages

  lifecycle {
    ignore_changes = [version_stages]
  }
}
