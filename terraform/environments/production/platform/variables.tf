variable "zone_name" {
  description = "Public Route 53 zone of the account"
  type        = string
}

variable "account_ids" {
  description = "AWS accounts in which this may be applied; null allows any"
  type        = list(string)
  default     = null
}

variable "kubernetes_hosts" {
  description = "Address of each region's API server where it is reached through a tunnel, such as {\"us-east-1\" = \"https://localhost:8443\"}"
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for host in values(var.kubernetes_hosts) : startswith(host, "https://")])
    error_message = "kubernetes_hosts are https addresses."
  }
}
