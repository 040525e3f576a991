"""The engine under load: its process, its accounts, its load generator.

The load generator is our own: `ops/bench loadtest` measures what it costs, against
wrk and Locust.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time

from database import BenchError, Database, run

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
CALL_SECONDS_MAX = 60
# Longer than the time to live of a cached balance: an engine reads PostgreSQL
# for that long after it starts.
CACHE_SECONDS_MAX = 180
ITEMS_PER_CALL = 1000
FUNDING = "1000000000"


def free_ports(count):
    """Ports that are free now; all are held until all are known."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def call(port, method, path, body=None):
    """Status and parsed body of one request."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_SECONDS_MAX)
    try:
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        link.request(method, path, body=data, headers=headers)
        answer = link.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")
    finally:
        link.close()


class Memory(threading.Thread):
    """Samples the resident memory of a process twice a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path = f"/proc/{pid}/status"
        self.samples = []
        self.stop = threading.Event()

    def run(self):
        while not self.stop.wait(0.5):
            try:
                with open(self.path, encoding="ascii") as status:
                    lines = [line for line in status if line.startswith("VmRSS:")]
            except OSError:
                return
            if lines:
                self.samples.append(int(lines[0].split()[1]) / 1024)

    def finish(self):
        """MiB: the highest, and how much the second half's peak is above the first's."""
        self.stop.set()
        self.join()
        if len(self.samples) < 2:
            return {"rss_mib_max": None, "rss_mib_growth": None}
        half = len(self.samples) // 2
        growth = max(self.samples[half:]) - max(self.samples[:half])
        return {
            "rss_mib_max": round(max(self.samples), 1),
            "rss_mib_growth": round(growth, 1),
        }


class Engine:
    """A serving engine; use it as a context manager."""

    def __init__(self, program, database, redis_url, log_path, flags=()):
        self.program = program
        self.database = database
        self.redis_url = redis_url
        self.log_path = log_path
        self.flags = list(flags)
        self.process = None
        self.port = None

    def __enter__(self):
        self.port, admin_port = free_ports(2)
        env = dict(os.environ, ENGINE_DATABASE_URL=self.database.url())
        if self.redis_url:
            env["ENGINE_REDIS_URL"] = self.redis_url
        command = [self.program, "serve", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--admin-listen", f"127.0.0.1:{admin_port}", *self.flags]
        with open(self.log_path, "ab") as log:
            # A descriptor per connection: the soft limit is often 1,024.
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.wait_ready(admin_port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_ready(self, admin_port):
        give_up = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                raise BenchError(f"engine exited {self.process.returncode}:\n{self.log_tail()}")
            try:
                if call(admin_port, "GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise BenchError(f"engine not ready in {START_SECONDS_MAX} s:\n{self.log_tail()}")

    def log_tail(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-12:])

    def __exit__(self, *_):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise BenchError(f"engine did not stop in {STOP_SECONDS_MAX} s") from None

    def expect(self, method, path, body, statuses):
        status, answer = call(self.port, method, path, body)
        if status not in statuses:
            raise BenchError(f"{method} {path} answered {status}: {str(answer)[:500]}")
        return answer

    def open_accounts(self, count):
        """Opens accounts 0 (funding) to `count`, and funds each by a transfer."""
        funding = {"account_id": 0, "currency": "USD", "min_balance": None}
        self.expect("POST", "/accounts", funding, (200, 201))
        for first in range(1, count + 1, ITEMS_PER_CALL):
            ids = range(first, min(first + ITEMS_PER_CALL, count + 1))
            accounts = [{"account_id": i, "currency": "USD", "min_balance": 0} for i in ids]
            self.expect("POST", "/accounts", accounts, (200, 201))
            transfers = [
                {"from": 0, "to": i, "amount": FUNDING, "idempotency_key": f"bench-fund-{i}"}
                for i in ids
            ]
            answer = self.expect("POST", "/transactions", {"transfers": transfers}, (200,))
            bad = [item for item in answer["results"] if item.get("status") != "completed"]
            if bad:
                raise BenchError(f"funding failed: {bad[0]}")

    def wait_cached(self, account):
        """Waits until balances are served from the cache."""
        give_up = time.monotonic() + CACHE_SECONDS_MAX
        while time.monotonic() < give_up:
            answer = self.expect("GET", f"/balance/{account}", None, (200,))
            if answer.get("cached") is True:
                return
            time.sleep(0.2)
        raise BenchError(f"no balance came from the cache within {CACHE_SECONDS_MAX} s")


class Ledger:
    """The database of engine sides, and how it is loaded."""

    def __init__(self, server_url, redis_url, programs, work, accounts, name="bench_engine"):
        self.database = Database(server_url, name)
        self.redis_url = redis_url
        self.programs = programs
        self.work = work
        self.accounts = accounts
        self.ready = False

    def engine(self, *flags):
        log_path = self.work / f"{self.database.name}.log"
        program = self.programs["engine"]
        return Engine(program, self.database, self.redis_url, log_path, flags)

    def prepare(self):
        if self.ready:
            return
        self.database.create(self.programs["engine"])
        with self.engine() as engine:
            engine.open_accounts(self.accounts)
        self.database.query("VACUUM (ANALYZE) accounts")
        self.ready = True

    def load(self, engine, seconds, users, task="transfer", hot="0", rate=None, timeout="30s"):
        """One run of the load generator; its JSON document."""
        path = self.work / "load.json"
        path.unlink(missing_ok=True)
        command = [self.programs["loadtest"], "run", "--quiet"]
        command += ["--host", f"http://127.0.0.1:{engine.port}", "--json", path]
        command += ["--users", users, "--run-time", f"{seconds}s", "--task", task]
        # An answer per request: what is refused is counted, not sent again.
        command += ["--retries", "0"]
        command += ["--accounts", f"1..={self.accounts}", "--hot", hot, "--timeout", timeout]
        if rate is not None:
            command += ["--rate", rate]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False
        )
        if not path.exists():
            raise BenchError(f"loadtest exited {done.returncode}: {done.stderr.strip()}")
        return json.loads(path.read_text())

    def verify(self):
        """`engine verify`; its output. BenchError if a check finds a row."""
        env = dict(os.environ, ENGINE_DATABASE_URL=self.database.url())
        return run([self.programs["engine"], "verify"], env=env).strip()


def check_load(document, allowed=frozenset({"200"})):
    """BenchError if a run had errors, replays, or a status that is not allowed."""
    errors = document["errors"]
    broken = sum(errors[name] for name in ("connect", "io", "timeout", "protocol"))
    if broken:
        raise BenchError(f"load errors: {errors}, last: {document['last_error']}")
    if document["requests"]["replayed"]:
        raise BenchError("the load repeated a key")
    odd = {s: n for s, n in document["statuses"].items() if s not in allowed}
    if odd:
        raise BenchError(f"unexpected answers {odd}, codes {document['codes']}")
    transfers = document["transfers"]
    if transfers["rejected"] or (transfers["failed"] and "503" not in allowed):
        raise BenchError(f"unexpected outcomes {transfers}, codes {document['codes']}")
    return document
