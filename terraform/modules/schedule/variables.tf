variable "name" {
  description = "Prefix of the names"
  type        = string
}

variable "autoscaling_groups" {
  description = "Node pools that sleep: name of the autoscaling group, and its sizes while awake, by a name known before apply"
  type = map(object({
    group_name = string
    size_min   = number
    size_max   = number
    size_start = number
  }))
}

variable "database_cluster_ids" {
  description = "Aurora clusters that sleep. A member of a global database cannot be stopped: give none of those"
  type        = list(string)

  validation {
    condition     = 0 < length(var.database_cluster_ids)
    error_message = "database_cluster_ids names one cluster or more."
  }
}

variable "alarm_names" {
  description = "Alarms of this region that tell nobody during the sleep, 100 at most"
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.alarm_names) <= 100
    error_message = "alarm_names are at most 100: CloudWatch takes no more in a call."
  }
}

variable "sleep" {
  description = "When to stop, as a cron expression of five fields"
  type        = string
  default     = "0 20 * * MON-FRI"

  validation {
    condition     = length(split(" ", var.sleep)) == 5
    error_message = "sleep has five fields: minute, hour, day, month, weekday."
  }
}

variable "wake" {
  description = "When to start again"
  type        = string
  default     = "0 7 * * MON-FRI"

  validation {
    condition     = length(split(" ", var.wake)) == 5
    error_message = "wake has five fields: minute, hour, day, month, weekday."
  }
}

variable "time_zone" {
  description = "Zone of both times"
  type        = string
  default     = "America/New_York"
}

variable "kms_key_arn" {
  description = "Key of the schedules' inputs; null uses AWS's"
  type        = string
  default     = null
}
