# The second step, once the clusters stand: what an empty cluster needs before the engine. A root of its
# own, because a provider cannot be set up from a cluster that the same apply makes.

locals {
  name        = "engine-production"
  account_id  = data.aws_caller_identity.this.account_id
  role_prefix = "arn:${data.aws_partition.this.partition}:iam::${local.account_id}:role/${local.name}"
}

data "aws_caller_identity" "this" {
  provider = aws.primary
}

data "aws_partition" "this" {
  provider = aws.primary
}
