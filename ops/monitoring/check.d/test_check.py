"""Each check of ops/monitoring notices the mistake it is for: one is planted, and must be named."""

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import files  # noqa: E402
import queries  # noqa: E402
import rules  # noqa: E402
import servers  # noqa: E402
import static  # noqa: E402
import yaml  # noqa: E402
from rules import HERE  # noqa: E402

ENGINE = "rules/engine.yaml"
# (the check, the file, what, by what, part of what it says)
PLANTED = [
    (rules.wrong_in_rules, ENGINE, 'up{job="engine"} == 0', 'up{job="engine" == 0', "parse error"),
    (rules.wrong_in_rules, ENGINE, "alert: EngineAbsent", "alert: EngineDown", "EngineDown is there twice"),
    (rules.wrong_in_rules, ENGINE, "{severity: ticket}", "{severity: tikcet}", "its severity is none of"),
    (rules.wrong_in_rules, ENGINE, "          summary: No engine is known to Prometheus\n", "", "EngineAbsent has no summary"),
    (rules.wrong_in_rules, ENGINE, "{{ $labels.instance }} does", "{{ $labels.instance }", "EngineDown"),
    (rules.wrong_in_runbooks, ENGINE, "runbooks/EngineDown.md", "runbooks/EngineGone.md", "its runbook_url is"),
    (rules.wrong_in_runbooks, "runbooks/EngineDown.md", "## Impact", "## Effect", "its sections are not"),
    (rules.wrong_in_runbooks, "runbooks/EngineDown.md", "# EngineDown", "# EngineUp", "does not begin with"),
    (rules.wrong_in_runbooks, "runbooks/EngineNotReady.md", "(EngineClockSkew.md)", "(EngineClock.md)", "which is not there"),
    (rules.wrong_in_runbooks, "runbooks/RedisDown.md", None, None, "RedisDown has no runbook"),
    (rules.wrong_in_runbooks, "runbooks/Other.md", None, "# Other\n", "the runbook of no alert"),
    (rules.wrong_in_tests, ENGINE, "engine_partitions_ahead < 3", "engine_partitions_ahead < 2", "EnginePartitionsRunningOut"),
    (rules.wrong_in_tests, ENGINE, "for: 1m", "for: 10m", "EngineDown"),
    (rules.wrong_in_tests, ENGINE, 'reason=~"queue_full|', 'reason=~"queue_fill|', "EngineRefusing"),
    (rules.wrong_in_tests, ENGINE, "> 129600", "> 139600", "EngineBackupTooOld"),
    (rules.wrong_in_tests, "rules/objectives.yaml", "ratio_rate6h > 6 *", "ratio_rate6h > 8 *", "EngineErrorBudgetBurnFast"),
    (rules.wrong_in_tests, "rules/host/node.yaml", "> 0.85", "> 0.9", "HostDiskHigh"),
    (rules.wrong_in_tests, "tests/alerts.yaml", "EngineDown:", "EngineGone:", "EngineDown has no test in which it fires"),
    (rules.wrong_in_configuration, "prometheus.yml", "scrape_timeout: 10s", "scrape_timeout: 20s", "promtool check config"),
    (rules.wrong_in_configuration, "prometheus.yml", "job_name: certificates", "job_name: certs", "CertificateProbeFailed asks for job='certificates'"),
    (rules.wrong_in_configuration, "prometheus.yml", "targets/redis.yaml", "targets/reddis.yaml", "reddis.yaml is missing"),
    (rules.wrong_in_configuration, "alertmanager.yml", "receiver: pager\n", "receiver: pagre\n", "amtool check-config"),
    (rules.wrong_in_configuration, "alertmanager.yml", "page|critical", "pages|critical", "EngineDown (page) goes to 'team'"),
    (rules.wrong_in_configuration, "alertmanager.yml", "page|critical", "page", "EngineDown (critical) goes to 'team'"),
    (rules.wrong_in_configuration, "alertmanager.yml", "info|none", "none", "EngineDown (info) goes to 'team'"),
    (rules.wrong_in_configuration, "alertmanager.yml", "source_matchers: [alertname = RedisDown]", "source_matchers: [alertname = RedisGone]", "inhibits by RedisGone"),
    (queries.wrong_in_dashboards, "dashboards/engine.json", '"id": 2,', '"id": 3,', "two panels have one id"),
    (queries.wrong_in_dashboards, "dashboards/engine.json", '"uid": "${logs}"', '"uid": "${lok}"', "which is no variable of it"),
    (queries.wrong_in_dashboards, "dashboards/engine.json", "${runbooks:raw}", "${runbook:raw}", "links to $runbook, which is no variable of it"),
    (queries.wrong_in_dashboards, "dashboards/engine-redis.json", '"legendFormat": "{{cmd}}"', '"legendFormat": "{{command}}"', "by which it does not group"),
    (queries.wrong_in_dashboards, "dashboards/engine-redis.json", '"y": 0', '"y": 1', "covers"),
]  # fmt: skip
COMPOSE = [
    ("profiles: [monitoring]", "profile: [monitoring]", "profile"),
    ("./monitoring/loki.yaml:", "./monitoring/lokki.yaml:", "which is not there"),
    ("- grafana:/var", "- grafanna:/var", "not declared"),
    ("grafana:12.0.0", "grafana", "has no version"),
    ('"127.0.0.1:3000:3000"', '"3000:3000"', "beyond loopback"),
    ("depends_on: [loki]", "depends_on: [lokki]", "depends on lokki"),
    ("LOKI_URL: http://loki:3100", "LOKI_URL: http://lokki:3100", "no service of compose.yaml"),
    (", -server.http-listen-address=0.0.0.0", "", "Grafana and Alloy cannot reach it"),
    ("      LOKI_URL: http://loki:3100\n", "", "LOKI_URL of its provisioning is not set"),
    ("DASHBOARDS_PATH: /etc/grafana/dashboards", "DASHBOARDS_PATH: /etc/grafana/boards", "mounted by nobody"),
    ("  redis-exporter:\n", "  redis-export:\n", "redis-exporter:9121 is no service"),
]
ALLOY = [
    ("loki.process.engine.receiver", "loki.process.engin.receiver", "which is not there"),
    ('level = "level"', 'level = "severity"', "no field severity"),
    ('values = { level = "" }', 'values = { level = "", target = "" }', "a stream of each"),
    ("stage.labels {", "stage.label {", "no block known"),
    ("loki.write.store.receiver", "loki.write.store.output", "has no output"),
    ('  endpoint {\n', "", "closes nothing"),
]


def changed(text, what, by):
    if what not in text:
        raise AssertionError(f"nothing to plant in: {what} is gone")
    return text.replace(what, by, 1)


class Checks(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="monitoring."))
        self.addCleanup(shutil.rmtree, self.folder)

    def test_notice_what_is_planted(self):
        for number, (check, name, what, by, said) in enumerate(PLANTED):
            with self.subTest(check=check.__name__, planted=by, file=name):
                # So deep that links to other folders of the repository keep their way.
                root = self.folder / str(number) / "ops/monitoring"
                shutil.copytree(HERE, root, ignore=shutil.ignore_patterns("check.d"))
                (root.parent / "drill.d").mkdir()
                (root.parent / "drill.d/README.md").touch()
                path = root / name
                if by is None:
                    path.unlink()
                else:
                    path.write_text(by if what is None else changed(path.read_text(), what, by))
                # Of the unit tests only the alert's own: all of them take a quarter of a minute.
                only = {"only": said.split(" ")[0]} if check is rules.wrong_in_tests else {}
                found = "\n".join(check(root, **only))
                self.assertIn(said, found)

    def test_of_compose_notice_what_is_planted(self):
        text, schema = (HERE.parent / "compose.yaml").read_text(), static.compose_schema()
        for what, by, said in COMPOSE:
            with self.subTest(planted=by):
                self.assertIn(said, "\n".join(files.wrong_in_compose(changed(text, what, by), schema)))

    def test_of_log_shipping_notice_what_is_planted(self):
        for path in (HERE / "alloy").glob("*.alloy"):
            for what, by, said in ALLOY:
                with self.subTest(file=path.name, planted=by):
                    self.assertIn(said, "\n".join(files.wrong_in_alloy(path.name, changed(path.read_text(), what, by), static.LOG_FIELDS)))
        loki = (HERE / "loki.yaml").read_text()
        self.assertIn("needs schema v13", "".join(files.wrong_in_loki(changed(loki, "v13", "v12"))))
        self.assertIn("grpc listens beyond loopback", "".join(files.wrong_in_loki(changed(loki, "  grpc_listen_address: 127.0.0.1\n", ""))))
        self.assertIn("delete_request_store", "".join(files.wrong_in_loki(changed(loki, "  delete_request_store: filesystem\n", ""))))

    def test_of_dashboards_notice_one_changed_by_hand(self):
        root = self.folder / "ops"
        shutil.copytree(HERE, root, ignore=shutil.ignore_patterns("check.d"))
        self.assertEqual(0, subprocess.run([root / "make-dashboards", "--check"], capture_output=True).returncode)
        path = root / "dashboards/engine.json"
        path.write_text(changed(path.read_text(), "Transfers a second", "Transfers"))
        self.assertEqual(1, subprocess.run([root / "make-dashboards", "--check"], capture_output=True).returncode)

    def test_hurry_windows_and_waits_only(self):
        rule = {"alert": "A", "expr": "rate(x[5m]) > 0.01 and increase(y[3d]) > 300", "for": "5m", "labels": {"severity": "page"}}
        self.assertEqual({**rule, "expr": "rate(x[10s]) > 0.01 and increase(y[60s]) > 300", "for": "2s"}, servers.hurried(rule))


class JobMetrics(unittest.TestCase):
    """ops/monitoring/job-metrics, and that its names are those the rules ask for."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="jobs."))
        self.addCleanup(shutil.rmtree, self.folder)

    def call(self, *arguments):
        return subprocess.run([HERE / "job-metrics", *map(str, arguments)], capture_output=True, text=True)

    def samples(self, name):
        text = (self.folder / f"ops_{name}.prom").read_text()
        return {found[1]: float(found[2]) for found in re.finditer(r"^(ops_.*) (\S+)$", text, re.M)}

    def test_tell_how_it_ended_and_keep_the_last_success(self):
        self.assertEqual(0, self.call("run", "verify", "--dir", self.folder, "--", "true").returncode)
        good = self.samples("verify")
        self.assertEqual(3, self.call("run", "verify", "--dir", self.folder, "--", "sh", "-c", "exit 3").returncode)
        bad = self.samples("verify")
        self.assertEqual((0, 3), tuple(each['ops_job_last_exit_code{task="verify"}'] for each in (good, bad)))
        success = 'ops_job_last_success_timestamp_seconds{task="verify"}'
        self.assertEqual(good[success], bad[success])
        self.assertEqual([self.folder / "ops_verify.prom"], list(self.folder.iterdir()))

    def test_a_command_that_is_not_there_is_a_failure_that_is_told(self):
        self.assertEqual(69, self.call("run", "verify", "--dir", self.folder, "--", "/no/such").returncode)
        self.assertEqual(69, self.samples("verify")['ops_job_last_exit_code{task="verify"}'])

    def test_an_end_by_a_signal_is_a_failure(self):
        self.assertEqual(137, self.call("run", "verify", "--dir", self.folder, "--", "sh", "-c", "kill -9 $$").returncode)

    def test_the_newest_whole_dump_counts(self):
        backups = self.folder / "backups"
        for name, taken in (("ledger-1", "2026-01-01T00:00:00.5Z"), ("ledger-2", "2026-01-02T00:00:00.5Z"), (".ledger-3.unfinished", "2026-01-03T00:00:00.5Z")):
            (backups / name).mkdir(parents=True)
            (backups / name / "manifest.json").write_text(f'{{"taken_at": "{taken}"}}')
        self.assertEqual(0, self.call("backup", "--logical", backups, "--dir", self.folder).returncode)
        # date -u -d 2026-01-02 +%s
        self.assertEqual({'ops_backups{kind="logical"}': 2, 'ops_backup_newest_timestamp_seconds{kind="logical"}': 1767312000}, self.samples("backup_logical"))

    def test_no_backup_at_all_is_as_old_as_can_be(self):
        self.assertEqual(0, self.call("backup", "--logical", self.folder / "none", "--dir", self.folder).returncode)
        self.assertEqual(0, self.samples("backup_logical")['ops_backup_newest_timestamp_seconds{kind="logical"}'])

    def test_backups_that_cannot_be_read_write_nothing(self):
        (self.folder / "b/ledger-1").mkdir(parents=True)
        (self.folder / "b/ledger-1/manifest.json").write_text("{")
        self.assertEqual(69, self.call("backup", "--logical", self.folder / "b", "--dir", self.folder).returncode)
        self.assertEqual([], list(self.folder.glob("*.prom")))

    def test_what_is_asked_wrongly_is_said(self):
        for arguments in (["run", "A task", "--dir", self.folder, "--", "true"], ["backup"], ["run", "x", "--dir", self.folder / "none", "--", "true"]):
            self.assertNotEqual(0, self.call(*arguments).returncode)

    def test_names_are_those_of_elsewhere(self):
        text = (HERE / "job-metrics").read_text()
        for name, labels in yaml.safe_load((HERE / "check.d/elsewhere.yaml").read_text()).items():
            if name.startswith("ops_"):
                self.assertIn(f'"{name}"', text)
                self.assertIn(f"'{labels[0]}=\"", text)


if __name__ == "__main__":
    unittest.main()
