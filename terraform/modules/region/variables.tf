variable "name" {
  description = "Name of the deployment, such as engine-production"
  type        = string
}

variable "region" {
  description = "Region that the provider stands in"
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC, a /16"
  type        = string
}

variable "peer_cidr" {
  description = "Addresses of the other region; null without one"
  type        = string
  default     = null
}

variable "domain_name" {
  description = "Name that clients call"
  type        = string
}

variable "zone" {
  description = "Route 53 zone of that name"
  type = object({
    id   = string
    arn  = string
    name = string
  })
}

variable "size" {
  description = "What grows with load: NAT, node pools, cache, and what the alarms compare with"
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
  description = "Kubernetes: version, add-on versions, who may enter, and whether the API server has a public address"
  type = object({
    version             = string
    addon_versions      = optional(map(string), {})
    administrators      = optional(list(string), [])
    deployers           = optional(list(string), [])
    public_access_cidrs = optional(list(string), [])
  })
}

variable "auth_token" {
  description = "Password of the cache"
  type        = string
  sensitive   = true
}

variable "global_datastore_suffix" {
  description = "Makes this region's cache the primary of a global datastore"
  type        = string
  default     = null
}

variable "global_database" {
  description = "Whether the database belongs to a global one"
  type        = bool
}

variable "edge_prefix_lists" {
  description = "Prefix lists that may reach the load balancer, instead of everybody"
  type        = list(string)
  default     = []
}

variable "alarm_emails" {
  description = "Addresses that are told"
  type        = list(string)
  default     = []
}

variable "protected" {
  description = "Refuse to delete what holds data or serves, and keep what destroy would delete"
  type        = bool
}
