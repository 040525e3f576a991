variable "name" {
  description = "Prefix of the secrets, such as engine-production: NAME/database/app and so on"
  type        = string
}

variable "database" {
  description = "Where the roles log in: host of the (global) writer, port, database, administrator and the secret with its first password"
  type = object({
    host            = string
    port            = number
    name            = string
    master_username = string
    seed_secret_id  = string
  })
}

variable "data_kms_key_arn" {
  description = "Key of the secrets in this region"
  type        = string
}

variable "replicas" {
  description = "Regions that get a copy of every secret, with the key there"
  type        = map(object({ kms_key_arn = string }))
  default     = {}
}

variable "rotation_days" {
  description = "Days between rotations; 0 switches them off"
  type        = number
  default     = 30

  validation {
    condition     = var.rotation_days == 0 || (1 <= var.rotation_days && var.rotation_days <= 365)
    error_message = "rotation_days is 0 to 365."
  }
}

variable "rotate_immediately" {
  description = "Rotate when the schedule is made. Off until the roles exist in the database (sql/roles.sql); switch it on afterwards"
  type        = bool
  default     = false
}

variable "password_version" {
  description = "Raise it to have Terraform make new passwords for the engine's roles; they must then be set in the database"
  type        = number
  default     = 1
}

variable "subnet_ids" {
  description = "Private subnets of the rotation functions"
  type        = list(string)
}

variable "security_group_id" {
  description = "Group that may reach the database and Secrets Manager"
  type        = string
}

variable "recovery_window_days" {
  description = "Days in which a deleted secret can be had back; 0 deletes at once, for trial environments"
  type        = number
  default     = 30
}
