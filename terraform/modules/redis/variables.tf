variable "name" {
  description = "Identifier of the replication group, at most 40 characters"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "name is at most 40 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "node_type" {
  description = "Size of each node; a global datastore needs an m or r type"
  type        = string
  default     = "cache.t4g.small"
}

variable "node_count" {
  description = "Primary and replicas, in different zones"
  type        = number
  default     = 2

  validation {
    condition     = 1 <= var.node_count && var.node_count <= 6
    error_message = "node_count is 1 to 6."
  }
}

variable "engine_version" {
  description = "Redis version"
  type        = string
  default     = "7.1"
}

variable "subnet_ids" {
  description = "Database subnets"
  type        = list(string)
}

variable "security_group_id" {
  description = "Group of the cache tier"
  type        = string
}

variable "data_kms_key_arn" {
  description = "Key of data at rest"
  type        = string
}

variable "logs_kms_key_arn" {
  description = "Key of the slow log"
  type        = string
}

variable "auth_token" {
  description = "Password that every client sends; 16 to 128 characters"
  type        = string
  sensitive   = true

  validation {
    condition     = can(regex("^[A-Za-z0-9]{16,128}$", var.auth_token))
    error_message = "auth_token is 16 to 128 letters and digits, so that a URL needs no escapes."
  }
}

variable "global_datastore_suffix" {
  description = "Makes this group the primary of a global datastore of that name; null does not"
  type        = string
  default     = null

  validation {
    condition     = var.global_datastore_suffix == null || !can(regex("^cache\\.t", var.node_type))
    error_message = "A global datastore needs an m or r node type, such as cache.r7g.large."
  }
}

variable "is_copy" {
  description = "Makes this group a read-only copy within a global datastore"
  type        = bool
  default     = false

  validation {
    condition     = !var.is_copy || var.global_datastore_suffix == null
    error_message = "A group is the primary of a global datastore or a copy in one, not both."
  }
}

variable "global_datastore_id" {
  description = "The global datastore that a copy belongs to; known only after its primary stands, hence is_copy"
  type        = string
  default     = null
}

variable "apply_immediately" {
  description = "Change nodes at once and not in the next maintenance window"
  type        = bool
  default     = false
}
