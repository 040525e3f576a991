variable "name" {
  description = "Name of the role"
  type        = string

  validation {
    condition     = length(var.name) <= 64
    error_message = "A role's name has at most 64 characters."
  }
}

variable "oidc" {
  description = "The cluster's identity provider, as the module eks puts it out"
  type = object({
    provider_arn = string
    issuer       = string
  })
}

variable "service_account" {
  description = "The one service account that may take the role, as namespace:name"
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9-]+:[a-z0-9-]+$", var.service_account))
    error_message = "service_account is namespace:name, without wildcards."
  }
}

variable "policy_json" {
  description = "What the role may do"
  type        = string
  default     = null
}

variable "policy_enabled" {
  description = "Whether policy_json is given; apart, because its text may be known only after apply"
  type        = bool
  default     = false
}

variable "managed_policy_arns" {
  description = "Policies of AWS's own, by a name of yours"
  type        = map(string)
  default     = {}
}
