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


def render(chart, values):
    with helm_python.Chart.load(ROOT / "modules/platform/charts" / chart) as loaded:
        files = loaded.render(values, name=chart, namespace="istio-ingress")
    return {it["kind"]: it for text in files.values() for it in yaml.safe_load_all(text) if it}


def plural(kind):
    return re.sub("(?<![aeiou])y$", "ie", kind.lower()) + "s"


class GroundTest(unittest.TestCase):
    # What EKS's AmazonEKSAdminPolicy lets a role change, of what the engine's chart holds.
    by_eks = {
        *("configmaps", "persistentvolumeclaims", "secrets", "serviceaccounts", "services"),
        *("cronjobs.batch", "jobs.batch", "horizontalpodautoscalers.autoscaling", "poddisruptionbudgets.policy"),
        "networkpolicies.networking.k8s.io",
    }

    def test_the_pipeline_may_make_all_that_the_engines_chart_holds(self):
        objects = render("ground", {})
        rules = objects["Role"]["rules"]
        ours = {".".join(filter(None, (kind, group))) for rule in rules for group in rule["apiGroups"] for kind in rule["resources"]}
        for rendered in (ROOT.parent / "k8s/rendered").glob("[ps]*.yaml"):
            for it in filter(None, yaml.safe_load_all(rendered.read_text())):
                group = it["apiVersion"].rpartition("/")[0]
                # The namespace is made by `ground` itself.
                if it["kind"] != "Namespace":
                    self.assertIn(".".join(filter(None, (plural(it["kind"]), group))), ours | self.by_eks, rendered.name)
        self.assertTrue(all("*" not in rule["verbs"] + rule["resources"] for rule in rules))
        self.assertEqual(objects["RoleBinding"]["subjects"][0]["name"], objects["RoleBinding"]["roleRef"]["name"])
        self.assertIn('kubernetes_groups = ["engine-deployers"]', (ROOT / "modules/eks/main.tf").read_text())

    def test_a_class_exists_before_a_volume_asks_for_it(self):
        objects = render("ground", {})
        self.assertEqual(objects["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")
        self.assertEqual(objects["StorageClass"]["parameters"]["encrypted"], "true")
        self.assertEqual({objects["StorageClass"]["metadata"]["name"]}, set(self.classes_asked_for()))
        first = re.search(r'resource "helm_release" "first" \{\n(.*?)^\}', MAIN, re.DOTALL | re.MULTILINE)[1]
        self.assertIn("depends_on = [helm_release.ground]", first)

    def classes_asked_for(self):
        for path in VALUES.glob("*.yaml"):
            yield from re.findall(r"storageClass(?:Name)?: (\w+)", path.read_text())


class JointsChartTest(unittest.TestCase):
    arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/engine-gw/0123456789abcdef"

    def test_it_joins_the_gateway_to_the_target_group(self):
        objects = render("joints", {"targetGroupArn": self.arn})
        self.assertEqual(sorted(objects), ["Secret", "TargetGroupBinding"])
        binding = objects["TargetGroupBinding"]["spec"]
        self.assertEqual((binding["targetGroupARN"], binding["targetType"]), (self.arn, "ip"))
        self.assertEqual(binding["serviceRef"], {"name": "istio-ingress", "port": 443})
        self.assertEqual(objects["Secret"]["metadata"]["name"], "engine-tls")
        self.assertIn(b"BEGIN CERTIFICATE", base64.b64decode(objects["Secret"]["data"]["tls.crt"]))

    def test_it_renders_nothing_without_a_target_group(self):
        with self.assertRaisesRegex(Exception, "targetGroupArn"):
            render("joints", {})


if __name__ == "__main__":
    unittest.main()
