variable "name" {
  description = "Name of the deployment, such as engine-production; part of every name"
  type        = string

  validation {
    # engine-production-us-east-1 must fit into 40 characters, the shortest limit (ElastiCache).
    condition     = can(regex("^[a-z][a-z0-9-]{2,27}$", var.name))
    error_message = "name is 3 to 28 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "regions" {
  description = "Where: the primary, and the secondary or null. The providers must stand there"
  type = object({
    primary   = object({ name = string, cidr = string })
    secondary = optional(object({ name = string, cidr = string }))
  })

  validation {
    condition     = var.regions.secondary == null || try(var.regions.secondary.name != var.regions.primary.name && var.regions.secondary.cidr != var.regions.primary.cidr, true)
    error_message = "The secondary region needs another name and other addresses."
  }

  validation {
    condition     = var.regions.primary.name == "us-east-1"
    error_message = "The primary region is us-east-1: Route 53's metrics, CloudFront's certificates and the bill live there, and their alarms with them."
  }
}

variable "domain_name" {
  description = "Name that clients call, inside zone_name"
  type        = string

  validation {
    condition     = endswith(var.domain_name, ".${var.zone_name}") || var.domain_name == var.zone_name
    error_message = "domain_name must lie in zone_name."
  }
}

variable "zone_name" {
  description = "Public Route 53 zone of this account"
  type        = string
}

variable "routing" {
  description = "latency (both regions serve) or failover (the secondary waits)"
  type        = string
  default     = "latency"
}

variable "cdn_enabled" {
  description = "CloudFront in front of the regions; only it may reach the load balancers then"
  type        = bool
  default     = false
}

variable "database" {
  description = "Aurora: version, class and number of instances in each region, serverless bounds, backups, rotation"
  type = object({
    engine_version      = optional(string, "16.8")
    instance_class      = string
    primary_instances   = number
    secondary_instances = optional(number, 0)
    serverless_capacity = optional(object({ min = number, max = number }), { min = 0.5, max = 8 })
    backup_days         = optional(number, 7)
    global_rpo_seconds  = optional(number)
    force_ssl           = optional(bool, true)
    rotation_days       = optional(number, 30)
    rotate_immediately  = optional(bool, false)
  })
}

variable "size" {
  description = "What grows with load, in each region"
  type = object({
    nat_per_zone         = bool
    node_pools           = any
    cache_node_type      = string
    cache_nodes          = number
    database_connections = number
    bastion              = bool
  })
}

variable "cluster" {
  description = "Kubernetes: version, add-on versions, administrators' roles, public access"
  type = object({
    version             = optional(string, "1.35")
    addon_versions      = optional(map(string), {})
    administrators      = optional(list(string), [])
    public_access_cidrs = optional(list(string), [])
  })
  default = {}
}

variable "global_datastore_enabled" {
  description = "Copy the primary region's cache to the secondary as an ElastiCache global datastore (module redis says what it is good for)"
  type        = bool
  default     = false
}

variable "failover_automatic" {
  description = "Let the alarm in the secondary region call the failover function"
  type        = bool
  default     = false
}

variable "security" {
  description = "CloudTrail and GuardDuty, unless an organisation has them already"
  type = object({
    cloudtrail = optional(bool, true)
    guardduty  = optional(bool, true)
  })
  default = {}
}

variable "alarm_emails" {
  description = "Addresses that are told of alarms"
  type        = list(string)
  default     = []
}

variable "monthly_budget_usd" {
  description = "What a month may cost"
  type        = number
}

variable "sleep" {
  description = "When the environment sleeps: cron of five fields and a time zone; null never. Only without a secondary, for a member of a global database cannot be stopped"
  type = object({
    sleep     = string
    wake      = string
    time_zone = string
  })
  default = null

  validation {
    condition     = var.sleep == null || var.regions.secondary == null
    error_message = "A deployment with a secondary region does not sleep."
  }
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
  description = "Where the state of the root is: bucket, key of its encryption, object. With `github`, the role of the drift check reads it; null makes no such role"
  type = object({
    bucket_name = string
    kms_key_arn = string
    key         = string
  })
  default = null
}

variable "protected" {
  description = "Refuse to delete what holds data; false only for trial environments"
  type        = bool
  default     = true
}
