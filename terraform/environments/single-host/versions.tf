terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }

  backend "s3" {
    key          = "engine/single-host.tfstate"
    region       = "us-east-1"
    encrypt      = true
    use_lockfile = true
  }
}
