output "name" {
  description = "Name of the cluster, once it can run pods"
  value       = aws_eks_cluster.this.name

  depends_on = [aws_eks_addon.after_nodes]
}

output "endpoint" {
  description = "URL of the API server"
  value       = aws_eks_cluster.this.endpoint
}

output "oidc" {
  description = "What `irsa` needs: ARN of the identity provider, and the issuer without its scheme"
  value       = local.oidc
}

output "autoscaling_group_names" {
  description = "Autoscaling group of each node pool, for schedules"
  value       = { for pool, group in aws_eks_node_group.this : pool => group.resources[0].autoscaling_groups[0].name }
}
