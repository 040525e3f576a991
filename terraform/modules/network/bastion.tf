# A machine to run psql and kubectl on. It has no key, no public address and no open port:
#
#   aws ssm start-session --target "$(terraform output -raw bastion_id)"

data "aws_ssm_parameter" "ami" {
  count = var.bastion_enabled ? 1 : 0
  name  = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
}

data "aws_iam_policy_document" "bastion_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_partition" "this" {}

resource "aws_iam_role" "bastion" {
  count = var.bastion_enabled ? 1 : 0

  name               = "${var.name}-bastion"
  assume_role_policy = data.aws_iam_policy_document.bastion_trust.json
}

resource "aws_iam_role_policy_attachment" "bastion" {
  count = var.bastion_enabled ? 1 : 0

  role       = aws_iam_role.bastion[0].name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "bastion" {
  count = var.bastion_enabled ? 1 : 0

  name = "${var.name}-bastion"
  role = aws_iam_role.bastion[0].name
}

resource "aws_instance" "bastion" {
  count = var.bastion_enabled ? 1 : 0

  ami                    = data.aws_ssm_parameter.ami[0].insecure_value
  instance_type          = var.bastion_instance_type
  subnet_id              = aws_subnet.private[local.zones[0]].id
  vpc_security_group_ids = [aws_security_group.this["bastion"].id]
  iam_instance_profile   = aws_iam_instance_profile.bastion[0].name
  ebs_optimized          = true
  monitoring             = true

  associate_public_ip_address = false

  metadata_options {
    http_tokens                 = "required" # IMDSv2: a forged request from the machine gets no credentials
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted  = true
    kms_key_id = var.data_kms_key_arn
  }

  tags = { Name = "${var.name}-bastion" }

  lifecycle {
    # A newer image is taken when the bastion is replaced on purpose, not in the middle of a session.
    ignore_changes = [ami]
  }
}
