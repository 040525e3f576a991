variable "name" {
  description = "Prefix of the names"
  type        = string
}

variable "cloudtrail_enabled" {
  description = "Record every call of the AWS API, in all regions; off where an organisation's trail does it"
  type        = bool
  default     = true
}

variable "guardduty_enabled" {
  description = "Watch for intruders in this region; off where an organisation's detector does it"
  type        = bool
  default     = true
}

variable "trail_kms_key_arn" {
  description = "Key of the trail"
  type        = string
}

variable "logs_kms_key_arn" {
  description = "Key of the trail's log group"
  type        = string
}

variable "alarm_topic_arn" {
  description = "Topic that is told of GuardDuty's findings"
  type        = string
}

variable "trail_keep_days" {
  description = "Days that the trail is kept"
  type        = number
  default     = 400
}

variable "finding_severity_min" {
  description = "Least severity of a finding that alarms (GuardDuty: 4 medium, 7 high)"
  type        = number
  default     = 4
}

variable "force_destroy" {
  description = "Let terraform destroy delete the trail's bucket; for trial environments only"
  type        = bool
  default     = false
}
