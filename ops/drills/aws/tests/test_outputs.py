"""What the scripts read exists in terraform/, and what deploy.sh makes of it fits the chart.

Needs helm-python-sdk and PyYAML (ops/test-infra.d/drills).
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[4]
HERE = pathlib.Path(__file__).resolve().parent
MODULE = (ROOT / "terraform/modules/deployment/outputs.tf").read_text()
SCRIPTS = [*sorted((ROOT / "ops/drills/aws").glob("*.sh")), ROOT / "ops/deploy.sh", ROOT / "ops/setup.sh"]
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/engine-production@sha256:" + "a" * 64
sys.path.insert(0, str(ROOT / "k8s/tests"))


def outputs_of(environment):
    return set(re.findall(r'^output "(\w+)"', (ROOT / f"terraform/environments/{environment}/outputs.tf").read_text(), re.M))


def read_by(text):
    """(output, key) that a script reads; key is empty where it reads the whole."""
    for name, _, key in re.findall(r"\.(\w+)\.value(\[\$?\w*\])?(?:\.(\w+))?", text):
        yield name, key
    for key in re.findall(r"\$here\.(\w+)", text):
        yield "regions", key


def body_of(output):
    return re.search(rf'^output "{output}" \{{\n(.*?)^\}}', MODULE, re.M | re.S)[1]


def unknown(text, environment="production"):
    found = set()
    for name, key in read_by(text):
        if name not in outputs_of(environment):
            found.add(name)
        # secret_names' keys are the roles of module credentials and two more; the others stand in the module.
        elif key and name != "secret_names" and not re.search(rf"\b{key}\b", body_of(name)):
            found.add(f"{name}.{key}")
    return found


class Outputs(unittest.TestCase):
    def test_every_output_that_a_script_reads_exists(self):
        for script in SCRIPTS:
            self.assertEqual(unknown(script.read_text()), set(), script.name)
        self.assertGreater(sum(len(list(read_by(s.read_text()))) for s in SCRIPTS), 25)

    def test_staging_has_what_deploy_reads(self):
        self.assertEqual(unknown((ROOT / "ops/deploy.sh").read_text(), "staging"), set())

    def test_a_misspelt_output_is_found(self):
        self.assertEqual(unknown("out .databse.value.port; out '.regions.value[$region].helth_url'"), {"databse", "regions.helth_url"})

    def test_the_tests_world_has_terraform_s_outputs_and_no_other(self):
        world = json.loads((HERE / "outputs.json").read_text())
        self.assertEqual(set(world), outputs_of("production"))
        for region in world["regions"]["value"].values():
            for key in region:
                self.assertRegex(body_of("regions"), rf"\b{key}\b")


class Values(unittest.TestCase):
    """The chart takes the values, schema included, and they arrive."""

    def values(self, environment, regions):
        with tempfile.TemporaryDirectory() as folder:
            command = [ROOT / "ops/deploy.sh", "--environment", environment, "--outputs", HERE / "outputs.json", "--image", IMAGE, "--values", folder]
            for region in regions:
                command += ["--region", region]
            subprocess.run([str(part) for part in command], check=True, capture_output=True)
            return {region: json.loads((pathlib.Path(folder) / f"{region}.json").read_text()) for region in regions}

    def check(self, environment, base, region):
        import render

        text = json.dumps(render.render(base, overrides=self.values(environment, [region])[region]))
        # The region's own copy.
        self.assertIn(IMAGE.replace("us-east-1", region), text)
        self.assertIn("engine-production.global-x.global.rds.amazonaws.com", text)
        self.assertIn(f"arn:aws:iam::123456789012:role/{region}-secrets", text)
        self.assertIn(f"s3://engine-production-backups-{region}/logical", text)
        self.assertIn("10.20.114.0/24", text)
        self.assertNotIn("111122223333", text.replace("111122223333.dkr.ecr.us-east-1.amazonaws.com/engine-production-loadtest", ""))

    def test_production(self):
        for region in ("us-east-1", "us-west-2"):
            self.check("production", f"production-{region}", region)

    def test_staging(self):
        self.check("staging", "staging", "us-east-1")


if __name__ == "__main__":
    unittest.main()
