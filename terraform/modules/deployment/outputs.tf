output "regions" {
  description = "Of each region: cluster, roles, edge, cache, buckets, bastion, alarm topic. Drills and the engine's chart read their targets here"
  value = { for region, module_of in merge({ (local.primary) = module.primary }, local.two ? { (coalesce(local.secondary, "none")) = module.secondary[0] } : {}) : region => {
    cluster           = module_of.cluster
    role_arns         = module_of.role_arns
    target_group_name = module_of.edge.target_group_name
    load_balancer     = module_of.edge.dns_name
    name              = "${region}.${var.domain_name}"
    health_url        = region == local.primary ? local.health_urls.of_primary : local.health_urls.of_secondary
    cache             = module_of.cache
    bucket_names      = module_of.bucket_names
    bastion_id        = module_of.network.bastion_id
    topic_arn         = module_of.topic_arn
    vpc_id            = module_of.network.vpc_id
    database_cidrs    = [for index in range(3) : cidrsubnet(module_of.network.cidr, 8, 112 + index)]
  } }
}

output "primary_region" {
  description = "Region that started as the primary"
  value       = local.primary
}

output "secondary_region" {
  description = "The other region; null without one"
  value       = local.secondary
}

output "domain_name" {
  description = "Name that clients call"
  value       = var.domain_name
}

output "zone" {
  description = "Route 53 zone"
  value       = local.zone
}

output "health_check_ids" {
  description = "Route 53's health check of each region"
  value       = module.dns.health_check_ids
}

output "database" {
  description = "The writer's endpoint for engines of both regions, the clusters, and each region's readers"
  value = {
    global_cluster_id = one(module.database_global[*].id)
    writer_endpoint   = local.writer_endpoint
    port              = module.database_primary.port
    name              = "ledger"
    clusters          = merge({ (local.primary) = module.database_primary.cluster_arn }, local.two ? { (coalesce(local.secondary, "none")) = module.database_secondary[0].cluster_arn } : {})
    reader_endpoints  = merge({ (local.primary) = module.database_primary.reader_endpoint }, local.two ? { (coalesce(local.secondary, "none")) = module.database_secondary[0].reader_endpoint } : {})
  }
}

output "secret_names" {
  description = "Secrets by use: master, owner, app, read, redis, loadtest; the same names in both regions"
  value       = merge(module.credentials.secret_names, { redis = aws_secretsmanager_secret.cache.name, loadtest = aws_secretsmanager_secret.loadtest.name })
}

output "global_datastore_id" {
  description = "ElastiCache's global datastore; null without one"
  value       = module.primary.global_datastore_id
}

output "failover_functions" {
  description = "The function of each region that promotes it"
  value       = local.two ? { (local.primary) = module.failover_primary[0].function_name, (coalesce(local.secondary, "none")) = module.failover_secondary[0].function_name } : {}
}

output "backups" {
  description = "Buckets of logical backups, and vaults of snapshots"
  value = local.two ? {
    buckets = { (local.primary) = module.backups[0].bucket_names.primary, (coalesce(local.secondary, "none")) = module.backups[0].bucket_names.secondary }
    vaults  = { (local.primary) = module.backups[0].vault_names.primary, (coalesce(local.secondary, "none")) = module.backups[0].vault_names.secondary }
    } : {
    buckets = { (local.primary) = module.backup_bucket[0].id }
    vaults  = {}
  }
}

output "image_repositories" {
  description = "Where images are pushed to"
  value       = module.registry.repository_urls
}

output "ci_role_arns" {
  description = "Roles of the pipeline; empty without GitHub"
  value       = var.github == null ? {} : module.ci_roles[0].role_arns
}
