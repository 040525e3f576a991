variable "name" {
  description = "Name of the bucket; S3 shares one name space among all accounts"
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "A bucket name has 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the objects; null uses S3's own (AES256), the only one that load balancer logs can be written with"
  type        = string
  default     = null
}

variable "lock_days" {
  description = "Days in which no version can be deleted or overwritten, by anyone (object lock, compliance mode); 0 switches the lock off"
  type        = number
  default     = 0

  validation {
    condition     = 0 <= var.lock_days && var.lock_days <= 3650
    error_message = "lock_days is 0 to 3650."
  }
}

variable "archive_after_days" {
  description = "Days until an object moves to Glacier Instant Retrieval; 0 never"
  type        = number
  default     = 0
}

variable "expire_after_days" {
  description = "Days until an object expires; 0 never"
  type        = number
  default     = 0

  validation {
    condition     = var.expire_after_days == 0 || var.lock_days <= var.expire_after_days
    error_message = "Objects must not expire while they are locked: expire_after_days is shorter than lock_days."
  }
}

variable "old_version_days" {
  description = "Days that a replaced or deleted version is kept"
  type        = number
  default     = 30
}

variable "extra_policy_json" {
  description = "Policy document with further statements, such as a log service that may write; null adds none"
  type        = string
  default     = null
}

variable "extra_policy_enabled" {
  description = "Whether extra_policy_json is given; apart, because its text may be known only after apply"
  type        = bool
  default     = false
}

variable "request_metrics_enabled" {
  description = "Publish AllRequests, 4xxErrors and the like to CloudWatch, as the alarms need them"
  type        = bool
  default     = false
}

variable "force_destroy" {
  description = "Let terraform destroy delete a bucket that is not empty; for trial environments only"
  type        = bool
  default     = false
}
