variable "name" {
  description = "Name of the access control list"
  type        = string
}

variable "scope" {
  description = "REGIONAL for load balancers, CLOUDFRONT for distributions (only in us-east-1)"
  type        = string
  default     = "REGIONAL"

  validation {
    condition     = contains(["REGIONAL", "CLOUDFRONT"], var.scope)
    error_message = "scope is REGIONAL or CLOUDFRONT."
  }
}

variable "rate_limit" {
  description = "Requests of one address in 5 minutes, past which it is blocked until it slows down. Clients are services, so it is far above a browser's"
  type        = number
  default     = 300000

  validation {
    condition     = var.rate_limit == null || try(10 <= var.rate_limit && var.rate_limit <= 2000000000, false)
    error_message = "rate_limit is null, or 10 to 2,000,000,000: WAF's own bounds."
  }
}

variable "count_only" {
  description = "Managed rule groups that only count, to watch a new one before it blocks: common, bad-inputs, sql-injection, reputation"
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for group in var.count_only : contains(["common", "bad-inputs", "sql-injection", "reputation"], group)])
    error_message = "count_only holds common, bad-inputs, sql-injection and reputation."
  }
}

variable "logs_kms_key_arn" {
  description = "Key of WAF's log"
  type        = string
}

variable "log_retention_days" {
  description = "Days that WAF's log is kept"
  type        = number
  default     = 365
}
