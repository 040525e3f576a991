"""A real Prometheus beside real engines under load; each engine alert's cause, made to happen.

    live.py --bin-dir DIR [--keep FOLDER]

Two engines on a primary with a synchronous standby and Redis, as ops/drill builds them, the
exporters, Alertmanager with its messages caught. Alerts whose cause cannot be made here are
shown a page of a real engine with that one figure changed: panics, the lag that a primary
sees of a distant region, what Kubernetes tells.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE / "check.d"), str(HERE.parent / "drill.d")]

import queries  # noqa: E402
from causes import CAUSES, JOB_METRICS  # noqa: E402
from machine import free_ports  # noqa: E402
from place import Place  # noqa: E402
from rules import alerts  # noqa: E402
from servers import Prometheus, Sink, get, start_alertmanager, start_exporters, wait_for  # noqa: E402
from stage import Stage, database_url  # noqa: E402
from static import LOG_FIELDS  # noqa: E402

FIRES_SECONDS_MAX = 45
RESOLVES_SECONDS_MAX = 45


def say(text):
    print(text, file=sys.stderr, flush=True)


class Scene:
    """The installation, its monitoring, and what was seen."""

    def __init__(self, place, options):
        self.place = place
        options.say = lambda _: None
        options.rate, options.durability, options.read_replica = 150, None, False
        self.stage = Stage(place, "monitoring", options)
        self.seen, self.problems = set(), []
        self.sink = Sink()
        self.textfiles = place.work / "textfiles"
        self.textfiles.mkdir()

    def build(self):
        stage = self.stage
        stage.build_database()
        stage.build_redis()
        settings = {
            "ENGINE_DURABILITY": "sync-standby", "ENGINE_QUEUE_DEPTH_MAX": "8192", "ENGINE_DATABASE_POOL_SIZE": "2",
            "ENGINE_BODY_BYTES_IN_FLIGHT_MAX": "8MiB", "ENGINE_LOG_FORMAT": "json", "ENGINE_ACCESS_LOG": "errors",
            "ENGINE_DATABASE_READ_URL": database_url([stage.nodes["b"].port]),
        }  # fmt: skip
        stage.build_engines(engine_settings=settings)
        stage.open_accounts()
        stage.start_load(warm_up=1)
        exporters = free_ports(4)
        self.manager, port = free_ports(2)
        database = f"postgres://postgres@127.0.0.1:{stage.nodes['a'].port}/postgres?sslmode=disable"
        tls_port, certificate = self.start_tls()
        start_exporters(self.place, exporters, database, stage.redis["a"].port, self.textfiles, certificate)
        start_alertmanager(self.place, self.manager, self.sink)
        self.prometheus = Prometheus(self.place, port, hurry=True)
        near = lambda number: f"127.0.0.1:{number}"
        self.engine_targets = [(near(engine.admin_port), {}) for engine in stage.engines]
        self.prometheus.configure({
            "engine": self.engine_targets, "postgres": [(near(exporters[0]), {})], "redis": [(near(exporters[1]), {})], "node": [(near(exporters[2]), {})],
            "alertmanager": [(near(self.manager), {})], "prometheus": [(near(port), {})],
            "certificates": [(f"https://127.0.0.1:{tls_port}/health", {"__blackbox": near(exporters[3])})],
        })  # fmt: skip
        self.job("verify", "true")
        self.prometheus.start()

    def start_tls(self):
        """A TLS end point whose certificate ends in two days."""
        folder = self.place.work / "tls"
        folder.mkdir()
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key", "-out", folder / "certificate"], check=True, capture_output=True,
        )  # fmt: skip
        port = free_ports(1)[0]
        self.tls = self.place.processes.start("tls", ["openssl", "s_server", "-quiet", "-www", "-accept", f"127.0.0.1:{port}", "-key", folder / "key", "-cert", folder / "certificate"])
        return port, folder / "certificate"

    def job(self, task, *command):
        return subprocess.run([JOB_METRICS, "run", task, "--dir", self.textfiles, "--", *map(str, command)], capture_output=True, text=True)

    # --- what is asserted

    def expect(self, *names, seconds=FIRES_SECONDS_MAX):
        """Waits until all of these fire, and notes them."""
        left = set(names)
        give_up = time.monotonic() + seconds
        while left and time.monotonic() < give_up:
            left -= {each["labels"]["alertname"] for each in self.prometheus.firing()}
            time.sleep(0.3)
        self.seen |= set(names) - left
        for name in sorted(left):
            self.problems.append(f"{name} did not fire within {seconds} s of its cause")
        say(f"   fires: {', '.join(sorted(set(names) - left))}" + (f"; NOT: {', '.join(sorted(left))}" if left else ""))

    def gone(self, *names):
        left = set(names)
        give_up = time.monotonic() + RESOLVES_SECONDS_MAX
        while left and time.monotonic() < give_up:
            left &= {each["labels"]["alertname"] for each in self.prometheus.firing()}
            time.sleep(0.3)
        for name in sorted(left):
            self.problems.append(f"{name} still fires {RESOLVES_SECONDS_MAX} s after its cause is gone")
        say(f"   resolved: {', '.join(sorted(set(names) - left))}")

    def assert_quiet(self):
        """Nothing of the engine's fires while all is well."""
        time.sleep(12)
        loud = {each["labels"]["alertname"] for each in self.prometheus.firing() if each["labels"]["alertname"].startswith("Engine")}
        if loud:
            self.problems.append(f"fires without a cause: {', '.join(sorted(loud))}")

    def assert_rules(self):
        for rule in self.prometheus.rules():
            if rule["health"] != "ok":
                self.problems.append(f"rule {rule['name']}: {rule['health']}: {rule.get('lastError')}")
        for each in self.prometheus.firing():
            for name, text in each["annotations"].items():
                if "<error" in text or "<no value>" in text or "{{" in text:
                    self.problems.append(f"{each['labels']['alertname']}: its {name} reads {text!r}")

    def assert_targets(self):
        def all_up():
            targets = self.prometheus.api("targets")["activeTargets"]
            return targets and not [each["scrapeUrl"] for each in targets if each["health"] != "up"]
        wait_for("all targets are up", all_up, 30)

    def assert_queries(self):
        """Every query of rules, dashboards and runbooks is answered, and each series that it names is there."""
        import promql_parser

        elsewhere = ("kube_", "rollout_", "ops_", "probe_", "ALERTS")
        asked = set()
        for what, query in queries.queries():
            concrete = queries.concrete(query)
            try:
                self.prometheus.query(concrete)
            except AssertionError as error:
                self.problems.append(f"{what}: {error}")
            for selector in queries.selectors(promql_parser.parse(concrete)):
                if selector.name.startswith(elsewhere) or selector.name in asked:
                    continue
                asked.add(selector.name)
                if not self.prometheus.api("series", **{"match[]": selector.name}):
                    self.problems.append(f"{what}: nothing serves {selector.name}")
        say(f"   {len(asked)} metrics of rules, dashboards and runbooks are there")

    def assert_log(self):
        """The fields that log shipping knows are those of real lines, each line an object."""
        # A line of the access log.
        self.stage.engines[0].call("POST", "/transaction", {"from": 1, "to": 1, "amount": 1})
        time.sleep(1)
        found = set()
        for line in (self.place.work / "engine-1.log").read_text().splitlines():
            try:
                names = json.loads(line, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
            except ValueError:
                self.problems.append(f"a line of the engine's log is no JSON: {line[:200]}")
                break
            # Of two values under one name each store takes another, and Elasticsearch takes none.
            if len(set(names)) != len(names):
                self.problems.append(f"a line of the engine's log names a field twice: {line[:200]}")
            found |= set(names)
        if LOG_FIELDS - found:
            self.problems.append(f"no line of the engine's log has {', '.join(sorted(LOG_FIELDS - found))}")

    def assert_inhibited(self, *names):
        """Alertmanager knows of these and tells nobody, for another alert explains them."""
        def held():
            alerts = json.loads(get(f"http://127.0.0.1:{self.manager}/api/v2/alerts"))
            return set(names) <= {each["labels"]["alertname"] for each in alerts if each["status"]["inhibitedBy"]}
        try:
            wait_for(f"{', '.join(names)}: inhibited by another alert", held, 15)
            say(f"   inhibited: {', '.join(names)}")
        except AssertionError as error:
            # No end of the cause: it still has to be mended.
            self.problems.append(str(error))

    def assert_told(self):
        """A page reached the pager and the team, the heartbeat its service."""
        paths = {path for path, _ in list(self.sink.received)}
        for path in ("/v2/enqueue", "/slack", "/heartbeat"):
            if path not in paths:
                self.problems.append(f"no message went to {path}")
        text = " ".join(body for path, body in list(self.sink.received) if path == "/v2/enqueue")
        if "EngineDown" not in text or "ops/monitoring/runbooks/" not in text:
            self.problems.append("the pager was not told of EngineDown with its runbook")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin-dir", type=Path, required=True, help="where engine and loadtest are")
    parser.add_argument("--work", type=Path, required=True, help="where the servers keep their data meanwhile")
    parser.add_argument("--only", action="append", default=[], metavar="CAUSE", help="only these causes")
    parser.add_argument("--keep", type=Path, help="copy the logs there")
    options = parser.parse_args()
    with Place(options.bin_dir.resolve(), options.work.resolve()) as place:
        scene = Scene(place, options)
        try:
            say("-- building: primary, standby, Redis, two engines, load, exporters, Prometheus, Alertmanager")
            scene.build()
            scene.assert_targets()
            scene.assert_quiet()
            scene.assert_rules()
            scene.assert_queries()
            for cause in CAUSES:
                if options.only and cause.__name__ not in options.only:
                    continue
                say(f"-- {cause.__name__}")
                try:
                    cause(scene)
                except Exception:  # the next cause may still tell something
                    scene.problems.append(f"{cause.__name__}: {traceback.format_exc()}")
            scene.assert_rules()
            scene.assert_log()
            if not options.only:
                scene.assert_told()
                wanted = {name for name in alerts() if name.startswith("Engine")}
                for name in sorted(wanted - scene.seen):
                    scene.problems.append(f"{name} was not seen firing")
        finally:
            if options.keep:
                place.keep_logs(options.keep)
            scene.sink.close()
            if scene.stage.watch:
                scene.stage.watch.finish()
    for problem in scene.problems:
        say(f"error: {problem}")
    say(f"{len(scene.seen)} alerts seen firing, {len(scene.problems)} problems")
    return 1 if scene.problems else 0


if __name__ == "__main__":
    sys.exit(main())
