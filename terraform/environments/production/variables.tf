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

variable "routing" {
  description = "latency: both regions serve. failover: the secondary waits"
  type        = string
  default     = "latency"
}

variable "cdn_enabled" {
  description = "CloudFront in front of the regions"
  type        = bool
  default     = false
}

variable "global_datastore_enabled" {
  description = "Copy the primary's cache to the secondary region (modules/redis/README.md says what for)"
  type        = bool
  default     = true
}

variable "failover_automatic" {
  description = "Let the alarm in the secondary region call the failover function"
  type        = bool
  default     = false
}

variable "security_enabled" {
  description = "CloudTrail and GuardDuty in this account; off where an organisation's cover it"
  type        = bool
  default     = true
}

variable "global_rpo_seconds" {
  description = "Hold commits back while the secondary lags by more than this; null never does"
  type        = number
  default     = null
}

variable "protected" {
  description = "Refuse to delete what holds data; false only for a rehearsal in an account of its own"
  type        = bool
  default     = true
}
