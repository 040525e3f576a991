"""The load generator with its journal, and the reconciliation."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from faults import DrillError

SCENARIO = Path(__file__).resolve().parent / "scenario.toml"
# Longer than any drill: a drill ends its load when it has seen enough.
RUN_SECONDS_MAX = 170
VERIFY_SECONDS_MAX = 120


class Load:
    """One `loadtest run --journal`.

    Without a rate each user sends as soon as it was answered: the maximum.
    """

    def __init__(self, place, port, accounts, rate, users, retries=5, name="load",
                 scenario=SCENARIO, run_seconds=RUN_SECONDS_MAX):  # fmt: skip
        self.place = place
        self.name = name
        self.rate = rate
        self.journal = place.work / f"{name}.journal"
        self.report = place.work / f"{name}.json"
        self.command = [
            place.program("loadtest"), "run", "--quiet", "--host", f"http://127.0.0.1:{port}",
            "--accounts", f"1..={accounts}", *(["--rate", rate] if rate else []), "--users", users,
            "--run-time", f"{run_seconds}s", "--timeout", "15s", "--retries", retries,
            "--threads", 1, "--scenario", scenario,
            "--journal", self.journal, "--json", self.report,
        ]  # fmt: skip
        self.process = None
        self.began = None

    def start(self):
        self.began = time.monotonic()
        self.process = self.place.processes.start(f"loadtest-{self.name}", self.command)

    def check_running(self):
        if not self.process.running():
            raise DrillError(f"the load generator ended:\n{self.process.log_tail()}")

    def finish(self):
        """Ends the load and returns its report."""
        self.check_running()
        self.process.stop(signal.SIGINT, seconds=60)
        if not self.report.is_file():
            raise DrillError(f"the load generator left no report:\n{self.process.log_tail()}")
        return json.loads(self.report.read_text())

    def reconcile(self, database_url, host_port, seconds=VERIFY_SECONDS_MAX):
        """`loadtest verify` against the ledger; its document."""
        path = self.place.work / "verify.json"
        command = [
            self.place.program("loadtest"), "verify", "--quiet", "--journal", self.journal,
            "--host", f"http://127.0.0.1:{host_port}", "--json", path,
        ]  # fmt: skip
        environment = dict(os.environ, LOADTEST_DATABASE_URL=database_url)
        done = subprocess.run(
            [str(part) for part in command], env=environment, capture_output=True,
            text=True, check=False, timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        (self.place.work / "verify.log").write_text(done.stdout + done.stderr)
        if not path.is_file():
            raise DrillError(f"loadtest verify exited {done.returncode}:\n{done.stderr[-800:]}")
        return json.loads(path.read_text())
