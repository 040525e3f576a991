variable "cluster_name" {
  description = "EKS cluster; prefix of the roles' names"
  type        = string
}

variable "oidc" {
  description = "The cluster's identity provider"
  type = object({
    provider_arn = string
    issuer       = string
  })
}

variable "secret_arns" {
  description = "Secrets that the engine's namespace may read, and no others"
  type        = list(string)

  validation {
    condition     = 0 < length(var.secret_arns)
    error_message = "Name the secrets: an empty list would leave the engine without credentials."
  }
}

variable "data_kms_key_arn" {
  description = "Key of the secrets and the backups"
  type        = string
}

variable "zone_arn" {
  description = "Route 53 zone that external-dns may write to"
  type        = string
}

variable "log_bucket_arn" {
  description = "Bucket of Loki's chunks"
  type        = string
}

variable "backup_bucket_arn" {
  description = "Bucket of logical backups"
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of the engine"
  type        = string
  default     = "engine"
}
