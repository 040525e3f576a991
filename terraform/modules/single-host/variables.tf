variable "name" {
  description = "Name of everything"
  type        = string
  default     = "engine-single"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}$", var.name))
    error_message = "name is 3 to 31 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "cidr" {
  description = "Addresses of the VPC"
  type        = string
  default     = "10.30.0.0/24"

  validation {
    condition     = can(cidrnetmask(var.cidr))
    error_message = "cidr is an IPv4 network."
  }
}

variable "client_cidrs" {
  description = "Who may move money: the engine asks nobody who they are. Others get 403"
  type        = list(string)

  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for cidr in var.client_cidrs : can(cidrnetmask(cidr))])
    error_message = "client_cidrs are IPv4 networks, at least one: whoever is in one may move money."
  }
}

variable "instance_type" {
  description = "Size of the machine, an ARM type; PostgreSQL, Redis and the engine share it"
  type        = string
  default     = "m7g.large"

  validation {
    condition     = can(regex("^[a-z][0-9][a-z]*g[a-z]*\\.", var.instance_type))
    error_message = "instance_type is an ARM (Graviton) type such as m7g.large: the image is for ARM."
  }
}

variable "ami_parameter" {
  description = "Public parameter that names the image: Debian 12 for ARM"
  type        = string
  default     = "/aws/service/debian/release/12/latest/arm64"
}

variable "root_gib" {
  description = "Size of the system disk"
  type        = number
  default     = 20
}

variable "data_gib" {
  description = "Size of the ledger's disk, which outlives the machine"
  type        = number
  default     = 100

  validation {
    condition     = 20 <= var.data_gib
    error_message = "data_gib is 20 or more."
  }
}

variable "data_iops" {
  description = "Operations per second of the ledger's disk; every commit waits for one of its writes"
  type        = number
  default     = 6000

  validation {
    condition     = 3000 <= var.data_iops && var.data_iops <= 16000
    error_message = "data_iops is 3,000 to 16,000."
  }
}

variable "repository_url" {
  description = "Git repository that holds ops/ansible; https"
  type        = string

  validation {
    condition     = startswith(var.repository_url, "https://")
    error_message = "repository_url starts with https://."
  }
}

variable "repository_ref" {
  description = "Commit or tag that is installed; a commit's 40 digits leave nothing to chance"
  type        = string

  validation {
    condition     = can(regex("^([0-9a-f]{40}|v[0-9]+\\.[0-9]+\\.[0-9]+)$", var.repository_ref))
    error_message = "repository_ref is a commit (40 hexadecimal digits) or a version tag such as v1.2.3, never a branch."
  }
}

variable "ansible_variables" {
  description = "Variables of the playbook, such as the domain; no secrets: user data can be read by the machine's users"
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.ansible_variables) : can(regex("^[a-z_][a-z0-9_]*$", name)) && !can(regex("password|secret|token", name))])
    error_message = "Names are Ansible variables; secrets do not belong into user data."
  }
}

variable "snapshot_keep_days" {
  description = "Days that daily snapshots of the ledger's disk are kept"
  type        = number
  default     = 7

  validation {
    condition     = 7 <= var.snapshot_keep_days
    error_message = "snapshot_keep_days is 7 or more."
  }
}

variable "alarm_topic_arn" {
  description = "Topic that is told when the machine fails its checks; null tells nobody"
  type        = string
  default     = null
}

variable "termination_protection" {
  description = "Refuse to terminate the machine"
  type        = bool
  default     = true
}
