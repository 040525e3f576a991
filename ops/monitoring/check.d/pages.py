"""The queries against pages that were just read: run inside `engine dev -- python pages.py`.

Starts the exporters, Prometheus and Alertmanager on free ports beside the engine, its
PostgreSQL and its Redis that `engine dev` started, makes a few transfers, and reads all pages.
"""

import json
import os
import sys
import urllib.parse
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE / "check.d"), str(HERE.parent / "drill.d")]

import commands  # noqa: E402
import queries  # noqa: E402
from machine import free_ports  # noqa: E402
from processes import Processes  # noqa: E402
from servers import Prometheus, Sink, get, start_alertmanager, start_exporters, wait_for  # noqa: E402


class Room:
    """As much of a drill's place as the servers need."""

    def __init__(self, folder):
        self.work = Path(folder)
        self.processes = Processes(self.work)

    def server_env(self):
        return {"PATH": os.environ["PATH"], "LC_ALL": "C"}


def transfer(key):
    request = urllib.request.Request(
        os.environ["ENGINE_URL"] + "/transaction", json.dumps({"from": 0, "to": 1, "amount": 1}).encode(),
        {"Content-Type": "application/json", "Idempotency-Key": key},
    )  # fmt: skip
    urllib.request.urlopen(request, timeout=10).read()


def read(folder):
    """All pages and the engine's own, from servers that end with this."""
    room, sink = Room(folder), Sink()
    textfiles = room.work / "textfiles"
    textfiles.mkdir()
    (textfiles / "ops_x.prom").write_text("ops_x 1\n")
    for key in "abc":
        transfer(key)
    ports = free_ports(6)
    database = os.environ["ENGINE_TEST_DATABASE_URL"] + "?sslmode=disable"
    redis = urllib.parse.urlsplit(os.environ["ENGINE_TEST_REDIS_URL"]).port
    try:
        start_exporters(room, ports[:4], database, redis, textfiles, "/dev/null")
        start_alertmanager(room, ports[4], sink)
        prometheus = Prometheus(room, ports[5], hurry=False)
        prometheus.configure({"alertmanager": [(f"127.0.0.1:{ports[4]}", {})]})
        prometheus.start()
        wait_for("Prometheus knows Alertmanager", lambda: prometheus.api("alertmanagers")["activeAlertmanagers"], 30)
        pages = queries.Pages()
        own = get(os.environ["ENGINE_ADMIN_URL"] + "/metrics")
        pages.add(own)
        for port in ports:
            pages.add(get(f"http://127.0.0.1:{port}/metrics"))
        # Of a target, whatever it answers; an engine's own address, for it speaks no TLS.
        pages.add(get(f"http://127.0.0.1:{ports[3]}/probe?module=https&target={urllib.parse.quote(os.environ['ENGINE_URL'], safe='')}"))
        # Only of a target over TLS; the live check has one.
        pages.labels.setdefault("probe_ssl_earliest_cert_expiry", {})
        return pages, own
    finally:
        sink.close()
        room.processes.end()


def main():
    pages, own = read(sys.argv[1])
    problems = [*queries.wrong_in_queries(pages), *queries.wrong_in_dashboards(), *queries.wrong_in_coverage(own)]
    admin = os.environ["ENGINE_ADMIN_URL"]
    place = {"bin_dir": Path(sys.argv[2]), "engine": os.environ["ENGINE_URL"], "admin": admin, "database": os.environ["DATABASE_URL"]}
    problems += commands.wrong_in_commands(place)
    problems += commands.wrong_in_checks(json.loads(get(admin + "/readyz"))["checks"])
    count = len(list(queries.queries()))
    # What this check is for: a name, a label and a value that are slightly wrong, and no query.
    for planted in ('engine_queue_dept', 'engine_requests_total{rout="x"}', 'engine_transfers_total{outcome="complete"}', 'engine_requests_total{status=~"6.."}',
                    'sum by (rout) (engine_requests_total)', 'pg_stat_database_commits', 'sum(', 'node_cpu_seconds_total{mode="idel"}'):  # fmt: skip
        if not list(queries.wrong_in_query(planted, pages, set())):
            problems.append(f"the check does not notice the planted {planted}")
    for planted in ("engine verfy", "engine maintain --retention 30d", "ops/bakup --list", "journalclt -u engine", "curl -s http://HOST:9464/ready | head", "kubectl get pods | hed",
                    "job-metrics run verify --folder x -- engine verify", "ops/backup --lst", "curl -s 'http://HOST:5000/transactions?status=rejectd'",
                    "psql -h PRIMARY -c 'SELECT 1' -c \"SELECT sync_stat FROM pg_stat_replication\""):  # fmt: skip
        if not list(commands.wrong_in_line(planted, False, place)):
            problems.append(f"the check does not notice the planted {planted}")
    for planted in ("SELECT pg_wal_replay_resum()", "--queue-depth", "ops/restor"):
        if not list(commands.wrong_in_line(planted, True, place)):
            problems.append(f"the check does not notice the planted {planted}")
    planted = list(queries.wrong_in_coverage("# TYPE engine_new_total counter\n" + own, unshown={"engine_ready": "x", "engine_gone": "x"}))
    for said in ("engine_new_total is served", "process_threads is served", "engine_ready is asked for", "engine_gone is served by no engine"):
        if said not in "\n".join(planted):
            problems.append(f"the check does not notice that {said}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{count} queries over {len(pages.labels)} metrics, {len(problems)} problems", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
