variable "name" {
  description = "Prefix of the names; also the value of the tag Project that is watched"
  type        = string
}

variable "monthly_budget_usd" {
  description = "What a month may cost; told at 80 %, at 100 %, and when the forecast passes it"
  type        = number

  validation {
    condition     = 0 < var.monthly_budget_usd
    error_message = "monthly_budget_usd is above 0."
  }
}

variable "anomaly_usd" {
  description = "Least impact of an anomaly that is told"
  type        = number
  default     = 100
}

variable "topic_arn" {
  description = "Topic in us-east-1 that is told"
  type        = string
}
