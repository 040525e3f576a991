# Every resource says whose it is and what it belongs to: costs are told apart by these tags.
locals {
  tags = {
    Project     = local.name
    Environment = "staging"
    ManagedBy   = "terraform"
    CostCenter  = var.cost_center
  }
}

provider "aws" {
  alias               = "primary"
  region              = local.regions.primary
  allowed_account_ids = var.account_ids

  default_tags {
    tags = local.tags
  }
}

provider "aws" {
  alias               = "secondary"
  region              = local.regions.secondary
  allowed_account_ids = var.account_ids

  default_tags {
    tags = local.tags
  }
}
