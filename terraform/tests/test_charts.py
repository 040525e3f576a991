"""The platform's charts, as far as they can be looked at without the charts: every release has its
settings and the other way round, what joins them to the engine's chart has the names that chart uses,
and our own small chart renders.
"""

import base64
import pathlib
import re
import unittest

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
VALUES = ROOT / "helm-values"
MAIN = (ROOT / "modules/platform/main.tf").read_text()


def values(name):
    return yaml.safe_load((VALUES / f"{name}.yaml").read_text())


class ReleasesTest(unittest.TestCase):
    pinned = dict(re.findall(r'^    ([a-z0-9-]+)\s*= \{ namespace = .* version = "([^"]+)" \}$', MAIN, re.MULTILINE))

    def test_every_release_has_settings_and_an_exact_version(self):
        self.assertGreaterEqual(len(self.pinned), 14)
        self.assertEqual(sorted(self.pinned), sorted(path.stem for path in VALUES.glob("*.yaml")))
        for name, version in self.pinned.items():
            self.assertRegex(version, r"^\d+\.\d+\.\d+$", name)

    def test_every_release_is_in_exactly_one_wave(self):
        waves = re.search(r"  waves = \{\n(.*?)\n  \}", MAIN, re.DOTALL)[1]
        self.assertEqual(sorted(re.findall(r'"([a-z0-9-]+)"', waves)), sorted(self.pinned))

    def test_settings_are_maps_without_a_key_twice(self):
        class Strict(yaml.SafeLoader):
            pass

        def mapping(loader, node):
            keys = [loader.construct_object(key) for key, _ in node.value]
            self.assertEqual(len(keys), len(set(keys)), f"{node.start_mark}: a key twice in {keys}")
            return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

        Strict.add_constructor("tag:yaml.org,2002:map", mapping)
        for path in VALUES.glob("*.yaml"):
            self.assertIsInstance(yaml.load(path.read_text(), Strict), dict, path)


class JointsTest(unittest.TestCase):
    def test_the_adapter_serves_the_queue_under_its_name(self):
        rule = values("prometheus-adapter")["rules"]["custom"][0]
        self.assertEqual(rule["name"]["as"], "engine_queue_depth")
        self.assertTrue(rule["seriesQuery"].startswith("engine_queue_depth{"))
        # The engine really exports it.
        metrics = (ROOT.parent / "engine/src/telemetry/metrics.rs").read_text()
        self.assertIn('"engine_queue_depth"', metrics)

    def test_the_gateway_is_the_one_that_the_engines_chart_names(self):
        gateway = values("istio-ingress")
        self.assertEqual(gateway["labels"]["istio"], "ingressgateway")
        self.assertEqual(gateway["serviceAccount"]["name"], "istio-ingress")

    def test_service_accounts_are_those_that_the_roles_trust(self):
        roles = (ROOT / "modules/cluster-roles/main.tf").read_text()
        named = {
            "kube-system:aws-load-balancer-controller": values("load-balancer-controller")["serviceAccount"]["name"],
            "kube-system:cluster-autoscaler": values("cluster-autoscaler")["rbac"]["serviceAccount"]["name"],
            "external-dns:external-dns": values("external-dns")["serviceAccount"]["name"],
            "monitoring:loki": values("loki")["serviceAccount"]["name"],
        }
        for account, name in named.items():
            self.assertIn(f'account = "{account}"', roles)
            self.assertEqual(account.partition(":")[2], name)

    def test_network_policies_are_enforced_and_pods_need_no_privileges(self):
        self.assertTrue(values("istiod")["pilot"]["cni"]["enabled"])


class OwnChartTest(unittest.TestCase):
    arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/engine-gw/0123456789abcdef"

    def render(self, values):
        with helm_python.Chart.load(ROOT / "modules/platform/chart") as chart:
            files = chart.render(values, name="joints", namespace="istio-ingress")
        return {it["kind"]: it for text in files.values() for it in yaml.safe_load_all(text) if it}

    def test_it_joins_the_gateway_to_the_target_group(self):
        objects = self.render({"targetGroupArn": self.arn, "namespace": "engine"})
        self.assertEqual(sorted(objects), ["Namespace", "Secret", "StorageClass", "TargetGroupBinding"])
        binding = objects["TargetGroupBinding"]["spec"]
        self.assertEqual((binding["targetGroupARN"], binding["targetType"]), (self.arn, "ip"))
        self.assertEqual(binding["serviceRef"], {"name": "istio-ingress", "port": 443})
        self.assertEqual(objects["Secret"]["metadata"]["name"], "engine-tls")
        self.assertIn(b"BEGIN CERTIFICATE", base64.b64decode(objects["Secret"]["data"]["tls.crt"]))
        self.assertEqual(objects["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")
        self.assertEqual(objects["StorageClass"]["parameters"]["encrypted"], "true")

    def test_it_renders_nothing_without_a_target_group(self):
        with self.assertRaisesRegex(Exception, "targetGroupArn"):
            self.render({})


if __name__ == "__main__":
    unittest.main()
