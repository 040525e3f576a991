# Once per account, with local state: the bucket that every other root keeps its state in.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

variable "bucket_name" {
  description = "Bucket of Terraform's state; S3 shares one name space among all accounts"
  type        = string
}

variable "region" {
  description = "Region of the bucket, as in the roots' backend blocks"
  type        = string
  default     = "us-east-1"
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project   = "terraform-state"
      ManagedBy = "terraform"
    }
  }
}

module "state" {
  source = "../modules/state"

  bucket_name = var.bucket_name
}

output "bucket_name" {
  description = "For `terraform init -backend-config=bucket=...`"
  value       = module.state.bucket_name
}

output "kms_key_arn" {
  description = "Key of the state, for the roots' variable `state`"
  value       = module.state.kms_key_arn
}
