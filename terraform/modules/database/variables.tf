variable "name" {
  description = "Identifier of the cluster, such as engine-production-us-east-1"
  type        = string
}

variable "member" {
  description = "What the cluster starts as: primary or secondary of a global database, or alone. A failover changes the role in AWS, not here"
  type        = string

  validation {
    condition     = contains(["primary", "secondary", "alone"], var.member)
    error_message = "member is primary, secondary or alone."
  }
}

variable "global_cluster_id" {
  description = "Global database to join; null only for member = alone"
  type        = string
  default     = null
}

variable "source_region" {
  description = "Region of the primary; for member = secondary"
  type        = string
  default     = null

  validation {
    condition     = (var.member == "secondary") == (var.source_region != null)
    error_message = "A secondary needs source_region, and only a secondary has one."
  }
}

variable "engine_version" {
  description = "Aurora PostgreSQL version that the cluster starts with"
  type        = string

  validation {
    condition     = can(regex("^1[5-9]\\.[0-9]+$", var.engine_version))
    error_message = "engine_version is a PostgreSQL version from 15 on, such as 16.8."
  }
}

variable "database_name" {
  description = "Database of the ledger"
  type        = string
  default     = "ledger"
}

variable "master_username" {
  description = "Administrator; the engine's own roles come from sql/roles.sql"
  type        = string
  default     = "administrator"
}

variable "password_version" {
  description = "Raise it to have Terraform make a new administrator password; rotation needs no Terraform"
  type        = number
  default     = 1
}

variable "subnet_ids" {
  description = "Database subnets"
  type        = list(string)
}

variable "security_group_id" {
  description = "Group of the database tier"
  type        = string
}

variable "data_kms_key_arn" {
  description = "Key of this region for storage, backups, secrets and performance data"
  type        = string
}

variable "logs_kms_key_arn" {
  description = "Key of the exported PostgreSQL log"
  type        = string
}

variable "instance_class" {
  description = "Size of each instance; a global database needs an r class or db.serverless"
  type        = string
  default     = "db.r8g.large"

  validation {
    condition     = can(regex("^db\\.(r[0-9]+[a-z]*\\.[0-9a-z]+|serverless)$", var.instance_class))
    error_message = "instance_class is db.r*.* or db.serverless: no other class can join a global database."
  }
}

variable "instance_count" {
  description = "Instances: the first is the writer where this cluster is the primary, the others are readers in other zones. 0 keeps a secondary's storage only"
  type        = number
  default     = 2

  validation {
    condition     = 0 <= var.instance_count && var.instance_count <= 15 && (var.member == "secondary" || 1 <= var.instance_count)
    error_message = "instance_count is 1 to 15; only a secondary can do without."
  }
}

variable "serverless_capacity" {
  description = "Bounds in Aurora capacity units (2 GiB of memory each) for db.serverless"
  type = object({
    min = number
    max = number
  })
  default = { min = 0.5, max = 8 }

  validation {
    condition     = 0 <= var.serverless_capacity.min && var.serverless_capacity.min <= var.serverless_capacity.max && var.serverless_capacity.max <= 256
    error_message = "serverless_capacity needs 0 <= min <= max <= 256."
  }
}

variable "backup_retention_days" {
  description = "Days to which point-in-time recovery reaches back"
  type        = number
  default     = 7

  validation {
    condition     = 7 <= var.backup_retention_days && var.backup_retention_days <= 35
    error_message = "backup_retention_days is 7 to 35."
  }
}

variable "global_rpo_seconds" {
  description = "Hold commits back while every secondary lags by more than this; null never does. It bounds what a region's loss can lose, at the price that a lost secondary stops the primary"
  type        = number
  default     = null

  validation {
    condition     = var.global_rpo_seconds == null || try(20 <= var.global_rpo_seconds, false)
    error_message = "global_rpo_seconds is null, or 20 and more."
  }
}

variable "force_ssl" {
  description = "Refuse connections without TLS"
  type        = bool
  default     = true
}

variable "apply_immediately" {
  description = "Change instances at once and not in the next maintenance window"
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Refuse to delete the cluster, and take a last snapshot if it is lifted"
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "Days that the exported PostgreSQL log is kept"
  type        = number
  default     = 365
}
