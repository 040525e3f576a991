variable "name" {
  description = "Identifier of the global database"
  type        = string
}

variable "engine_version" {
  description = "Aurora PostgreSQL version of all members; raised here, never in a member"
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

variable "deletion_protection" {
  description = "Refuse to delete the global database"
  type        = bool
  default     = true
}
