variable "name" {
  description = "Prefix of the names, such as engine-production-us-east-1; load balancers take 24 characters of it"
  type        = string
}

variable "vpc_id" {
  description = "VPC of the gateway's pods"
  type        = string
}

variable "subnet_ids" {
  description = "Public subnets"
  type        = list(string)
}

variable "security_group_id" {
  description = "Group of the edge tier"
  type        = string
}

variable "domain_name" {
  description = "Name that clients call, such as api.example.com"
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain_name))
    error_message = "domain_name is a host name, such as api.example.com."
  }
}

variable "regional_name" {
  description = "Name of this region alone, such as us-east-1.api.example.com; health checks ask it"
  type        = string
}

variable "zone_id" {
  description = "Route 53 zone in which the certificate is proved"
  type        = string
}

variable "gateway_port" {
  description = "TLS port of Istio's gateway pods"
  type        = number
  default     = 443
}

variable "gateway_health_port" {
  description = "Port of the gateway pods' own health page"
  type        = number
  default     = 15021
}

variable "idle_timeout_seconds" {
  description = "Seconds after which an idle connection is closed; longer than the engine's request deadline (10 s)"
  type        = number
  default     = 60

  validation {
    condition     = 30 <= var.idle_timeout_seconds && var.idle_timeout_seconds <= 4000
    error_message = "idle_timeout_seconds is 30 to 4000."
  }
}

variable "waf_rate_limit" {
  description = "Requests of one address in 5 minutes, past which it is blocked; null behind CloudFront, whose few addresses bring all clients"
  type        = number
  default     = 300000
}

variable "waf_count_only" {
  description = "WAF rule groups that only count"
  type        = set(string)
  default     = []
}

variable "logs_kms_key_arn" {
  description = "Key of WAF's log"
  type        = string
}

variable "log_bucket_name" {
  description = "Bucket that the load balancer's access log is written to"
  type        = string
}

variable "deletion_protection" {
  description = "Refuse to delete the load balancer"
  type        = bool
  default     = true
}
