variable "name" {
  description = "Prefix of the health checks' names"
  type        = string
}

variable "zone_id" {
  description = "Route 53 zone"
  type        = string
}

variable "record_name" {
  description = "Name that leads to the regions"
  type        = string
}

variable "routing" {
  description = "latency: both regions serve, each client gets the nearer. failover: the secondary serves while the primary is unhealthy"
  type        = string
  default     = "latency"

  validation {
    condition     = contains(["latency", "failover"], var.routing)
    error_message = "routing is latency or failover."
  }
}

variable "regions" {
  description = "What stands in each region: its own name, and its load balancer. With routing = failover exactly one is primary"
  type = map(object({
    primary        = bool
    name           = string
    alias_dns_name = string
    alias_zone_id  = string
  }))

  validation {
    condition     = length([for region in var.regions : region if region.primary]) == 1
    error_message = "Exactly one region is the primary."
  }

  validation {
    condition     = length(distinct([for region in var.regions : region.name])) == length(var.regions)
    error_message = "Each region needs a name of its own."
  }
}

variable "health_path" {
  description = "Path that says whether a region can serve: the engine's verdict over its database"
  type        = string
  default     = "/health"

  validation {
    condition     = startswith(var.health_path, "/")
    error_message = "health_path starts with a slash."
  }
}

variable "failure_threshold" {
  description = "Failed checks in a row, 10 s apart, until a region counts as unhealthy"
  type        = number
  default     = 3

  validation {
    condition     = 1 <= var.failure_threshold && var.failure_threshold <= 10
    error_message = "failure_threshold is 1 to 10."
  }
}

variable "alarm_topic_arn" {
  description = "Topic in us-east-1 that is told of an unhealthy region; Route 53 has its metrics there only"
  type        = string
}
