"""What makes each alert fire: a cause per function, in an order in which none is in another's way.

A cause takes the scene of live.py, makes something happen, says which alerts it expects, mends
it, and says which have to be gone.
"""

import contextlib
import json
import os
import resource
import socket
import subprocess
import threading
import time

from machine import free_ports
from processes import pause_tree, resume_tree
from rules import HERE
from servers import get, wait_for
from services import Engine, call
from stage import SPECIAL

JOB_METRICS = HERE / "job-metrics"


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
    scene.assert_inhibited("EngineNotReady", "EngineRefusing")
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
    def ask(engine, path, asked):
        status, _ = engine.call("POST", path, asked)
        if status == 503:
            # Who is turned away waits, as Retry-After says: a flood of 503 would hide the 504.
            time.sleep(1)
    calls = [Repeat(lambda engine=engine: ask(engine, "/transactions", body), 24) for engine in stage.engines]
    calls += [Repeat(lambda engine=engine: ask(engine, "/transaction", one), 24) for engine in stage.engines]
    with calls[0], calls[1], calls[2], calls[3]:
        scene.expect("EngineQueueFilling", "EnginePermitsSaturated", "EngineServerErrors", "EngineTransfersFailing", "EngineErrorBudgetBurnFast", "EngineErrorBudgetBurnSlow", seconds=28)
    lock.join()
    scene.gone("EngineQueueFilling", "EnginePermitsSaturated", "EngineServerErrors", "EngineTransfersFailing")


def commits_slow(scene):
    """Somebody locks the accounts for most of each second."""
    node = scene.stage.primary
    with Repeat(lambda: node.query("BEGIN; LOCK TABLE accounts IN EXCLUSIVE MODE; SELECT pg_sleep(0.8); COMMIT"), 1):
        scene.expect("EngineLatencyBudgetBurnFast", "EngineLatencyBudgetBurnSlow")


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


@contextlib.contextmanager
def another_engine(scene, name, wrapper=(), **settings):
    """A third engine on the same database, which Prometheus knows while this lasts."""
    ports = free_ports(2)
    engine = Engine(scene.place, name, *ports, {**scene.stage.engines[0].environment, "ENGINE_DURABILITY": "auto", **settings})
    command = [*wrapper, scene.place.program("engine"), "serve", "--listen", f"127.0.0.1:{ports[0]}", "--admin-listen", f"127.0.0.1:{ports[1]}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ENGINE_", "PG"))} | engine.environment
    engine.process = scene.place.processes.start(f"engine-{name}", command, env=environment)
    scene.prometheus.target("engine", *scene.engine_targets, (f"127.0.0.1:{ports[1]}", {}))
    try:
        yield engine
    finally:
        engine.process.kill()
        scene.prometheus.target("engine", *scene.engine_targets)


def clock_off(scene):
    """An engine whose clock is ten seconds late."""
    with another_engine(scene, "late", ["faketime", "-f", "-10s"]):
        scene.expect("EngineClockSkew")
    scene.gone("EngineClockSkew")


def ask_and_not_read(port, question):
    """A connection whose client reads nothing: small buffers and segments, so that the kernel takes little."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    link.connect(("127.0.0.1", port))
    link.sendall(question)
    return link


def connections_taken(scene):
    """Clients that ask for long lists and read none, so many that others find no place; then no open file is left."""
    question = b"GET /transactions?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n"
    settings = {"ENGINE_CONNECTIONS_MAX": "128", "ENGINE_ANSWER_BYTES_IN_FLIGHT_MAX": "16MiB", "ENGINE_WRITE_TIMEOUT": "120s"}
    with another_engine(scene, "full", **settings) as engine:
        engine.wait_ready()
        links = [ask_and_not_read(engine.port, question) for _ in range(112)]
        scene.expect("EngineAnswerBudgetFilling", "EngineConnectionsFilling")
        more = [socket.create_connection(("127.0.0.1", engine.port)) for _ in range(24)]
        scene.expect("EngineConnectionsRefused")
        for link in links + more:
            link.close()
        scene.gone("EngineAnswerBudgetFilling", "EngineConnectionsFilling")
        files = resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE)
        # No file more than there are: the next client waits, and the scrapes fail too until this is over.
        resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, (3, files[1]))
        with socket.create_connection(("127.0.0.1", engine.port)):
            time.sleep(3)
        resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, files)
        scene.expect("EngineAcceptFailing")


def schema_of_the_next_release(scene):
    """A migration that these engines do not know, as after a rollback."""
    node = scene.stage.primary
    node.query("INSERT INTO refinery_schema_history SELECT max(version) + 1, 'planted', max(applied_on), max(checksum) FROM refinery_schema_history")
    scene.expect("EngineSchemaNewer")
    node.query("DELETE FROM refinery_schema_history WHERE name = 'planted'")
    scene.gone("EngineSchemaNewer")


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
        lines.append(f'kube_pod_container_state_started{{container="engine",pod="engine-1"}} {old - 2_160_000}')
        return "\n".join(lines) + "\n"

    scene.sink.pages["/metrics"] = page(0)
    scene.prometheus.target("engine", *scene.engine_targets, (f"127.0.0.1:{scene.sink.port}", {}))
    wait_for("the made-up page is read", lambda: scene.prometheus.query(f'engine_task_panics_total{{instance="127.0.0.1:{scene.sink.port}"}}'), 30)
    time.sleep(2)
    scene.sink.pages["/metrics"] = page(1)
    scene.expect("EngineTaskPanicked", "EngineReplicationLag", "EngineLedgerCheckTooOld", "EngineMaintenanceFailed", "EngineBackupTooOld", "EngineLedgerCheckFailed", "EngineRolloutFailed", "EnginePasswordOld")
    scene.prometheus.target("engine", *scene.engine_targets)
    scene.gone("EngineTaskPanicked", "EngineReplicationLag", "EngineLedgerCheckTooOld")


CAUSES = [
    certificate_and_jobs, engine_killed, engines_unknown, redis_stopped, business_rejections, reads_blocked, replica_paused,
    bodies_half_sent, database_read_only, standby_lost, partitions_dropped, partitions_made, schema_of_the_next_release, connections_taken, committers_shut_out, account_held, commits_slow, database_stands_still, made_up_page, clock_off, primary_lost,
]  # fmt: skip
