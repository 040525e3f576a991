variable "name" {
  description = "Prefix of the names, such as engine-production-us-east-1"
  type        = string
}

variable "events_kms_key_arn" {
  description = "Key of the topic"
  type        = string
}

variable "emails" {
  description = "Addresses that are told; each confirms by a mail of AWS's. Pagers subscribe to the topic themselves"
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for email in var.emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "emails are mail addresses."
  }
}

variable "load_balancer" {
  description = "The load balancer and its target group as dimensions of metrics, and WAF's list"
  type = object({
    arn_suffix              = string
    target_group_arn_suffix = string
    waf_name                = string
  })
}

variable "database" {
  description = "The Aurora cluster: identifier, whether it belongs to a global database, most connections before an alarm, and free local storage in GiB under which it alarms"
  type = object({
    cluster_id           = string
    global               = bool
    connections_max      = number
    local_storage_gib    = optional(number, 5)
    replica_lag_ms       = optional(number, 1000)
    global_lag_ms        = optional(number, 5000)
    storage_gib_max      = optional(number, 1024)
    serverless_share_max = optional(number, 90)
  })
}

variable "cache_member_ids" {
  description = "Nodes of ElastiCache"
  type        = list(string)
}

variable "buckets" {
  description = "Buckets with request metrics: name, and size in GiB past which it alarms, by a name known before apply"
  type = map(object({
    name    = string
    gib_max = number
  }))
  default = {}
}

variable "cluster_name" {
  description = "EKS cluster, for the dashboard's title"
  type        = string
}

variable "latency_p99_seconds" {
  description = "99th percentile of answers at the load balancer past which it alarms"
  type        = number
  default     = 0.5

  validation {
    condition     = 0 < var.latency_p99_seconds && var.latency_p99_seconds <= 10
    error_message = "latency_p99_seconds is over 0 and at most the engine's request deadline, 10."
  }
}

variable "client_error_rate_max" {
  description = "4xx answers per minute past which it alarms; refused transfers (422) are among them"
  type        = number
  default     = 3000
}

variable "server_error_rate_max" {
  description = "5xx answers per minute past which it alarms; 503 while the engine is full are among them"
  type        = number
  default     = 50
}
