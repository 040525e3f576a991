variable "name" {
  description = "Name of the peering"
  type        = string
}

variable "primary" {
  description = "VPC that asks: its id, addresses and the route tables that learn the way, by a name known before apply"
  type = object({
    vpc_id          = string
    cidr            = string
    route_table_ids = map(string)
  })
}

variable "secondary" {
  description = "VPC that accepts, in another region"
  type = object({
    vpc_id          = string
    cidr            = string
    region          = string
    route_table_ids = map(string)
  })

  validation {
    condition     = var.secondary.cidr != var.primary.cidr
    error_message = "Peered VPCs must not share addresses."
  }
}
