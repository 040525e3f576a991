# The administrator's first password. RDS cannot manage it itself for a global database, so it is
# generated, kept in a secret first and read back from there: if an apply breaks off in between, the
# next one finds the same password. It is in no plan and no state (write-only and ephemeral).
# `credentials` makes the secret that people and rotation use; after the first rotation this one is history.

locals {
  seeds = var.member == "secondary" ? 0 : 1
}

ephemeral "aws_secretsmanager_random_password" "seed" {
  count = local.seeds

  password_length = 40
  # What a URL or PostgreSQL's connection string would have to escape.
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "seed" {
  count = local.seeds

  #checkov:skip=CKV2_AWS_57: it is used once; the secret of the module credentials is the one that rotates
  name        = "${var.name}/database/seed"
  description = "First password of the administrator; worthless after the first rotation"
  kms_key_id  = var.data_kms_key_arn

  # A name that waits for deletion cannot be taken again, so a trial environment deletes at once.
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "seed" {
  count = local.seeds

  secret_id                = aws_secretsmanager_secret.seed[0].id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.seed[0].random_password
  secret_string_wo_version = var.password_version
}

ephemeral "aws_secretsmanager_secret_version" "seed" {
  count = local.seeds

  secret_id = aws_secretsmanager_secret_version.seed[0].secret_id
}
