output "regions" {
  description = "Of each region: cluster, roles, edge, cache, buckets, bastion, alarm topic"
  value       = module.deployment.regions
}

output "primary_region" {
  description = "Region that started as the primary"
  value       = module.deployment.primary_region
}

output "secondary_region" {
  description = "The other region; null without one"
  value       = module.deployment.secondary_region
}

output "domain_name" {
  description = "Name that clients call"
  value       = module.deployment.domain_name
}

output "zone" {
  description = "Route 53 zone"
  value       = module.deployment.zone
}

output "health_check_ids" {
  description = "Route 53's health check of each region"
  value       = module.deployment.health_check_ids
}

output "database" {
  description = "Writer's endpoint, clusters, readers"
  value       = module.deployment.database
}

output "secret_names" {
  description = "Secrets by use"
  value       = module.deployment.secret_names
}

output "global_datastore_id" {
  description = "ElastiCache's global datastore; null without one"
  value       = module.deployment.global_datastore_id
}

output "failover_functions" {
  description = "The function of each region that promotes it"
  value       = module.deployment.failover_functions
}

output "backups" {
  description = "Buckets of logical backups, and vaults of snapshots"
  value       = module.deployment.backups
}

output "image_repositories" {
  description = "Where images are pushed to"
  value       = module.deployment.image_repositories
}

output "ci_role_arns" {
  description = "Roles of the pipeline"
  value       = module.deployment.ci_role_arns
}
