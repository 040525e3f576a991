"""Every rendering holds to every fact, and every fact notices the mistake it is for."""

import copy
import os
import pathlib
import re
import subprocess
import unittest

import yaml

import facts
import facts_delivery
import facts_metrics
import facts_tls
from objects import COMPONENT, RENDERED, ROOT, containers_of, load, name_of, named, template_of, without_hash, workloads

# Addresses in the database subnets of k8s/values: the writer in the other region, the cache in this one.
ADDRESSES = {
    "staging": ("10.40.112.10", "10.40.113.10"),
    "production-us-east-1": ("10.20.113.10", "10.10.113.10"),
    "production-us-west-2": ("10.10.114.10", "10.20.114.10"),
}
MESHED = ["staging", "production-us-east-1", "production-us-west-2"]
ALL = ["local", *MESHED]

EVERYWHERE = [
    facts.names_are_unique, facts.selectors_match, facts.ports_match, facts.probes_ask_the_admin_port, facts.grace_covers_the_drain,
    facts.references_exist, facts.replicas_and_budget, facts.quota_holds_everything, facts.jobs_agree_with_the_engines,
    facts.hooks_have_what_they_need, facts.pods_are_restricted, facts.settings_stay_with_their_version,
]  # fmt: skip
IN_THE_MESH = [
    facts.secrets_are_fetched, facts_delivery.routes_lead_somewhere, facts_delivery.retries_are_safe,
    facts_delivery.rollout_controls_the_route, facts_delivery.mesh_is_strict, facts_delivery.sidecars_leave_the_rest_alone,
    facts_tls.database_is_checked, facts_tls.redis_is_checked,
    facts_metrics.alerts_name_what_is_there, facts_metrics.monitor_finds_the_engines,
]  # fmt: skip


def page() -> facts_metrics.Page:
    """The metrics page of the running engine that `engine dev` started for this test."""
    url = os.environ["ENGINE_ADMIN_URL"] + "/metrics"
    return facts_metrics.Page(subprocess.run(["curl", "-fsS", url], check=True, capture_output=True, text=True).stdout)


class Renderings(unittest.TestCase):
    def test_hold_to_every_fact(self):
        for environment in ALL:
            for fact in EVERYWHERE + IN_THE_MESH * (environment in MESHED):
                with self.subTest(environment=environment, fact=fact.__name__):
                    self.assertEqual([], list(fact(load(environment))))

    def test_with_a_load_test_hold_to_every_fact(self):
        objects = load("staging", "loadtest-staging")
        for fact in EVERYWHERE + IN_THE_MESH:
            with self.subTest(fact=fact.__name__):
                self.assertEqual([], list(fact(objects)))

    def test_let_through_what_must_pass_and_nothing_else(self):
        for names in [[it] for it in ALL] + [["staging", "loadtest-staging"]]:
            with self.subTest(names=names):
                self.assertEqual([], list(facts_delivery.network_flows(load(*names), *ADDRESSES.get(names[0], ()))))

    def test_of_local_need_nothing_installed(self):
        self.assertEqual([], list(facts.is_core(load("local"))))

    def test_say_how_to_migrate_before_the_rollout_without_helm(self):
        """The head of a rendering: what goes first has all that the migration needs, and no engine."""
        for environment in MESHED:
            objects = load(environment)
            head = [it[1:].strip() for it in (RENDERED / f"{environment}.yaml").read_text().split("\n---\n")[0].splitlines()]
            _, first, authorities, wait, last = [it.split() for it in head if it.startswith(("kubectl", "curl"))]
            with self.subTest(environment=environment):
                self.assertEqual(["-l", "app.kubernetes.io/component!=server"], first[4:])
                self.assertEqual(first[:4], last)
                self.assertEqual(f"{environment}.yaml", pathlib.Path(last[-1]).name)
                before = [it for it in objects if it["metadata"].get("labels", {}).get(COMPONENT) != "server"]
                self.assertNotIn("engine", [name_of(it) for it in workloads(before)])
                job = named(before, "Job", wait[-1].removeprefix("job/"))
                volumes = template_of(job)["spec"]["volumes"]
                self.assertEqual([authorities[5]], [it["configMap"]["name"] for it in volumes])
                self.assertEqual(facts.MADE_BEFORE, {authorities[5]})
                self.assertEqual([], list(facts.references_exist(before)))
                # As in the whole: nobody is to depend on what comes after.
                self.assertEqual([], list(facts.hooks_have_what_they_need(before)))
                self.assertEqual("Namespace", objects[0]["kind"])

    def test_dump_with_tools_that_are_not_older_than_the_database(self):
        variables = (ROOT / "terraform/modules/deployment/variables.tf").read_text()
        server = int(re.search(r'engine_version\s*=\s*optional\(string, "(\d+)\.', variables)[1])
        for environment in MESHED:
            with self.subTest(environment=environment):
                self.assertEqual([], list(facts.tools_are_new_enough(load(environment), server)))
                self.assertNotEqual([], list(facts.tools_are_new_enough(load(environment), server + 1)))

    def test_ask_for_metrics_that_exist(self):
        metrics = page()
        for environment in MESHED:
            with self.subTest(environment=environment):
                self.assertEqual([], list(facts_metrics.metrics_exist(load(environment), metrics)))
                self.assertEqual([], list(facts_metrics.autoscaler_is_served(load(environment), metrics, self.adapter())))

    def adapter(self) -> dict | None:
        """What the platform serves to autoscalers, if this tree has the platform."""
        path = ROOT / "terraform/helm-values/prometheus-adapter.yaml"
        return yaml.safe_load(path.read_text()) if path.exists() else None

    def test_of_both_regions_have_the_same_objects(self):
        # Names are of contents, which the region is in: the image, the addresses.
        name = lambda it: without_hash(name_of(it))
        east, west = ({(it["kind"], name(it)) for it in load(f"production-{region}")} for region in ("us-east-1", "us-west-2"))
        self.assertEqual(east, west)


def edit(path: str, value):
    """A mistake: sets what `kind/name:a.b.0.c` names; None takes it away."""

    def apply(objects):
        where, keys = path.split(":")
        it = named(objects, *where.split("/"))
        *way, last = keys.split(".")
        for key in way:
            it = it[int(key)] if isinstance(it, list) else it[key.replace("~", ".")]
        last = int(last) if isinstance(it, list) else last.replace("~", ".")
        if value is None:
            del it[last]
        else:
            it[last] = value

    return apply


def fixed_names(objects):
    """As if the settings' name were not of what they say."""
    named(objects, "ConfigMap", "engine-settings")["metadata"]["name"] = "engine-settings"
    containers_of(facts.engine(objects))[0]["envFrom"][0]["configMapRef"]["name"] = "engine-settings"


POD = "spec.template.spec"
ENGINE = "Rollout/engine"
FIRST = f"{ENGINE}:{POD}.containers.0"
# (environment, the mistake, the fact that must notice, part of what it says)
PLANTED = [
    ("staging", lambda objects: objects.append(objects[-1]), facts.names_are_unique, "is there twice"),
    ("staging", edit("Service/engine:metadata.namespace", "default"), facts.names_are_unique, "in the namespace default"),
    ("staging", edit("CronJob/engine-verify:spec.jobTemplate.spec.template.metadata.labels.app~kubernetes~io/component", "check"), facts.jobs_agree_with_the_engines, "no job does verify"),
    ("staging", edit("Service/engine:spec.selector.app~kubernetes~io/component", "sever"), facts.selectors_match, "Service engine selects the pods of nothing"),
    ("staging", edit("Service/engine-admin:spec.selector", {"app.kubernetes.io/name": "engine"}), facts.selectors_match, "CronJob"),
    ("staging", edit(f"{ENGINE}:spec.selector.matchLabels.app~kubernetes~io/component", "x"), facts.selectors_match, "does not match its own pods"),
    ("staging", edit(f"{ENGINE}:spec.selector.matchLabels", {"app.kubernetes.io/name": "engine"}), facts.selectors_match, "takes the pods of"),
    ("staging", edit("NetworkPolicy/engine:spec.podSelector.matchLabels.app~kubernetes~io/component", "x"), facts.selectors_match, "selects no pod"),
    ("staging", edit("PodDisruptionBudget/engine:spec.selector.matchLabels.app~kubernetes~io/component", "x"), facts.selectors_match, "PodDisruptionBudget engine selects"),
    ("staging", edit(f"{ENGINE}:{POD}.topologySpreadConstraints.0.labelSelector.matchLabels.app~kubernetes~io/component", "x"), facts.selectors_match, "topology"),
    ("staging", edit("Service/engine:spec.ports.0.targetPort", "https"), facts.ports_match, "no port https"),
    ("staging", edit(f"{FIRST}.readinessProbe.httpGet.port", "metrics"), facts.ports_match, "readinessProbe asks the port metrics"),
    ("staging", edit("NetworkPolicy/engine:spec.ingress.0.ports.0.port", 5001), facts.ports_match, "opens 5001"),
    ("staging", edit(f"{FIRST}.readinessProbe.httpGet.path", "/ready"), facts.probes_ask_the_admin_port, "/ready"),
    ("staging", edit("ConfigMap/engine-settings:data.ENGINE_ADMIN_LISTEN", "0.0.0.0:9465"), facts.probes_ask_the_admin_port, "9465"),
    ("staging", edit(f"{ENGINE}:{POD}.terminationGracePeriodSeconds", 35), facts.grace_covers_the_drain, "killed after 35 s"),
    ("staging", edit(f"{FIRST}.lifecycle", None), facts.grace_covers_the_drain, "gets SIGTERM while"),
    ("staging", edit("ConfigMap/engine-settings:data.ENGINE_SHUTDOWN_GRACE", "60s"), facts.grace_covers_the_drain, "killed after"),
    ("staging", edit("ConfigMap/engine-settings:data.ENGINE_SHUTDOWN_DELAY", None), facts.grace_covers_the_drain, "does not wait"),
    ("staging", edit("ConfigMap/engine-settings:data.ENGINE_SHUTDOWN_DELAY", "25s"), facts.grace_covers_the_drain, "has 5 s to answer"),
    ("staging", edit(f"{FIRST}.envFrom.1.secretRef.name", "engine-ap"), facts.references_exist, "engine-ap is not there"),
    ("staging", edit("ExternalSecret/engine-owner:spec.target.template.data", {"URL": "{{ .username }}{{ .password }}"}), facts.references_exist, "has no ENGINE_DATABASE_URL"),
    ("staging", edit("ExternalSecret/engine-app:spec.data.1.secretKey", "pasword"), facts.references_exist, "pasword"),
    ("staging", edit(f"{ENGINE}:{POD}.serviceAccountName", "engin"), facts.references_exist, "runs as engin"),
    ("staging", edit("CronJob/engine-backup:spec.jobTemplate.spec.template.spec.volumes.1.persistentVolumeClaim.claimName", "x"), facts.references_exist, "no claim x"),
    ("staging", edit("ConfigMap/engine-settings:metadata.annotations", {}), facts.settings_stay_with_their_version, "is taken from the pods of the former version"),
    ("staging", edit("ExternalSecret/engine-app:metadata.annotations", {}), facts.settings_stay_with_their_version, "is taken from the pods of the former version"),
    ("local", edit("Secret/engine-app:metadata.annotations", {}), facts.settings_stay_with_their_version, "is taken from the pods of the former version"),
    ("staging", edit("ExternalSecret/engine-app:metadata.name", "engine-app"), facts.settings_stay_with_their_version, "a later one of the same name"),
    ("staging", fixed_names, facts.settings_stay_with_their_version, "ConfigMap engine-settings is overwritten"),
    ("staging", edit("ConfigMap/engine-settings:metadata.labels.engine-settings", None), facts.settings_stay_with_their_version, "take it for an old one"),
    ("staging", edit(f"{ENGINE}:spec.template.metadata.labels.engine-settings", "0a1b2c3d"), facts.settings_stay_with_their_version, "take it for an old one"),
    ("staging", edit("HorizontalPodAutoscaler/engine:spec.scaleTargetRef.kind", "Deployment"), facts.replicas_and_budget, "which is not Rollout"),
    ("staging", edit("HorizontalPodAutoscaler/engine:spec.metrics.0.containerResource.container", "app"), facts.replicas_and_budget, "requests no cpu"),
    ("staging", edit(f"{ENGINE}:spec.replicas", 3), facts.replicas_and_budget, "undo the autoscaler"),
    ("staging", edit("PodDisruptionBudget/engine:spec.maxUnavailable", 3), facts.replicas_and_budget, "lets none or all"),
    ("local", edit("Deployment/engine:spec.replicas", 2), facts.replicas_and_budget, "three zones"),
    ("staging", edit("ResourceQuota/engine:spec.hard.requests~cpu", "6"), facts.quota_holds_everything, "requests.cpu is 6"),
    ("staging", edit("ConfigMap/engine-settings:data.ENGINE_IDEMPOTENCY_RETENTION", "7d"), facts.jobs_agree_with_the_engines, "the engines use 7d"),
    ("staging", edit("ServiceAccount/engine-migrate:metadata.annotations", {}), facts.hooks_have_what_they_need, "runs before ServiceAccount engine-migrate"),
    ("staging", edit("NetworkPolicy/engine-migrate:metadata.annotations", {}), facts.hooks_have_what_they_need, "runs before NetworkPolicy"),
    ("staging", edit("NetworkPolicy/names:metadata.annotations", {"helm.sh/hook": "pre-upgrade"}), facts.hooks_have_what_they_need, "Rollout engine is cut off"),
    ("staging", edit("ServiceAccount/engine-jobs:metadata.annotations", {"helm.sh/hook": "pre-upgrade"}), facts.hooks_have_what_they_need, "CronJob engine-maintain needs it"),
    ("staging", edit("ExternalSecret/engine-owner:spec.target.creationPolicy", "Owner"), facts.hooks_have_what_they_need, "takes its Secret along"),
    ("staging", edit(f"{FIRST}.securityContext.capabilities.drop", ["NET_RAW"]), facts.pods_are_restricted, "keeps capabilities"),
    ("staging", edit(f"{FIRST}.image", "engine:latest"), facts.pods_are_restricted, "whatever is newest"),
    ("staging", edit(f"{ENGINE}:{POD}.securityContext.runAsNonRoot", False), facts.pods_are_restricted, "runAsNonRoot"),
    ("local", lambda objects: None, facts.secrets_are_fetched, "Secret engine-app"),
    ("local", lambda objects: objects.append(named(load("staging"), "ServiceMonitor", "engine")), facts.is_core, "has to be installed first"),
    ("local", edit("StatefulSet/redis:metadata.name", "cache"), facts.is_core, "no StatefulSet redis"),
    ("staging", edit("ExternalSecret/engine-app:spec.target.template.data.ENGINE_DATABASE_URL", "postgres://u:p@db/ledger"), facts_tls.database_is_checked, "engine takes whoever answers"),
    ("staging", edit("ExternalSecret/engine-read:spec.target.template.data.ENGINE_DATABASE_URL", "postgres://u:p@db/l?sslmode=require"), facts_tls.database_is_checked, "verify takes whoever answers"),
    ("staging", edit(f"{FIRST}.volumeMounts", []), facts_tls.database_is_checked, "engine knows no authorities for ENGINE_DATABASE_URL: nothing is mounted"),
    ("staging", edit(f"{ENGINE}:{POD}.volumes.0", {"name": "database-ca", "emptyDir": {}}), facts_tls.database_is_checked, "is not a ConfigMap"),
    ("staging", edit("CronJob/engine-maintain:spec.jobTemplate.spec.template.spec.containers.0.volumeMounts", []), facts_tls.database_is_checked, "maintain knows no authorities"),
    ("staging", edit("CronJob/engine-backup:spec.jobTemplate.spec.template.spec.initContainers.0.volumeMounts.3.mountPath", "/ca"), facts_tls.database_is_checked, "dump knows no authorities for PGHOST"),
    ("staging", lambda objects: containers_of(named(objects, "CronJob", "engine-backup"))[0]["env"].remove({"name": "PGSSLMODE", "value": "verify-full"}), facts_tls.database_is_checked, "PGHOST has sslmode None"),
    ("staging", edit("ExternalSecret/engine-app:metadata.name", "engine-ap"), facts_tls.redis_is_checked, "it is not named"),
    ("staging", edit("ExternalSecret/engine-app:spec.target.template.data.ENGINE_REDIS_URL", "redis://cache:6379/0"), facts_tls.redis_is_checked, "Redis is not asked"),
    ("staging", edit("VirtualService/engine:spec.http.0.route.0.destination.host", "engin"), facts_delivery.routes_lead_somewhere, "no Service's port"),
    ("staging", edit("VirtualService/engine:spec.http.2.route.0.destination.port.number", 9464), facts_delivery.routes_lead_somewhere, "no Service's port"),
    ("staging", edit("VirtualService/engine:spec.gateways.0", "egnine"), facts_delivery.routes_lead_somewhere, "no Gateway"),
    ("staging", edit("Gateway/engine:spec.servers.0.hosts.0", "engine.example.com"), facts_delivery.mesh_is_strict, "does not send"),
    ("staging", edit("DestinationRule/engine:spec.host", "x"), facts_delivery.routes_lead_somewhere, "which is no Service"),
    ("production-us-east-1", edit("VirtualService/engine:spec.http.0.route.0.weight", 90), facts_delivery.routes_lead_somewhere, "not 100"),
    ("staging", edit("VirtualService/engine:spec.http.2.retries", None), facts_delivery.retries_are_safe, "nothing says that it may be"),
    ("staging", edit("VirtualService/engine:spec.http.1.match.0.headers", {}), facts_delivery.retries_are_safe, "nothing says that it may be"),
    ("staging", edit("VirtualService/engine:spec.http.0.retries.retryOn", "5xx,reset"), facts_delivery.retries_are_safe, "because it is full"),
    ("staging", edit("VirtualService/engine:spec.http.2.timeout", "10s"), facts_delivery.retries_are_safe, "given up after 10s"),
    ("staging", edit("VirtualService/engine:spec.http.0.timeout", "13s"), facts_delivery.retries_are_safe, "no room"),
    ("staging", edit("ConfigMap/engine-settings:data.ENGINE_REQUEST_DEADLINE", "20s"), facts_delivery.retries_are_safe, "(21 s)"),
    ("staging", edit("DestinationRule/engine:spec.trafficPolicy.outlierDetection.consecutive5xxErrors", 5), facts_delivery.retries_are_safe, "leaves out engines"),
    ("production-us-east-1", edit(f"{ENGINE}:spec.strategy.canary.trafficRouting.istio.virtualService.routes", ["reads"]), facts_delivery.rollout_controls_the_route, "steers ['reads']"),
    ("production-us-east-1", edit(f"{ENGINE}:spec.strategy.canary.analysis.args.0.name", "hsh"), facts_delivery.rollout_controls_the_route, "the arguments ['hsh']"),
    ("production-us-east-1", edit(f"{ENGINE}:spec.strategy.canary.analysis.templates.0.templateName", "x"), facts_delivery.rollout_controls_the_route, "no AnalysisTemplate x"),
    ("production-us-east-1", edit(f"{ENGINE}:spec.strategy.canary.steps.3.pause.duration", "10s"), facts_delivery.rollout_controls_the_route, "the old version stays"),
    ("staging", edit(f"{ENGINE}:spec.strategy.blueGreen.previewService", "x"), facts_delivery.rollout_controls_the_route, "switches the Service x"),
    ("staging", edit(f"{ENGINE}:spec.strategy.blueGreen.scaleDownDelaySeconds", 30), facts_delivery.rollout_controls_the_route, "the old version stays 30 s"),
    ("staging", edit("PeerAuthentication/default:spec.mtls.mode", "PERMISSIVE"), facts_delivery.mesh_is_strict, "asks everybody"),
    ("staging", edit("AuthorizationPolicy/deny-by-default:spec", {"action": "ALLOW"}), facts_delivery.mesh_is_strict, "denies by default"),
    ("staging", edit("AuthorizationPolicy/engine-clients:spec.rules.0.from", None), facts_delivery.mesh_is_strict, "lets anybody in"),
    ("staging", edit("AuthorizationPolicy/engine-clients:spec.rules.0.to.0.operation.ports.0", "8080"), facts_delivery.mesh_is_strict, "opens 8080"),
    ("staging", edit("Gateway/engine:spec.servers.1.tls", None), facts_delivery.mesh_is_strict, "in the clear"),
    ("staging", edit("CronJob/engine-maintain:spec.jobTemplate.spec.template.metadata.labels.sidecar~istio~io/inject", None), facts_delivery.sidecars_leave_the_rest_alone, "never ends"),
    ("staging", edit(f"{ENGINE}:spec.template.metadata.annotations.traffic~sidecar~istio~io/excludeInboundPorts", "9090"), facts_delivery.sidecars_leave_the_rest_alone, "Prometheus"),
    ("staging", edit(f"{ENGINE}:spec.template.metadata.annotations.sidecar~istio~io/rewriteAppHTTPProbers", None), facts_delivery.sidecars_leave_the_rest_alone, "depend on their sidecars"),
    ("staging", edit(f"{ENGINE}:spec.template.metadata.annotations.traffic~sidecar~istio~io/excludeOutboundPorts", "5432"), facts_delivery.sidecars_leave_the_rest_alone, "on 6379 go by way"),
    ("staging", edit("ServiceMonitor/engine:spec.endpoints.0.port", "metrics"), facts_metrics.monitor_finds_the_engines, "reads the port metrics"),
    ("staging", edit("ServiceMonitor/engine:spec.selector.matchLabels", {"app.kubernetes.io/name": "engine"}), facts_metrics.monitor_finds_the_engines, "read once"),
    ("staging", edit("ServiceMonitor/engine:spec.podTargetLabels", []), facts_metrics.monitor_finds_the_engines, "version's hash"),
    ("staging", edit("Service/engine-admin:spec.publishNotReadyAddresses", False), facts_metrics.monitor_finds_the_engines, "hides the engines"),
    ("staging", edit("CronJob/engine-backup:metadata.name", "engine-dump"), facts_metrics.alerts_name_what_is_there, "no CronJob engine-backup"),
    ("staging", edit("CronJob/engine-verify:metadata.name", "verify"), facts_metrics.alerts_name_what_is_there, "no CronJob makes Jobs like"),
]  # fmt: skip


def flows(objects):
    return facts_delivery.network_flows(objects, *ADDRESSES["staging"])


def without_names(objects):
    """As in an upgrade from a release that has no policy `names` yet: the migration lives by its own."""
    without = [it for it in objects if name_of(it) != "names"]
    return [it for it in flows(without) if it.startswith("migrate")]


PLANTED += [
    ("staging", edit("NetworkPolicy/engine:spec.egress.1.to", [{"ipBlock": {"cidr": "10.99.0.0/16"}}]), flows, "server cannot reach Redis"),
    ("staging", edit("NetworkPolicy/engine:spec.egress.2.to.0.podSelector.matchLabels.app", "pilot"), flows, "server cannot reach istiod"),
    ("staging", edit("NetworkPolicy/engine-migrate:spec.egress.0.to", [{"podSelector": {}}]), without_names, "migrate cannot reach the name server"),
    ("staging", edit("NetworkPolicy/deny-by-default:spec.policyTypes", ["Egress"]), flows, "a stranger can reach a pod that is none of ours"),
    ("staging", edit("NetworkPolicy/engine:spec.egress.0.to.0.ipBlock.cidr", "10.99.0.0/16"), flows, "server cannot reach the database"),
    ("staging", edit("NetworkPolicy/engine:spec.ingress.0.from", []), flows, "a stranger can reach server on 5000"),
    ("staging", edit("NetworkPolicy/engine:spec.ingress.1.from.0.namespaceSelector.matchLabels.kubernetes~io/metadata~name", "prom"), flows, "Prometheus cannot reach server"),
    ("staging", edit("NetworkPolicy/engine-backup:spec.egress.0.to.0.ipBlock.except", []), flows, "backup can reach the node's credentials"),
    ("staging", edit("NetworkPolicy/engine-jobs:spec.podSelector.matchExpressions.0.values", ["migrate"]), flows, "maintain cannot reach the database"),
    ("staging", edit("NetworkPolicy/names:spec.egress.0.to.0.podSelector.matchLabels.k8s-app", "coredns"), flows, "cannot reach the name server"),
    ("staging", edit("NetworkPolicy/names:spec.egress.0.ports.0", None), flows, "cannot ask the name server by UDP"),
]


class Mistakes(unittest.TestCase):
    def test_are_noticed(self):
        for environment, mistake, fact, part in PLANTED:
            objects = copy.deepcopy(load(environment))
            before = list(fact(copy.deepcopy(objects)))
            mistake(objects)
            found = list(fact(objects))
            with self.subTest(fact=getattr(fact, "__name__", fact), part=part):
                if environment == "local" and fact is facts.secrets_are_fetched:
                    self.assertTrue(any(part in it for it in found), found)
                    continue
                self.assertEqual([], before)
                self.assertTrue(found and (part is None or any(part in it for it in found)), f"not noticed; found {found}")

    def test_are_planted_for_every_fact(self):
        self.assertEqual(set(), set(EVERYWHERE + IN_THE_MESH) - {fact for _, _, fact, _ in PLANTED})

    def test_in_queries_are_noticed(self):
        metrics = page()
        for query, part in [
            ("engine_qeue_depth > 1", "does not serve"),
            ('rate(engine_transfers_total{outcome="fialed"}[5m])', 'outcome="fialed"'),
            ('rate(engine_requests_total{code="500"}[5m])', "the label code"),
            ('rate(engine_requests_total{status=~"50.|6.."}[5m])', 'like "6.."'),
            ("sum by (engine_ready) (rate(enginee_requests_total[5m]))", "nobody serves"),
        ]:
            with self.subTest(query=query):
                found = list(facts_metrics.wrong_in_query(query, metrics, set()))
                self.assertTrue(any(part in it for it in found), found)

    def test_in_the_autoscalers_metric_are_noticed(self):
        rule = {"seriesQuery": 'engine_queue_depth{namespace!=""}', "name": {"as": "engine_queue_depth"}}
        adapter = {"rules": {"custom": [rule]}}
        objects = load("staging")
        self.assertEqual([], list(facts_metrics.autoscaler_is_served(objects, page(), adapter)))
        rule["seriesQuery"] = "engine_qeue_depth"
        self.assertIn("engine_qeue_depth", "".join(facts_metrics.autoscaler_is_served(objects, page(), adapter)))
        edit("HorizontalPodAutoscaler/engine:spec.metrics.1.pods.metric.name", "engine_queue")(objects)
        self.assertIn("the adapter does not serve", "".join(facts_metrics.autoscaler_is_served(objects, page(), adapter)))
        self.assertIn("the engine does not serve", "".join(facts_metrics.autoscaler_is_served(objects, page(), None)))


if __name__ == "__main__":
    unittest.main()
