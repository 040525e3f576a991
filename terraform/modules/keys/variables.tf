variable "name" {
  description = "Prefix of the key aliases, such as engine-production"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,40}$", var.name))
    error_message = "name is 3 to 41 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "deletion_window_days" {
  description = "Days in which a deletion of a key can be taken back; without its key a backup is lost"
  type        = number
  default     = 30

  validation {
    condition     = 7 <= var.deletion_window_days && var.deletion_window_days <= 30
    error_message = "deletion_window_days is 7 to 30."
  }
}
