"""Every object agrees with its schema, strictly; and the schemas notice what they are for.

Core kinds by kubernetes-validate (it carries Kubernetes' own schemas), custom resources by
their published types. A Rollout is judged twice: by its types, and its pods as those of a
Deployment.
"""

import json
import os
import pathlib
import subprocess
import unittest

import helm_python
import kubernetes_validate

import facts
import facts_delivery
import render
from objects import RENDERED, as_deployment, load, name_of, named

# The oldest version that the chart admits and a current one.
KUBERNETES = ["1.30", "1.34"]
NAMES = sorted(path.stem for path in RENDERED.glob("*.yaml"))
TYPED = ("networking.istio.io/", "security.istio.io/", "monitoring.coreos.com/", "argoproj.io/", "external-secrets.io/")
MODULES = os.environ["K8S_NODE_MODULES"]


def by_schema(it: dict, version: str) -> str:
    try:
        kubernetes_validate.validate(it, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{it['kind']} {name_of(it)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"{it['kind']} {name_of(it)}: no schema for {it['apiVersion']}"
    return ""


def by_types(objects: list[tuple[str, dict]]) -> list[str]:
    page = json.dumps([{"source": source, "object": it} for source, it in objects])
    script = pathlib.Path(__file__).with_name("typed.mjs")
    done = subprocess.run(["node", script, MODULES], input=page, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    return done.stdout.splitlines() or ([done.stderr] if done.returncode else [])


class Renderings(unittest.TestCase):
    def test_agree_with_kubernetes_schemas(self):
        for name in NAMES:
            for version in KUBERNETES:
                for it in load(name):
                    if it["apiVersion"].startswith(TYPED) and it["kind"] != "Rollout":
                        continue
                    with self.subTest(name=name, version=version, it=name_of(it)):
                        self.assertEqual("", by_schema(as_deployment(it), version))

    def test_agree_with_the_types_of_custom_resources(self):
        objects = [(name, it) for name in NAMES for it in load(name) if it["apiVersion"].startswith(TYPED)]
        self.assertGreater(len(objects), 40)
        self.assertEqual([], by_types(objects))


class Mistakes(unittest.TestCase):
    def test_in_core_kinds_are_noticed(self):
        def engine():
            return as_deployment(named(load("staging"), "Rollout", "engine"))

        port, probe, unknown = engine(), engine(), engine()
        port["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "5000"
        probe["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["prot"] = "admin"
        unknown["spec"]["minReadySecond"] = 10
        scaler = named(load("staging"), "HorizontalPodAutoscaler", "engine")
        del scaler["spec"]["maxReplicas"]
        for it, part in [(port, "5000"), (probe, "prot"), (unknown, "minReadySecond"), (scaler, "maxReplicas"), ({**scaler, "apiVersion": "autoscaling/v9"}, "no schema")]:
            with self.subTest(part=part):
                self.assertIn(part, by_schema(it, KUBERNETES[-1]))

    def test_in_custom_resources_are_noticed(self):
        def changed(kind: str, name: str, path: str, value, environment="production-us-east-1"):
            it = named(load(environment), kind, name)
            *way, last = path.split(".")
            inner = it
            for key in way:
                inner = inner[int(key)] if isinstance(inner, list) else inner[key]
            inner[last] = value
            return it

        mistakes = [
            (changed("VirtualService", "engine", "spec.http.0.retries.attempt", 2), "attempt"),
            (changed("PeerAuthentication", "default", "spec.mtls.mode", "STRICTT"), "STRICTT"),
            (changed("DestinationRule", "engine", "spec.trafficPolicy.outlierDetection.consecutive5xxError", 0), "consecutive5xxError"),
            (changed("AuthorizationPolicy", "engine-clients", "spec.rules.0.form", []), "form"),
            (changed("Gateway", "engine", "spec.servers.0.tls.mode", "SIMPEL"), "SIMPEL"),
            (changed("ServiceMonitor", "engine", "spec.endpoints.0.intervall", "15s"), "intervall"),
            (changed("PrometheusRule", "engine", "spec.groups.0.rules.0.alret", "x"), "alret"),
            (changed("Rollout", "engine", "spec.strategy.canary.stepps", []), "stepps"),
            (changed("Rollout", "engine", "spec.template.spec.containers.0.livenessProb", {}), "livenessProb"),
            (changed("Rollout", "engine", "spec.strategy.blueGreen.activeServise", "x", "staging"), "activeServise"),
            (changed("AnalysisTemplate", "engine-sound", "spec.metrics.0.successConditon", "true"), "successConditon"),
            (changed("ExternalSecret", "engine-app", "spec.target.creationPolicy", "Ownr"), "Ownr"),
            (changed("SecretStore", "engine", "spec.provider.aws.regin", "us-east-1"), "regin"),
            ({"apiVersion": "traefik.io/v1", "kind": "IngressRoute", "metadata": {"name": "x"}}, "no types are known"),
        ]
        found = by_types([(str(index), it) for index, (it, _) in enumerate(mistakes)])
        for index, (_, part) in enumerate(mistakes):
            with self.subTest(part=part):
                self.assertTrue(any(line.startswith(f"{index}: ") and part in line for line in found), found)


class Values(unittest.TestCase):
    """values.schema.json and the chart refuse what cannot be meant."""

    def check(self, overrides: dict, part: str, environment="production-us-east-1"):
        with self.assertRaises(helm_python.HelmError) as caught:
            render.render(environment, overrides=overrides)
        self.assertIn(part, str(caught.exception))

    def test_that_are_wrong_are_refused(self):
        for overrides, part in [
            ({"replica": 3}, "replica"),
            ({"image": {"tag": "latest"}}, "tag"),
            ({"image": {"digest": "sha256:12"}}, "digest"),
            ({"delivery": {"strategy": "bluegreen"}}, "strategy"),
            ({"istio": {"enabled": False}}, "istio"),
            ({"istio": {"perTrySeconds": 10}}, "perTrySeconds"),
            ({"settings": {"ENGINE_DATABASE_URL": "postgres://u:p@h/d"}}, "ENGINE_DATABASE_URL"),
            ({"settings": {"engine_io_threads": "2"}}, "engine_io_threads"),
            ({"database": {"cidrs": ["0.0.0.0/0"]}}, "cidrs"),
            ({"database": {"sslMode": "verify"}}, "sslMode"),
            ({"database": {"caConfigMap": {"nam": "x"}}}, "nam"),
            ({"settings": {"ENGINE_DATABASE_CA_FILE": "/x"}}, "ENGINE_DATABASE_CA_FILE"),
            # 2 x 42 x (2 + 8 + 2) connections are over 1,000; the same by committers.
            ({"autoscaling": {"replicasMax": 42}}, "databaseConnectionsMax"),
            ({"settings": {"ENGINE_COMMITTERS": "60"}}, "databaseConnectionsMax"),
            ({"backup": {"destination": "s3://bucket/"}}, "destination"),
            ({"monitoring": {"runbookBase": "git.example"}}, "runbookBase"),
            ({"serviceAccount": {"secretsRoleArn": ""}}, "secretsRoleArn"),
            ({"verify": {"schedule": "daily"}}, "schedule"),
        ]:
            with self.subTest(overrides=overrides):
                self.check(overrides, part)

    def test_of_a_deploy_reach_the_pods(self):
        digest = "sha256:" + "0123456789abcdef" * 4
        objects = render.render("production-us-east-1", overrides={"image": {"digest": digest}, "settings": {"ENGINE_COMMITTERS": "3"}})
        pods = named(objects, "Rollout", "engine")["spec"]["template"]
        self.assertTrue(pods["spec"]["containers"][0]["image"].endswith(f"/engine-production@{digest}"))
        self.assertEqual("3", named(objects, "ConfigMap", "engine-settings")["data"]["ENGINE_COMMITTERS"])

    def test_that_change_are_another_version_and_leave_the_former_ones_alone(self):
        def read(objects):
            """What the pods read: the references, and the content behind them."""
            container = named(objects, "Rollout", "engine")["spec"]["template"]["spec"]["containers"][0]
            names = [source[key]["name"] for source in container["envFrom"] for key in source]
            settings, secret = named(objects, "ConfigMap", names[0]), named(objects, "ExternalSecret", names[1])
            return names, (settings["data"], secret["spec"]["target"]["template"], secret["spec"]["data"])

        names, content = read(render.render("production-us-east-1"))
        for overrides in (
            {"settings": {"ENGINE_COMMITTERS": "3"}}, {"shutdownDelaySeconds": 7}, {"idempotencyRetention": "31d"},
            {"database": {"host": "db.internal"}}, {"database": {"readHost": ""}}, {"database": {"sslMode": "verify-ca"}},
            {"redis": {"host": "cache.internal"}}, {"externalSecrets": {"app": "other/app"}}, {"externalSecrets": {"redis": "other/redis"}},
        ):  # fmt: skip
            others, other = read(render.render("production-us-east-1", overrides=overrides))
            with self.subTest(overrides=overrides):
                self.assertNotEqual(content, other)
                self.assertFalse(set(names) & set(others))
        # A version that says the same reads the same: nothing is left behind by each release.
        self.assertEqual((names, content), read(render.render("production-us-east-1", overrides={"image": {"tag": "0.2.0"}})))

        # Other authorities are another ConfigMap, and so another version too.
        pods = lambda objects: named(objects, "Rollout", "engine")["spec"]["template"]
        authorities = {"database": {"caConfigMap": {"name": "engine-database-ca-0a1b2c3d"}}}
        self.assertNotEqual(pods(load("production-us-east-1")), pods(render.render("production-us-east-1", overrides=authorities)))

    def test_of_a_stop_leave_the_last_request_its_deadline(self):
        """As the engine's own check: at the limit, and one past it."""
        for overrides in (
            {"shutdownDelaySeconds": 20}, {"shutdownDelaySeconds": 5, "shutdownGraceSeconds": 15},
            {"settings": {"ENGINE_REQUEST_DEADLINE": "25s"}}, {"settings": {"ENGINE_REQUEST_DEADLINE": "25000ms"}},
            {"settings": {"ENGINE_REQUEST_DEADLINE": "1m"}, "shutdownGraceSeconds": 65},
        ):  # fmt: skip
            with self.subTest(overrides=overrides):
                render.render("production-us-east-1", overrides=overrides)
        for overrides in (
            {"shutdownDelaySeconds": 25}, {"shutdownDelaySeconds": 21}, {"shutdownGraceSeconds": 14}, {"shutdownDelaySeconds": 40},
            {"settings": {"ENGINE_REQUEST_DEADLINE": "26s"}}, {"settings": {"ENGINE_REQUEST_DEADLINE": "25001ms"}},
            {"settings": {"ENGINE_REQUEST_DEADLINE": "1m"}, "shutdownGraceSeconds": 64},
        ):  # fmt: skip
            with self.subTest(overrides=overrides):
                self.check(overrides, "shutdownDelaySeconds")
        self.check({"settings": {"ENGINE_REQUEST_DEADLINE": "1min 2s"}}, "ENGINE_REQUEST_DEADLINE")

    def test_of_runbooks_are_links_to_files_that_exist(self):
        objects = render.render("staging", overrides={"monitoring": {"runbookBase": "https://git.example/engine/blob/main/"}})
        rules = [rule for group in named(objects, "PrometheusRule", "engine")["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
        self.assertTrue(rules)
        for rule in rules:
            base, path = rule["annotations"]["runbook_url"].split("/blob/main/")
            self.assertEqual("https://git.example/engine", base)
            self.assertTrue((render.ROOT / path).is_file(), path)

    def test_of_a_cache_reach_the_engine_or_leave_it_without(self):
        objects = render.render("production-us-east-1", overrides={"redis": {"host": "cache.internal"}})
        url = lambda: named(objects, "ExternalSecret", "engine-app")["spec"]["target"]["template"]["data"].get("ENGINE_REDIS_URL")
        self.assertEqual("rediss://:{{ .redis | urlquery }}@cache.internal:6379/0", url())
        objects = render.render("production-us-east-1", overrides={"redis": {"host": "", "passwordProperty": ""}})
        self.assertIsNone(url())
        self.assertEqual([], list(facts.references_exist(objects)))
        self.assertEqual([], list(facts_delivery.network_flows(objects, "10.20.112.10", "10.10.112.10")))

    def test_of_a_database_that_a_public_authority_vouches_for_mount_nothing(self):
        objects = render.render("production-us-east-1", overrides={"database": {"caConfigMap": {"name": ""}}})
        self.assertNotIn("database-ca", json.dumps(objects))
        self.assertIn("/ledger?sslmode=verify-full\"", json.dumps(objects))

    def test_lint_clean(self):
        for environment in render.ENVIRONMENTS:
            with self.subTest(environment=environment):
                result = helm_python.lint(render.CHART, render.values_of(environment), strict=True, namespace=render.NAMESPACE)
                # An icon is for a chart store.
                messages = [it for it in result["messages"] if "icon is recommended" not in it["error"]]
                self.assertEqual(([], []), (messages, result["errors"]))


if __name__ == "__main__":
    unittest.main()
