# AWS's own rotation functions, from its public repository of serverless applications.

data "aws_region" "this" {}
data "aws_partition" "this" {}

locals {
  kinds = var.rotation_days == 0 ? {} : {
    single      = "SecretsManagerRDSPostgreSQLRotationSingleUser"
    alternating = "SecretsManagerRDSPostgreSQLRotationMultiUser"
  }
}

resource "aws_serverlessapplicationrepository_cloudformation_stack" "rotation" {
  for_each = local.kinds

  name           = "${var.name}-rotation-${each.key}"
  application_id = "arn:${data.aws_partition.this.partition}:serverlessrepo:us-east-1:297356227824:applications/${each.value}"
  capabilities   = ["CAPABILITY_IAM", "CAPABILITY_RESOURCE_POLICY"]

  parameters = merge(
    {
      functionName        = "${var.name}-rotation-${each.key}"
      endpoint            = "https://secretsmanager.${data.aws_region.this.region}.amazonaws.com"
      vpcSubnetIds        = join(",", var.subnet_ids)
      vpcSecurityGroupIds = var.security_group_id
      kmsKeyArn           = var.data_kms_key_arn
      # Besides AWS's default, what a URL would have to escape.
      excludeCharacters = " !\"#$%&'()*+,/:;<=>?@[\\]^`{|}~"
    },
    each.key == "alternating" ? { masterSecretArn = aws_secretsmanager_secret.this["master"].arn } : {},
  )
}

resource "aws_secretsmanager_secret_rotation" "this" {
  for_each = var.rotation_days == 0 ? {} : local.roles

  secret_id           = aws_secretsmanager_secret.this[each.key].id
  rotation_lambda_arn = aws_serverlessapplicationrepository_cloudformation_stack.rotation[each.value.alternates ? "alternating" : "single"].outputs["RotationLambdaARN"]
  rotate_immediately  = var.rotate_immediately

  rotation_rules {
    automatically_after_days = var.rotation_days
  }

  depends_on = [aws_secretsmanager_secret_version.master, aws_secretsmanager_secret_version.role]
}
