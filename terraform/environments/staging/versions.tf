terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.7"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.7"
    }
  }

  # The bucket is this account's own: terraform init -backend-config=bucket=NAME
  backend "s3" {
    key          = "engine/staging.tfstate"
    region       = "us-east-1"
    encrypt      = true
    use_lockfile = true # S3 locks the state itself; no table is needed
  }
}
