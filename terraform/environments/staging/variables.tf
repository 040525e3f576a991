variable "account_ids" {
  description = "AWS accounts in which this may be applied; an apply anywhere else is refused. Null allows any"
  type        = list(string)
  default     = null
}

variable "zone_name" {
  description = "Public Route 53 zone of the account"
  type        = string
}

variable "domain_name" {
  description = "Name that clients call, inside zone_name"
  type        = string
}

variable "alarm_emails" {
  description = "Addresses that are told of alarms; each must confirm once"
  type        = list(string)
  default     = []
}

variable "administrator_role_arns" {
  description = "IAM roles that administer the Kubernetes clusters"
  type        = list(string)
  default     = []
}

variable "github" {
  description = "Repository and environment whose workflows get roles; null makes none"
  type = object({
    repository      = string
    environment     = string
    create_provider = optional(bool, true)
  })
  default = null
}

variable "state" {
  description = "Where this root's state is: bucket and key of terraform/bootstrap. With `github`, it makes the read-only role of the drift check; null makes none"
  type = object({
    bucket_name = string
    kms_key_arn = string
  })
  default = null
}

variable "cost_center" {
  description = "Who pays; a tag on everything"
  type        = string
  default     = "payments"
}

variable "rotate_immediately" {
  description = "Rotate passwords as soon as the schedule exists; set it once sql/roles.sql has run"
  type        = bool
  default     = false
}

variable "security_enabled" {
  description = "CloudTrail and GuardDuty in this account; off where production's or an organisation's cover it"
  type        = bool
  default     = true
}
