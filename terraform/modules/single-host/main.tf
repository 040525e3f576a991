# One machine with everything on it, for small ledgers and for trying out. It is reached on port 443 and,
# by administrators, through Session Manager; there is no other way in.

data "aws_availability_zones" "this" {
  #checkov:skip=CKV_AWS_394: zones are taken from the front of a sorted list, so a new one at its end changes nothing

  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_partition" "this" {}
data "aws_region" "this" {}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11: one machine, which logs its own connections

  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.name }
}

resource "aws_subnet" "this" {
  vpc_id                  = aws_vpc.this.id
  cidr_block              = var.cidr
  availability_zone       = data.aws_availability_zones.this.names[0]
  map_public_ip_on_launch = false # the one address is given below

  tags = { Name = var.name }
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.name }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.this.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "this" {
  subnet_id      = aws_subnet.this.id
  route_table_id = aws_route_table.this.id
}

resource "aws_security_group" "this" {
  name        = var.name
  description = "HTTPS in; packages, Git and Session Manager out"
  vpc_id      = aws_vpc.this.id

  tags = { Name = var.name }
}

# Open to all, for the certificate's authority comes from anywhere; whom the proxy does not let pass gets 403.
resource "aws_vpc_security_group_ingress_rule" "https" {
  security_group_id = aws_security_group.this.id
  description       = "clients, and the certificate authority"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# Debian's mirrors are signed but not all encrypted, hence port 80.
resource "aws_vpc_security_group_egress_rule" "out" {
  for_each = { http = 80, https = 443 }

  security_group_id = aws_security_group.this.id
  description       = "packages, Git, Session Manager"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}

module "keys" {
  source = "../keys"

  name = var.name
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "this" {
  name               = var.name
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy_attachment" "this" {
  role       = aws_iam_role.this.name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "this" {
  name = var.name
  role = aws_iam_role.this.name
}

data "aws_ssm_parameter" "ami" {
  name = var.ami_parameter
}

locals {
  user_data = templatefile("${path.module}/user_data.sh.tftpl", {
    region         = data.aws_region.this.region
    repository_url = var.repository_url
    repository_ref = var.repository_ref
    variables_json = jsonencode(merge({ engine_client_cidrs = join(",", var.client_cidrs) }, var.ansible_variables))
    # AWS's name for the disk, by which the machine finds it whatever the kernel calls it.
    data_volume_id = aws_ebs_volume.data.id
  })
}

resource "aws_instance" "this" {
  ami                         = data.aws_ssm_parameter.ami.insecure_value
  instance_type               = var.instance_type
  subnet_id                   = aws_subnet.this.id
  vpc_security_group_ids      = [aws_security_group.this.id]
  iam_instance_profile        = aws_iam_instance_profile.this.name
  ebs_optimized               = true
  monitoring                  = true
  disable_api_termination     = var.termination_protection
  user_data                   = local.user_data
  user_data_replace_on_change = false # a new version is installed by running the playbook again (README)

  metadata_options {
    http_tokens                 = "required" # IMDSv2
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_size = var.root_gib
    volume_type = "gp3"
    encrypted   = true
    kms_key_id  = module.keys.arns["data"]
  }

  tags = { Name = var.name }

  lifecycle {
    # A newer image is taken when the machine is replaced on purpose.
    ignore_changes = [ami]
  }
}

resource "aws_ebs_volume" "data" {
  #checkov:skip=CKV2_AWS_9: backup.tf takes daily snapshots by the tag Backup

  availability_zone = aws_subnet.this.availability_zone
  size              = var.data_gib
  type              = "gp3"
  iops              = var.data_iops
  throughput        = 250
  encrypted         = true
  kms_key_id        = module.keys.arns["data"]
  final_snapshot    = true

  tags = {
    Name   = "${var.name}-data"
    Backup = var.name
  }
}

resource "aws_volume_attachment" "data" {
  device_name                    = "/dev/sdf"
  volume_id                      = aws_ebs_volume.data.id
  instance_id                    = aws_instance.this.id
  stop_instance_before_detaching = true
}

resource "aws_eip" "this" {
  domain   = "vpc"
  instance = aws_instance.this.id

  tags = { Name = var.name }

  depends_on = [aws_internet_gateway.this]
}
