variable "name" {
  description = "Prefix of the names, such as engine-production; with the account's number it makes the buckets' names"
  type        = string
}

variable "primary" {
  description = "Region that backups are made in, its key, and the database cluster there"
  type = object({
    region      = string
    kms_key_arn = string
    cluster_arn = string
  })
}

variable "secondary" {
  description = "Region that backups are copied to, and its key"
  type = object({
    region      = string
    kms_key_arn = string
  })

  validation {
    condition     = var.secondary.region != var.primary.region
    error_message = "A copy in the same region is lost with it."
  }
}

variable "lock_days" {
  description = "Days in which nobody can delete a backup in S3; 0 switches the lock off. It cannot be shortened later"
  type        = number
  default     = 35
}

variable "keep_days" {
  description = "Days that snapshots and logical backups are kept"
  type        = number
  default     = 35

  validation {
    condition     = 7 <= var.keep_days && var.lock_days <= var.keep_days
    error_message = "keep_days is 7 or more and no shorter than lock_days."
  }
}

variable "monthly_keep_days" {
  description = "Days that the first snapshot of each month is kept; retention for accounting"
  type        = number
  default     = 400

  validation {
    condition     = var.keep_days <= var.monthly_keep_days
    error_message = "monthly_keep_days is no shorter than keep_days."
  }
}

variable "alarm_topic_arns" {
  description = "Topic that is told of failed backups, per region"
  type = object({
    primary   = string
    secondary = string
  })
}

variable "force_destroy" {
  description = "Let terraform destroy delete backups; for trial environments only"
  type        = bool
  default     = false
}
