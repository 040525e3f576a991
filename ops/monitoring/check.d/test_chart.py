"""The Helm chart's PrometheusRule: these rules, every one, with the runbooks' address that its value names."""

import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[3] / "k8s/tests")]

import helm_python  # noqa: E402
import render  # noqa: E402
import rules  # noqa: E402


def rendered(**monitoring):
    objects = render.render("staging", overrides={"monitoring": monitoring})
    groups = [group for it in objects if it["kind"] == "PrometheusRule" for group in it["spec"]["groups"]]
    return [rule for group in groups for rule in group["rules"]]


class Chart(unittest.TestCase):
    def test_has_the_rules_as_they_stand(self):
        own = [rule for path, rule in rules.rules() if not path.startswith("rules/host/")]
        names = lambda them: sorted(rule.get("alert") or rule["record"] for rule in them)
        self.assertEqual(names(own), names(rendered()))
        self.assertEqual({rule["alert"]: rule["expr"] for rule in own if "alert" in rule}, {rule["alert"]: rule["expr"] for rule in rendered() if "alert" in rule})

    def test_puts_the_base_before_every_runbook(self):
        for base in ("https://git.example/engine/blob/main", "https://git.example/engine/blob/main/"):
            for rule in rendered(runbookBase=base):
                if "alert" in rule:
                    self.assertEqual(f"https://git.example/engine/blob/main/ops/monitoring/runbooks/{rule['alert']}.md", rule["annotations"]["runbook_url"])

    def test_without_a_base_names_the_path(self):
        self.assertEqual({f"ops/monitoring/runbooks/{rule['alert']}.md" for rule in rendered() if "alert" in rule},
                         {rule["annotations"]["runbook_url"] for rule in rendered() if "alert" in rule})  # fmt: skip

    def test_refuses_a_base_that_is_no_address(self):
        with self.assertRaises(helm_python.HelmError):
            rendered(runbookBase="git.example/main")


if __name__ == "__main__":
    unittest.main()
