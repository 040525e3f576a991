output "releases" {
  description = "Chart and version of every release"
  value       = { for name, release in merge(helm_release.first, helm_release.second, helm_release.third) : name => "${release.chart} ${release.version}" }
}

output "namespace" {
  description = "The engine's namespace, once it is made"
  value       = var.namespace

  depends_on = [helm_release.joints]
}
