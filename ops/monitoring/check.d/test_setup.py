"""ops/monitoring-setup.sh with programs that only note how they were called."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

sys.dont_write_bytecode = True
# Of a secret it has one key, old; it can be told to fail.
SAID = r"""case "$*" in *"get secret"*"$HAS"*) printf b2xk; exit ;; *"get secret"*) exit "$GETS" ;; esac; printf 'kind: X\nmetadata:\n  name: x\n'"""
HERE = Path(__file__).resolve().parents[1]
SCRIPT = HERE.parent / "monitoring-setup.sh"
NOTED = ("helm", "kubectl", "aws", "systemctl", "apt-get", "dpkg-query", "sudo")


class Setup(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="setup."))
        self.addCleanup(shutil.rmtree, self.folder)
        self.root, self.calls = self.folder / "root", self.folder / "calls"
        programs = self.folder / "bin"
        programs.mkdir()
        for name in NOTED:
            answer = {"dpkg-query": "echo install ok installed", "kubectl": SAID, "sudo": '"$@"'}.get(name, ":")
            path = programs / name
            # What is applied is noted too.
            reads = 'case "$*" in *apply*) cat >>"$CALLS" ;; esac' if name == "kubectl" else ""
            path.write_text(f'#!/bin/sh\necho "{name} $*" >>"$CALLS"\n{reads}\n{answer}\n')
            path.chmod(0o755)
        self.env = {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(self.calls), "MONITORING_ROOT": str(self.root), "TMPDIR": str(self.folder), "HAS": "no key", "GETS": "0"}

    def run_it(self, *arguments):
        self.calls.write_text("")
        done = subprocess.run([SCRIPT, *map(str, arguments)], env=self.env, capture_output=True, text=True)
        return done, self.calls.read_text()

    def files(self):
        return {path.relative_to(self.root).as_posix(): path.read_text() for path in self.root.rglob("*") if path.is_file()}

    def key(self):
        path = self.folder / "key"
        path.write_text("a-key")
        return path

    def test_a_host_is_set_up_once(self):
        arguments = ["host", "--engine", "10.0.0.1:9464", "--engine", "10.0.0.2:9464", "--certificate", "https://e.example/health", "--pagerduty-key-file", self.key(),
                     "--heartbeat-url", "https://beat.example/x", "--runbook-base", "https://git.example/r/", "--postgres-url", "postgres://m@db/ledger", "--backups", self.folder]  # fmt: skip
        done, calls = self.run_it(*arguments)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("systemctl restart prometheus\n", calls)
        files = self.files()
        self.assertIn("10.0.0.2:9464", files["etc/prometheus/targets/engine.yaml"])
        self.assertIn("https://e.example/health", files["etc/prometheus/targets/certificates.yaml"])
        self.assertIn("runbook_url: https://git.example/r/ops/monitoring/runbooks/EngineDown.md", files["etc/prometheus/rules/engine.yaml"])
        self.assertIn("https://beat.example/x", files["etc/prometheus/alertmanager.yml"])
        self.assertEqual("a-key", files["etc/prometheus/secrets/pagerduty-key"])
        self.assertEqual(0, (self.root / "etc/prometheus/secrets/pagerduty-key").stat().st_mode & 0o007)
        self.assertIn("systemctl enable --now engine-backup-age.timer\n", calls)
        self.assertIn(f"job-metrics backup --logical {self.folder}\n", files["etc/systemd/system/engine-backup-age.service"])
        again, calls = self.run_it(*arguments)
        self.assertEqual(0, again.returncode, again.stderr)
        self.assertIn("nothing changed", again.stderr)
        self.assertNotIn("systemctl", calls)
        self.assertNotIn("apt-get", calls)
        self.assertEqual(files, self.files())

    def test_a_dry_run_does_nothing(self):
        done, calls = self.run_it("host", "--dry-run")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("would write", done.stderr)
        self.assertFalse(self.root.exists())
        self.assertNotIn("systemctl", calls)

    def test_the_unit_of_the_backups_age_is_one_that_systemd_takes(self):
        self.assertEqual(0, self.run_it("host", "--backups", self.key())[0].returncode)
        units = self.root / "etc/systemd/system"
        program = self.root / "usr/local/lib/engine-ops/job-metrics"
        unit = units / "engine-backup-age.service"
        self.assertIn(f"job-metrics backup --config {self.key()}\n", unit.read_text())
        self.assertTrue(os.access(program, os.X_OK))
        # It looks whether the program is there.
        unit.write_text(unit.read_text().replace("/usr/local/lib", f"{self.root}/usr/local/lib"))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit, units / "engine-backup-age.timer"], capture_output=True, text=True)
        self.assertEqual((0, []), (done.returncode, [line for line in done.stderr.splitlines() if "engine-backup-age" in line]))

    def clusters(self):
        output = self.folder / "output.json"
        output.write_text(json.dumps({"regions": {"value": {"us-east-1": {"cluster": {"name": "east"}}, "us-west-2": {"cluster": {"name": "west"}}}}}))
        return output

    def test_clusters_come_from_terraform(self):
        done, calls = self.run_it("cluster", "--terraform-output", self.clusters(), "--slack-url-file", self.key())
        self.assertEqual(0, done.returncode, done.stderr)
        for name, region in (("east", "us-east-1"), ("west", "us-west-2")):
            self.assertIn(f"aws eks update-kubeconfig --name {name} --region {region}", calls)
            # Without the middle flag Loki would lose the bucket that Terraform told it.
            self.assertIn(f"helm upgrade --install --reset-then-reuse-values loki loki --kube-context {name} --namespace monitoring --create-namespace --repo https://grafana.github.io/helm-charts --version 6.", calls)
        for path in (HERE / "dashboards").glob("*.json"):
            self.assertIn(f"create configmap dashboard-{path.stem} ", calls)
        self.assertIn('labels: {grafana_dashboard: "1"}', calls)
        done, calls = self.run_it("cluster", "--dry-run", "--terraform-output", self.clusters())
        self.assertEqual((0, ""), (done.returncode, calls), done.stderr)

    def keeping(self, *programs):
        """Those programs copy the files, and what is in the folders, that they are given."""
        kept = self.folder / "kept"
        kept.mkdir(exist_ok=True)
        for name in programs:
            program = self.folder / "bin" / name
            program.write_text(
                program.read_text() + "for each in \"$@\"; do each=${each#--from-file=}; case $each in "
                f'/*.yaml | /*.json) cp "$each" {kept} ;; /*) [ ! -d "$each" ] || cp "$each"/* {kept} ;; esac; done\n'
            )
        return kept

    def test_receivers_are_in_a_secret_that_no_release_owns(self):
        """A run with one key leaves the other; a cluster that cannot be asked loses none."""
        kept = self.keeping("kubectl")
        self.env["HAS"] = "['pagerduty-key']"
        done, calls = self.run_it("cluster", "--context", "c", "--slack-url-file", self.key())
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(("a-key", "old"), ((kept / "slack-url").read_text(), (kept / "pagerduty-key").read_text()))
        config = (kept / "alertmanager.yaml").read_text()
        self.assertEqual({"pagerduty-key", "slack-url"}, set(re.findall(r"/etc/alertmanager/config/([a-z-]+)", config)))
        self.assertNotIn("/etc/prometheus/", config)
        self.assertEqual(0, subprocess.run(["amtool", "check-config", kept / "alertmanager.yaml"], capture_output=True).returncode)
        stack = yaml.safe_load((HERE.parents[1] / "terraform/helm-values/kube-prometheus-stack.yaml").read_text())["alertmanager"]["alertmanagerSpec"]
        self.assertIn(f"create secret generic {stack['configSecret']} ", calls)
        self.assertIs(True, stack["useExistingSecret"])
        self.env["GETS"] = "1"
        done, calls = self.run_it("cluster", "--context", "c", "--pagerduty-key-file", self.key())
        self.assertNotEqual(0, done.returncode)
        self.assertNotIn("create secret", calls)

    def test_releases_are_told_what_is_given(self):
        """Dashboards lead to the runbooks; a file of values goes to the release that it names."""
        kept = self.keeping("helm", "kubectl")
        other = self.folder / "other.yaml"
        other.touch()
        done, calls = self.run_it("cluster", "--context", "c", "--runbook-base", "https://git.example/r/", "--values", f"loki={other}")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(["loki"], [line.split()[4] for line in calls.splitlines() if f"--values {other}" in line])
        values = yaml.safe_load((kept / "kube-prometheus-stack.yaml").read_text()) if (kept / "kube-prometheus-stack.yaml").exists() else {}
        self.assertEqual({"cluster": "c"}, values["prometheus"]["prometheusSpec"]["externalLabels"])
        board = json.loads((kept / "engine.json").read_text())
        address = next(one["query"] for one in board["templating"]["list"] if one["name"] == "runbooks")
        self.assertEqual("https://git.example/r/ops/monitoring/runbooks", address)
        self.assertIn("monitoring.runbookBase=https://git.example/r/", done.stderr)

    def test_a_failing_step_fails_the_script(self):
        (self.folder / "bin/helm").write_text("#!/bin/sh\nexit 3\n")
        done, _ = self.run_it("cluster", "--context", "c")
        self.assertNotEqual(0, done.returncode)

    def test_what_is_asked_wrongly_exits_64(self):
        for arguments in ([], ["hosts"], ["host", "--engin", "x"], ["cluster"], ["host", "--slack-url-file", "/no/such"], ["host", "--engine"],
                          ["host", "--runbook-base", "git.example"], ["host", "--backups", "backups"], ["cluster", "--context", "c", "--values", "lokki=/dev/null"]):  # fmt: skip
            with self.subTest(arguments=arguments):
                self.assertEqual(64, self.run_it(*arguments)[0].returncode)
                self.assertFalse(self.root.exists())


if __name__ == "__main__":
    unittest.main()
