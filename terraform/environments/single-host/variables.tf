variable "region" {
  description = "Region of the machine"
  type        = string
  default     = "us-east-1"
}

variable "account_ids" {
  description = "AWS accounts in which this may be applied; null allows any"
  type        = list(string)
  default     = null
}

variable "domain_name" {
  description = "Name that clients call; its certificate is the playbook's"
  type        = string
}

variable "zone_name" {
  description = "Route 53 zone that gets the record; null where DNS is elsewhere"
  type        = string
  default     = null
}

variable "repository_url" {
  description = "Git repository that holds ops/ansible"
  type        = string
}

variable "repository_ref" {
  description = "Commit (40 digits) or version tag that is installed"
  type        = string
}

variable "client_cidrs" {
  description = "Who may move money: the engine asks nobody who they are. Others get 403"
  type        = list(string)
}

variable "instance_type" {
  description = "Size of the machine, an ARM type"
  type        = string
  default     = "m7g.large"
}

variable "data_gib" {
  description = "Size of the ledger's disk"
  type        = number
  default     = 100
}
