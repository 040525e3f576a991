variable "name" {
  description = "Prefix of the names"
  type        = string
}

variable "domain_name" {
  description = "Name that clients call"
  type        = string
}

variable "origin_name" {
  description = "Name behind which both regions' load balancers stand (latency or failover records)"
  type        = string

  validation {
    condition     = var.origin_name != var.domain_name
    error_message = "The origin needs a name of its own: CloudFront would call itself."
  }
}

variable "zone_id" {
  description = "Route 53 zone of the names"
  type        = string
}

variable "waf_rate_limit" {
  description = "Requests of one address in 5 minutes, past which it is blocked"
  type        = number
  default     = 300000
}

variable "logs_kms_key_arn" {
  description = "Key of WAF's log, in us-east-1"
  type        = string
}
