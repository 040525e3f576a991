variable "name" {
  description = "Prefix of the roles' names"
  type        = string
}

variable "repository" {
  description = "GitHub repository whose workflows may take the roles, as owner/name"
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", var.repository))
    error_message = "repository is owner/name, without wildcards."
  }
}

variable "environment" {
  description = "GitHub environment in which a job must run to deploy; its reviewers are the ones who approve"
  type        = string
}

variable "create_provider" {
  description = "Make the account's identity provider for GitHub; false where it exists already"
  type        = bool
  default     = true
}

variable "cluster_arns" {
  description = "EKS clusters that the deploy role may look up; what it may do inside is an access entry of `eks`"
  type        = list(string)
}

variable "image_repository_arns" {
  description = "ECR repositories that the images role may push to"
  type        = list(string)
}

variable "image_copy_arns" {
  description = "Copies of them in other regions, in which a deployment waits for an image"
  type        = list(string)
  default     = []
}

variable "state" {
  description = "Terraform's state: bucket, key of its encryption, object; for the drift check. null makes no role for it"
  type = object({
    bucket_name = string
    kms_key_arn = string
    key         = string
  })
  default = null
}

variable "plan_secrets" {
  description = "Secrets that a plan opens, their key and region; null where a plan opens none"
  type = object({
    arns        = list(string)
    kms_key_arn = string
    region      = string
  })
  default = null
}
