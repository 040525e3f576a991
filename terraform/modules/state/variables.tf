variable "bucket_name" {
  description = "Bucket of Terraform's state"
  type        = string
}

variable "name" {
  description = "Alias of its key"
  type        = string
  default     = "terraform-state"
}
