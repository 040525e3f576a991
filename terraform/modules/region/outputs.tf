output "key_arns" {
  description = "Keys of the region by purpose"
  value       = module.keys.arns
}

output "network" {
  description = "VPC, subnets, groups, route tables, access lists, bastion"
  value       = module.network
}

output "database_id" {
  description = "Identifier that the region's database cluster must have"
  value       = local.database_id
}

output "cluster" {
  description = "Name and address of the Kubernetes cluster, and the autoscaling group of each node pool"
  value = {
    name               = module.eks.name
    endpoint           = module.eks.endpoint
    autoscaling_groups = module.eks.autoscaling_group_names
  }
}

output "role_arns" {
  description = "Role of each service account; the engine's chart wants secrets and backup"
  value       = module.roles.arns
}

output "cache" {
  description = "The region's own cache, which the engine uses: rediss:// (TLS only), with the password in secret_names.redis"
  value = {
    id       = module.cache.id
    endpoint = module.cache.primary_endpoint
    port     = module.cache.port
  }
}

output "global_datastore_id" {
  description = "Global datastore whose primary this region's cache is; null otherwise"
  value       = module.cache.global_datastore_id
}

output "edge" {
  description = "The load balancer: names, target group, WAF"
  value       = module.edge
}

output "topic_arn" {
  description = "Topic of the region's alarms"
  value       = module.monitoring.topic_arn
}

output "alarm_names" {
  description = "Every alarm of the region, but those of DNS and failover"
  value       = module.monitoring.alarm_names
}

output "bucket_names" {
  description = "Buckets of Loki and of the load balancer's log"
  value       = { logs = module.logs.id, edge = module.edge_log.id }
}
