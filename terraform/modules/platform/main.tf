# What an empty cluster needs before the engine: pinned charts, in the order in which they need each
# other. Their settings are in terraform/helm-values/NAME.yaml; here stands only what Terraform knows.

locals {
  istio      = "https://istio-release.storage.googleapis.com/charts"
  prometheus = "https://prometheus-community.github.io/helm-charts"

  charts = {
    load-balancer-controller = { namespace = "kube-system", repository = "https://aws.github.io/eks-charts", chart = "aws-load-balancer-controller", version = "1.13.4" }
    metrics-server           = { namespace = "kube-system", repository = "https://kubernetes-sigs.github.io/metrics-server/", chart = "metrics-server", version = "3.13.0" }
    cluster-autoscaler       = { namespace = "kube-system", repository = "https://kubernetes.github.io/autoscaler", chart = "cluster-autoscaler", version = "9.59.0" }
    kube-prometheus-stack    = { namespace = "monitoring", repository = local.prometheus, chart = "kube-prometheus-stack", version = "67.8.0" }
    prometheus-adapter       = { namespace = "monitoring", repository = local.prometheus, chart = "prometheus-adapter", version = "4.14.1" }
    loki                     = { namespace = "monitoring", repository = "https://grafana.github.io/helm-charts", chart = "loki", version = "6.29.0" }
    alloy                    = { namespace = "monitoring", repository = "https://grafana.github.io/helm-charts", chart = "alloy", version = "0.12.5" }
    istio-base               = { namespace = "istio-system", repository = local.istio, chart = "base", version = "1.29.2" }
    istiod                   = { namespace = "istio-system", repository = local.istio, chart = "istiod", version = "1.29.2" }
    istio-cni                = { namespace = "istio-system", repository = local.istio, chart = "cni", version = "1.29.2" }
    istio-ingress            = { namespace = "istio-ingress", repository = local.istio, chart = "gateway", version = "1.29.2" }
    external-secrets         = { namespace = "external-secrets", repository = "https://charts.external-secrets.io", chart = "external-secrets", version = "2.0.0" }
    external-dns             = { namespace = "external-dns", repository = "https://kubernetes-sigs.github.io/external-dns/", chart = "external-dns", version = "1.18.0" }
    argo-rollouts            = { namespace = "argo-rollouts", repository = "https://argoproj.github.io/argo-helm", chart = "argo-rollouts", version = "2.40.0" }
  }

  # Only what cannot stand in a file: names and ARNs of this cluster.
  known = {
    load-balancer-controller = { clusterName = var.cluster_name, region = var.region, vpcId = var.vpc_id, serviceAccount = { annotations = { "eks.amazonaws.com/role-arn" = var.role_arns.load_balancer } } }
    cluster-autoscaler       = { autoDiscovery = { clusterName = var.cluster_name }, awsRegion = var.region, rbac = { serviceAccount = { annotations = { "eks.amazonaws.com/role-arn" = var.role_arns.autoscaler } } } }
    external-dns             = { domainFilters = [var.zone_name], txtOwnerId = var.cluster_name, env = [{ name = "AWS_REGION", value = var.region }], serviceAccount = { annotations = { "eks.amazonaws.com/role-arn" = var.role_arns.external_dns } } }
    loki = {
      serviceAccount = { annotations = { "eks.amazonaws.com/role-arn" = var.role_arns.loki } }
      loki           = { storage = { type = "s3", bucketNames = { chunks = var.log_bucket_name, ruler = var.log_bucket_name, admin = var.log_bucket_name }, s3 = { region = var.region } } }
    }
    kube-prometheus-stack = { prometheus = { prometheusSpec = { externalLabels = { cluster = var.cluster_name, region = var.region } } } }
    istiod                = { meshConfig = { trustDomain = "cluster.local" }, global = { multiCluster = { clusterName = var.cluster_name } } }
    istio-ingress         = { autoscaling = { minReplicas = var.gateway_replicas } }
  }

  # Terraform wants the order as dependencies of resources, so each wave is a resource of its own:
  # 1 definitions and webhooks that others use, 2 what uses them (a chart that finds no definition of
  # ServiceMonitor leaves its own out without a word), 3 what needs the mesh.
  waves = {
    1 = ["load-balancer-controller", "metrics-server", "kube-prometheus-stack", "istio-base"]
    2 = ["istiod", "istio-cni", "external-secrets", "cluster-autoscaler", "external-dns", "loki", "prometheus-adapter", "argo-rollouts"]
    3 = ["istio-ingress", "alloy"]
  }
}

# What the charts stand on: a volume of kube-prometheus-stack or Loki binds to no class that is made after them.
resource "helm_release" "ground" {
  name      = "ground"
  namespace = "kube-system"
  chart     = "${path.module}/charts/ground"
  atomic    = true

  values = [yamlencode({ namespace = var.namespace })]
}

resource "helm_release" "first" {
  for_each = toset(local.waves[1])

  name             = each.key
  namespace        = local.charts[each.key].namespace
  repository       = local.charts[each.key].repository
  chart            = local.charts[each.key].chart
  version          = lookup(var.chart_versions, each.key, local.charts[each.key].version)
  values           = compact([file("${var.values_dir}/${each.key}.yaml"), try(yamlencode(local.known[each.key]), "")])
  create_namespace = true
  atomic           = true # a release that does not become ready is rolled back whole
  timeout          = 600
  max_history      = 5

  depends_on = [helm_release.ground]
}

resource "helm_release" "second" {
  for_each = toset(local.waves[2])

  name             = each.key
  namespace        = local.charts[each.key].namespace
  repository       = local.charts[each.key].repository
  chart            = local.charts[each.key].chart
  version          = lookup(var.chart_versions, each.key, local.charts[each.key].version)
  values           = compact([file("${var.values_dir}/${each.key}.yaml"), try(yamlencode(local.known[each.key]), "")])
  create_namespace = true
  atomic           = true
  timeout          = 600
  max_history      = 5

  depends_on = [helm_release.first]
}

resource "helm_release" "third" {
  for_each = toset(local.waves[3])

  name             = each.key
  namespace        = local.charts[each.key].namespace
  repository       = local.charts[each.key].repository
  chart            = local.charts[each.key].chart
  version          = lookup(var.chart_versions, each.key, local.charts[each.key].version)
  values           = compact([file("${var.values_dir}/${each.key}.yaml"), try(yamlencode(local.known[each.key]), "")])
  create_namespace = true
  atomic           = true
  timeout          = 600
  max_history      = 5

  depends_on = [helm_release.second]
}

# The joints between Terraform's part and the cluster's: gateway pods into the target group, a
# certificate for the gateway.
resource "helm_release" "joints" {
  name      = "joints"
  namespace = "istio-ingress"
  chart     = "${path.module}/charts/joints"
  atomic    = true

  values = [yamlencode({ targetGroupArn = var.target_group_arn })]

  depends_on = [helm_release.third]
}
