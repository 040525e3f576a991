"""A real Prometheus beside real engines under load; each engine alert's cause, made to happen.

    live.py --bin-dir DIR [--keep FOLDER]

Two engines on a primary with a synchronous standby and Redis, as ops/drill builds them, the
exporters, Alertmanager with its messages caught. Alerts whose cause cannot be made here are
shown a page of a real engine with that one figure changed: panics, the lag that a primary
sees of a distant region, what Kubernetes tells.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE / "check.d"), str(HERE.parent / "drill.d")]

import queries  # noqa: E402
from machine import free_ports  # noqa: E402
from place import Place  # noqa: E402
from processes import pause_tree, resume_tree  # noqa: E402
from rules import alerts  # noqa: E402
from servers import Prometheus, Sink, get, start_alertmanager, start_exporters, wait_for  # noqa: E402
from services import Engine, call  # noqa: E402
from stage import SPECIAL, Stage, database_url  # noqa: E402
from static import LOG_FIELDS  # noqa: E402

JOB_METRICS = HERE / "job-metrics"
FIRES_SECONDS_MAX = 45
RESOLVES_SECONDS_MAX = 45


def say(text):
    print(text, file=sys.stderr, flush=True)


class Scene:
    """The installation, its monitoring, and what was seen."""

    def __init__(self, place, options):
        self.place = place
        options.say = lambda _: None
        options.rate = 150
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
        manager, port = free_ports(2)
        database = f"postgres://postgres@127.0.0.1:{stage.nodes['a'].port}/postgres?sslmode=disable"
        tls_port, certificate = self.start_tls()
        start_exporters(self.place, exporters, database, stage.redis["a"].port, self.textfiles, certificate)
        start_alertmanager(self.place, manager, self.sink)
        self.prometheus = Prometheus(self.place, port, hurry=True)
        near = lambda number: f"127.0.0.1:{number}"
        self.engine_targets = [(near(engine.admin_port), {}) for engine in stage.engines]
        self.prometheus.configure({
            "engine": self.engine_targets, "postgres": [(near(exporters[0]), {})], "redis": [(near(exporters[1]), {})], "node": [(near(exporters[2]), {})],
            "alertmanager": [(near(manager), {})], "prometheus": [(near(port), {})],
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
                found |= set(json.loads(line))
            except ValueError:
                self.problems.append(f"a line of the engine's log is no JSON: {line[:200]}")
                break
        if LOG_FIELDS - found:
            self.problems.append(f"no line of the engine's log has {', '.join(sorted(LOG_FIELDS - found))}")

    def assert_told(self):
        """A page reached the pager and the team, the heartbeat its service, and inhibition held."""
        paths = {path for path, _ in list(self.sink.received)}
        for path in ("/v2/enqueue", "/slack", "/heartbeat"):
            if path not in paths:
                self.problems.append(f"no message went to {path}")
        text = " ".join(body for path, body in list(self.sink.received) if path == "/v2/enqueue")
        if "EngineDown" not in text or "ops/monitoring/runbooks/" not in text:
            self.problems.append("the pager was not told of EngineDown with its runbook")


# --- causes

def certificate_and_jobs(scene):
    """A certificate that ends in two days; a ledger tampered with; an old backup; a failed deployment."""
    scene.expect("CertificateExpiring", "CertificateExpiresSoon", "Watchdog", "HostBackupUnknown")
    scene.tls.stop()
    scene.expect("CertificateProbeFailed")
    backups = scene.place.work / "backups/ledger-1"
    backups.mkdir(parents=True)
    (backups / "manifest.json").write_text('{"taken_at": "2026-01-01T00:00:00.000000Z"}')
    subprocess.run([JOB_METRICS, "backup", "--logical", backups.parent, "--dir", scene.textfiles], check=True)
    node = scene.stage.primary
    environment = dict(os.environ, ENGINE_DATABASE_URL=node.url("engine_read"))
    verify = ["env", f"ENGINE_DATABASE_URL={environment['ENGINE_DATABASE_URL']}", scene.place.program("engine"), "verify"]
    # One that nobody uses: a transfer in between would write the wrong balance down for good.
    account = 910_000
    scene.stage.engines[0].expect("POST", "/accounts", {"account_id": account, "currency": "USD", "min_balance": 0})
    node.query(f"UPDATE accounts SET balance = balance + 1 WHERE id = {account}")
    if scene.job("verify", *verify).returncode != 1:
        scene.problems.append("engine verify did not notice a balance that was tampered with")
    scene.job("deploy", "false")
    scene.job("maintain", "false")
    scene.expect("EngineBackupTooOld", "EngineLedgerCheckFailed", "EngineRolloutFailed", "HostJobFailed")
    node.query(f"UPDATE accounts SET balance = balance - 1 WHERE id = {account}")
    done = scene.job("verify", *verify)
    if done.returncode:
        scene.problems.append(f"engine verify after the repair: {done.stdout}{done.stderr}")
    scene.job("deploy", "true")
    scene.job("maintain", "true")
    scene.gone("EngineLedgerCheckFailed", "EngineRolloutFailed", "HostJobFailed", "HostBackupUnknown")


def engine_killed(scene):
    """SIGKILL, then twice more: down, and restarting."""
    engine = scene.stage.engines[1]
    engine.process.kill()
    scene.expect("EngineDown")
    for again in (False, True, True):
        if again:
            engine.process.kill()
        engine.start()
        time.sleep(2.5)
    scene.expect("EngineRestarting")
    scene.gone("EngineDown")


def engines_unknown(scene):
    """Discovery finds nobody."""
    scene.prometheus.target("engine")
    scene.expect("EngineAbsent")
    scene.prometheus.target("engine", *scene.engine_targets)
    scene.gone("EngineAbsent")


def redis_stopped(scene):
    redis = scene.stage.redis["a"]
    redis.process.stop()
    scene.expect("EngineCacheBreakerOpen", "RedisDown")
    redis.start()
    scene.gone("EngineCacheBreakerOpen", "RedisDown")


def business_rejections(scene):
    """More than half of all transfers ask for what is not there."""
    engine = scene.stage.engines[0]
    poor, rich = SPECIAL["witnesses"]
    body = {"transfers": [{"from": poor, "to": rich, "amount": "900000000"}] * 1000}
    with Repeat(lambda: engine.call("POST", "/transactions", body), 1):
        scene.expect("EngineRejectionsHigh")


def reads_blocked(scene):
    """Somebody holds a table; reads wait for a connection of the pool."""
    node, engine = scene.stage.primary, scene.stage.engines[0]
    lock = threading.Thread(target=node.try_query, args=("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(14); ROLLBACK",))
    lock.start()
    path = f"/balance/{SPECIAL['canary']}?consistent=true"
    with Repeat(lambda: call(engine.port, "GET", path, timeout=12), 16):
        scene.expect("EnginePoolSaturated", seconds=14)
    lock.join()
    scene.gone("EnginePoolSaturated")


def replica_paused(scene):
    """The standby replays nothing; it still receives, so commits go on."""
    standby = scene.stage.nodes["b"]
    standby.query("SELECT pg_wal_replay_pause()", database="postgres")
    engine = scene.stage.engines[0]
    with Repeat(lambda: (engine.call("GET", "/accounts?limit=5"), time.sleep(0.1)), 2):
        scene.expect("EngineReplicaLag")
    standby.query("SELECT pg_wal_replay_resume()", database="postgres")
    scene.gone("EngineReplicaLag")


def partitions_dropped(scene):
    node = scene.stage.primary
    names = node.query("SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'transfers'::regclass ORDER BY inhrelid::regclass::text DESC LIMIT 10").split()
    for name in names:
        node.query(f"DROP TABLE {name}")
    # The engine looks once a minute.
    scene.expect("EnginePartitionsRunningOut", seconds=75)


def partitions_made(scene):
    environment = dict(os.environ, ENGINE_DATABASE_URL=scene.stage.primary.url("engine_owner"))
    done = subprocess.run([scene.place.program("engine"), "maintain"], env=environment, capture_output=True, text=True)
    if done.returncode:
        scene.problems.append(f"engine maintain: {done.stderr}")


def database_read_only(scene):
    node = scene.stage.primary
    node.query("ALTER SYSTEM SET default_transaction_read_only = on", database="postgres")
    node.query("SELECT pg_reload_conf()", database="postgres")
    scene.expect("EngineDatabaseDown", "EngineNotReady", "EngineRefusing")
    node.query("SET transaction_read_only = off; SET default_transaction_read_only = off", database="postgres")
    path = node.data / "postgresql.auto.conf"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "read_only" not in line))
    node.tool("pg_ctl", "reload", "-D", node.data)
    scene.gone("EngineDatabaseDown", "EngineNotReady")


def standby_lost(scene):
    """Less than --durability."""
    standby = scene.stage.nodes["b"]
    standby.stop()
    scene.expect("EngineNotDurable")
    standby.start()
    scene.gone("EngineNotDurable")


def bodies_half_sent(scene):
    """A client that sends large bodies and does not end them."""
    import socket

    engine, links = scene.stage.engines[0], []
    for _ in range(3):
        link = socket.create_connection(("127.0.0.1", engine.port))
        length = (7 << 20) + (1 << 19)
        link.sendall(f"POST /transactions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode())
        link.settimeout(2)
        try:
            link.sendall(b" " * (length - 10))
        except OSError:
            pass
        links.append(link)
    scene.expect("EngineBodyBudgetFilling", seconds=15)
    for link in links:
        link.close()
    scene.gone("EngineBodyBudgetFilling")


def committers_shut_out(scene):
    """The role may open no further connection, and those of the committers end."""
    node = scene.stage.primary
    node.query("ALTER ROLE engine_app CONNECTION LIMIT 0", database="postgres")
    node.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'engine_app' AND query NOT LIKE '%pg_stat_wal_receiver%'", database="postgres")
    scene.expect("EngineCommittersAway")
    node.query("ALTER ROLE engine_app CONNECTION LIMIT -1", database="postgres")
    scene.gone("EngineCommittersAway")


def account_held(scene):
    """Somebody holds the row of an account that everybody pays into: what waits for it fills the queue."""
    node, stage = scene.stage.primary, scene.stage
    lock = threading.Thread(target=node.try_query, args=("BEGIN; SELECT 1 FROM accounts WHERE id = 7 FOR UPDATE; SELECT pg_sleep(28); ROLLBACK",), kwargs={"seconds": 40})
    lock.start()
    one = {"from": 8, "to": 7, "amount": 1}
    body = {"transfers": [{"from": 10 + n, "to": 7, "amount": 1} for n in range(400)]}
    calls = [Repeat(lambda engine=engine: engine.call("POST", "/transactions", body), 24) for engine in stage.engines]
    calls += [Repeat(lambda engine=engine: engine.call("POST", "/transaction", one), 24) for engine in stage.engines]
    with calls[0], calls[1], calls[2], calls[3]:
        scene.expect("EngineQueueFilling", "EnginePermitsSaturated", "EngineServerErrors", "EngineTransfersFailing", "EngineErrorBudgetBurnFast", "EngineErrorBudgetBurnSlow", seconds=28)
    lock.join()
    # What had waited is answered late.
    scene.expect("EngineLatencyBudgetBurnFast", "EngineLatencyBudgetBurnSlow")
    scene.gone("EngineQueueFilling", "EnginePermitsSaturated", "EngineServerErrors", "EngineTransfersFailing")


def database_stands_still(scene):
    """SIGSTOP to the primary and its sessions."""
    pause_tree(scene.stage.primary.process.pid)
    scene.expect("EngineDatabaseDown", "EngineNotReady")
    resume_tree(scene.stage.primary.process.pid)
    scene.gone("EngineDatabaseDown", "EngineNotReady")


def primary_lost(scene):
    """SIGKILL to the primary, its standby promoted."""
    stage = scene.stage
    stage.nodes["a"].kill()
    scene.expect("PostgresDown")
    stage.nodes["b"].promote()
    stage.nodes["b"].reload(synchronous_standby_names="")
    stage.primary = stage.nodes["b"]
    scene.expect("EngineDatabaseFailover", "EngineNotDurable")


def clock_off(scene):
    """An engine whose clock is ten seconds late, if faketime is there."""
    ports = free_ports(2)
    engine = Engine(scene.place, "late", *ports, {**scene.stage.engines[0].environment, "ENGINE_DURABILITY": "auto"})
    command = ["faketime", "-f", "-10s", scene.place.program("engine"), "serve", "--listen", f"127.0.0.1:{ports[0]}", "--admin-listen", f"127.0.0.1:{ports[1]}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ENGINE_", "PG"))} | engine.environment
    engine.process = scene.place.processes.start("engine-late", command, env=environment)
    scene.prometheus.target("engine", *scene.engine_targets, (f"127.0.0.1:{ports[1]}", {}))
    scene.expect("EngineClockSkew")
    engine.process.kill()
    scene.prometheus.target("engine", *scene.engine_targets)
    scene.gone("EngineClockSkew")


def made_up_page(scene):
    """What cannot be made to happen here: a real page with one figure changed; Kubernetes' own figures."""
    text = get(f"http://127.0.0.1:{scene.stage.engines[0].admin_port}/metrics")
    old = int(time.time()) - 300_000

    def page(panics):
        lines = []
        for line in text.splitlines():
            name = line.split(" ")[0]
            lines.append({"engine_task_panics_total": f"{name} {panics}", "engine_database_replication_lag_seconds": f"{name} 31"}.get(name, line))
        lines += [f'kube_cronjob_status_last_successful_time{{cronjob="engine-{each}"}} {old}' for each in ("backup", "verify", "maintain")]
        lines += ['kube_job_status_failed{job_name="engine-verify-1"} 1', 'rollout_info{name="engine",phase="Degraded"} 1']
        return "\n".join(lines) + "\n"

    scene.sink.pages["/metrics"] = page(0)
    scene.prometheus.target("engine", *scene.engine_targets, (f"127.0.0.1:{scene.sink.port}", {}))
    wait_for("the made-up page is read", lambda: scene.prometheus.query(f'engine_task_panics_total{{instance="127.0.0.1:{scene.sink.port}"}}'), 30)
    time.sleep(2)
    scene.sink.pages["/metrics"] = page(1)
    scene.expect("EngineTaskPanicked", "EngineReplicationLag", "EngineLedgerCheckTooOld", "EngineMaintenanceFailed", "EngineBackupTooOld", "EngineLedgerCheckFailed", "EngineRolloutFailed")
    scene.prometheus.target("engine", *scene.engine_targets)
    scene.gone("EngineTaskPanicked", "EngineReplicationLag", "EngineLedgerCheckTooOld")


CAUSES = [
    certificate_and_jobs, engine_killed, engines_unknown, redis_stopped, business_rejections, reads_blocked, replica_paused,
    bodies_half_sent, database_read_only, standby_lost, partitions_dropped, partitions_made, committers_shut_out, account_held, database_stands_still, made_up_page, clock_off, primary_lost,
]  # fmt: skip


class Repeat:
    """Calls again and again from some threads; failures are part of it."""

    def __init__(self, act, threads):
        self.act, self.stopping = act, threading.Event()
        self.threads = [threading.Thread(target=self.go_on, daemon=True) for _ in range(threads)]

    def go_on(self):
        while not self.stopping.is_set():
            try:
                self.act()
            except Exception:  # noqa: BLE001 - a broken connection is what some causes bring
                time.sleep(0.1)

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.stopping.set()


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
