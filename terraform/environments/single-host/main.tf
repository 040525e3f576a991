# One machine, for small ledgers and for trying out.

provider "aws" {
  region              = var.region
  allowed_account_ids = var.account_ids

  default_tags {
    tags = {
      Project     = "engine-single"
      Environment = "single-host"
      ManagedBy   = "terraform"
    }
  }
}

module "single_host" {
  source = "../../modules/single-host"

  name           = "engine-single"
  repository_url = var.repository_url
  repository_ref = var.repository_ref
  client_cidrs   = var.client_cidrs
  instance_type  = var.instance_type
  data_gib       = var.data_gib

  ansible_variables = { engine_domain = var.domain_name }
}

resource "aws_route53_record" "this" {
  count = var.zone_name == null ? 0 : 1

  zone_id = data.aws_route53_zone.this[0].zone_id
  name    = var.domain_name
  type    = "A"
  ttl     = 60
  records = [module.single_host.public_ip]
}

data "aws_route53_zone" "this" {
  count = var.zone_name == null ? 0 : 1

  name         = var.zone_name
  private_zone = false
}
