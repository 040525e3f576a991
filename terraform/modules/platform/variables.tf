variable "cluster_name" {
  description = "EKS cluster that the helm provider speaks to"
  type        = string
}

variable "region" {
  description = "Region of the cluster"
  type        = string
}

variable "vpc_id" {
  description = "VPC of the cluster"
  type        = string
}

variable "role_arns" {
  description = "Roles of service accounts, as the module cluster-roles puts them out"
  type = object({
    load_balancer = string
    external_dns  = string
    autoscaler    = string
    loki          = string
  })
}

variable "target_group_arn" {
  description = "Target group of the edge, in which the gateway's pods are registered"
  type        = string
}

variable "zone_name" {
  description = "DNS zone that external-dns may write to"
  type        = string
}

variable "log_bucket_name" {
  description = "Bucket of Loki's chunks"
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of the engine; made here, because the pipeline may only act inside it"
  type        = string
  default     = "engine"
}

variable "gateway_replicas" {
  description = "Least number of gateway pods"
  type        = number
  default     = 3

  validation {
    condition     = 2 <= var.gateway_replicas
    error_message = "gateway_replicas is 2 or more: one alone is a gap at every node that is replaced."
  }
}

variable "chart_versions" {
  description = "Versions of the charts, in place of those pinned in the module"
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for version in values(var.chart_versions) : can(regex("^v?[0-9]+\\.[0-9]+\\.[0-9]+$", version))])
    error_message = "A chart's version is exact, such as 1.28.0."
  }
}

variable "values_dir" {
  description = "Folder with one NAME.yaml per release"
  type        = string
}
