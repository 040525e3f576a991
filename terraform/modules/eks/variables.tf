variable "name" {
  description = "Name of the cluster"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,60}$", var.name))
    error_message = "name is 3 to 61 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes version; upgrade one minor version at a time, with kube-proxy, before AWS's standard support ends (1.35: March 2027)"
  type        = string
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version is like 1.35."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the control plane's interfaces and of the nodes"
  type        = list(string)
}

variable "node_security_group_id" {
  description = "The tier's group, attached to every node beside EKS's own"
  type        = string
}

variable "bastion_security_group_id" {
  description = "Group that may reach the API server"
  type        = string
}

variable "data_kms_key_arn" {
  description = "Key of Kubernetes secrets and of the nodes' disks"
  type        = string
}

variable "logs_kms_key_arn" {
  description = "Key of the control plane's log"
  type        = string
}

variable "public_access_cidrs" {
  description = "Networks that reach the API server over the internet; empty keeps it inside the VPC"
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.public_access_cidrs, "0.0.0.0/0") && alltrue([for cidr in var.public_access_cidrs : can(cidrnetmask(cidr))])
    error_message = "public_access_cidrs are IPv4 networks, and never 0.0.0.0/0."
  }
}

variable "administrator_role_arns" {
  description = "IAM roles that administer the cluster; whoever created it has no rights by that"
  type        = list(string)
  default     = []
}

variable "deployer_role_arns" {
  description = "IAM roles that may change the engine's namespace and nothing else, such as the pipeline's"
  type        = list(string)
  default     = []
}

variable "namespace" {
  description = "Kubernetes namespace of the engine"
  type        = string
  default     = "engine"
}

variable "node_pools" {
  description = "Managed node groups. A spot pool is tainted spot=true:NoSchedule, so that only what tolerates an eviction runs there"
  type = map(object({
    instance_types = list(string)
    spot           = optional(bool, false)
    size_min       = number
    size_max       = number
    size_start     = number
    disk_gib       = optional(number, 50)
  }))

  validation {
    condition     = alltrue([for pool in var.node_pools : 0 <= pool.size_min && pool.size_min <= pool.size_start && pool.size_start <= pool.size_max])
    error_message = "Each pool needs 0 <= size_min <= size_start <= size_max."
  }

  validation {
    condition     = anytrue([for pool in var.node_pools : !pool.spot])
    error_message = "One pool must not be spot: the engine runs there."
  }

  validation {
    condition     = alltrue([for pool in var.node_pools : !pool.spot || 2 <= length(pool.instance_types)])
    error_message = "A spot pool needs two instance types or more: one type alone runs out at once."
  }
}

variable "addon_versions" {
  description = "Versions of EKS add-ons by name, in place of those pinned in addons.tf; `aws eks describe-addon-versions --kubernetes-version` lists what fits"
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.addon_versions) : contains(["vpc-cni", "kube-proxy", "coredns", "aws-ebs-csi-driver"], name)])
    error_message = "Add-ons are vpc-cni, kube-proxy, coredns and aws-ebs-csi-driver."
  }
}

variable "log_retention_days" {
  description = "Days that the control plane's log (audit included) is kept"
  type        = number
  default     = 365
}

variable "deletion_protection" {
  description = "Refuse to delete the cluster"
  type        = bool
  default     = true
}
