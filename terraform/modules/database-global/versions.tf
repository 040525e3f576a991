terraform {
  # 1.11 is the first with write-only arguments and with S3's own state locking.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}
