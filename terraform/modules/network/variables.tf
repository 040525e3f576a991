variable "name" {
  description = "Prefix of every name, such as engine-production-us-east-1"
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC, a /16; must not overlap with the peer region's"
  type        = string

  validation {
    condition     = can(cidrnetmask(var.cidr)) && endswith(var.cidr, "/16")
    error_message = "cidr is an IPv4 network of 16 bits, such as 10.10.0.0/16."
  }
}

variable "zone_count" {
  description = "Availability zones that are used"
  type        = number
  default     = 3

  validation {
    condition     = 2 <= var.zone_count && var.zone_count <= 3
    error_message = "zone_count is 2 or 3: Aurora and load balancers need two, and the plan of addresses holds three."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone (survives the loss of one) or a single one (a third of the cost)"
  type        = bool
  default     = true
}

variable "peer_cidr" {
  description = "Addresses of the peer region's VPC, whose engines write to this region's database; null without a peer"
  type        = string
  default     = null

  validation {
    condition     = var.peer_cidr == null || can(cidrnetmask(var.peer_cidr))
    error_message = "peer_cidr is an IPv4 network."
  }
}

variable "gateway_port" {
  description = "Port of Istio's gateway pods that the load balancer sends requests to, by TLS"
  type        = number
  default     = 443
}

variable "gateway_health_port" {
  description = "Port of the gateway pods' own health page"
  type        = number
  default     = 15021
}

variable "interface_endpoints" {
  description = "AWS services that are reached inside the VPC and not through NAT"
  type        = set(string)
  default     = ["ecr.api", "ecr.dkr", "kms", "logs", "secretsmanager", "ssm", "ssmmessages", "sts"]
}

variable "cluster_name" {
  description = "EKS cluster whose load balancers may use the subnets (discovery tags)"
  type        = string
}

variable "logs_kms_key_arn" {
  description = "Key of the flow logs"
  type        = string
}

variable "data_kms_key_arn" {
  description = "Key of the bastion's disk"
  type        = string
}

variable "log_retention_days" {
  description = "Days that flow logs are kept"
  type        = number
  default     = 365
}

variable "bastion_enabled" {
  description = "A small machine without any open port, reached by Session Manager, for psql and kubectl"
  type        = bool
  default     = true
}

variable "bastion_instance_type" {
  description = "Size of the bastion; an ARM type"
  type        = string
  default     = "t4g.micro"
}

variable "edge_prefix_lists" {
  description = "AWS-managed prefix lists that may reach the load balancer, instead of everybody; with CloudFront: its origin-facing list and Route 53's health checkers. Together they count as 80 rules, so raise the quota of rules per group (L-0EA8095F, 60) first"
  type        = list(string)
  default     = []
}
