variable "name" {
  description = "Prefix of the names, such as engine-production-us-west-2"
  type        = string
}

variable "global_cluster_id" {
  description = "The global database"
  type        = string
}

variable "global_cluster_arn" {
  description = "ARN of the global database"
  type        = string
}

variable "own" {
  description = "The region that is promoted: the provider's own"
  type = object({
    region      = string
    cluster_arn = string
  })
}

variable "peer" {
  description = "The other region: its cluster, the address that tells its health, and what the fence is made of"
  type = object({
    region          = string
    cluster_arn     = string
    health_url      = string
    subnet_ids      = list(string)
    subnet_arns     = list(string)
    serving_acl_id  = string
    serving_acl_arn = string
    fence_acl_id    = string
    fence_acl_arn   = string
  })

  validation {
    condition     = startswith(var.peer.health_url, "https://")
    error_message = "peer.health_url is an https address."
  }
}

variable "automatic" {
  description = "Let the alarm call the function, and not only people. It still refuses whatever needs a confirmation"
  type        = bool
  default     = false
}

variable "unhealthy_minutes" {
  description = "Minutes of a failing writer region until the alarm"
  type        = number
  default     = 5

  validation {
    condition     = 3 <= var.unhealthy_minutes && var.unhealthy_minutes <= 60
    error_message = "unhealthy_minutes is 3 to 60: a failover within a region takes Aurora up to two minutes and mends itself."
  }
}

variable "lag_seconds_max" {
  description = "Replication lag past which a person must accept the loss"
  type        = number
  default     = 5

  validation {
    condition     = 0 < var.lag_seconds_max
    error_message = "lag_seconds_max is above 0."
  }
}

variable "alarm_topic_arn" {
  description = "Topic of this region that is told what happened"
  type        = string
}

variable "logs_kms_key_arn" {
  description = "Key of the function's log"
  type        = string
}

variable "events_kms_key_arn" {
  description = "Key of the alarm topic"
  type        = string
}
