"""Every side of ops/bench loadtest: the same task, sent by one client after another.

A side gives one sample per round: {"value", "unit", and details}. `client_cpu` and
`target_cpu` are user and system time as shares of a core over the middle of the run,
without start and report; `cpu_us` is what that makes per request.
"""

import contextlib
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cores import Cores, pinned
from database import BenchError
from engine import check_load

USERS = 64
MANY_USERS = 10_000
# Well below what any of these machines can do: how the schedule holds is asked.
OPEN_RATE = 20_000
WARM_UP_SECONDS = 1
# What a client may take to start, stop and report, beyond its measurement.
GRACE_SECONDS = 60
STOP_SECONDS_MAX = 10
SAMPLE_SECONDS = 0.05
# From here to there before the end, as shares of the measured seconds: to start, to
# spawn and to open 10,000 connections take a client as long as they take.
MIDDLE = (0.8, 0.2)
SCRIPT = Path(__file__).with_name("transfer.lua")
TICKS = os.sysconf("SC_CLK_TCK")
MEANING = {
    "wrk": "wrk with Lua, a new key and two random accounts on each request",
    "loadtest": "the same from loadtest run, closed model, one thread",
    "locust": "the same from one Locust process (FastHttpUser, no pause)",
    "locust-requests": "Locust with its usual client (HttpUser)",
    "wrk-static": "wrk with the same bytes each time: less work than the others do",
    "open": f"loadtest run --rate {OPEN_RATE}: how the schedule holds",
    "users-10000": f"loadtest run --users {MANY_USERS}: its memory",
}


@dataclass
class Context:
    """What the sides of a run share."""

    programs: dict
    cores: Cores
    work: Path
    seconds: int


class Target:
    """A trivial server of its own for each sample; use it as a context manager."""

    def __init__(self, program, core):
        self.command = pinned(core, [program])
        self.process = None
        self.url = None

    def __enter__(self):
        # It ends when this pipe closes, also if this process is killed.
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            self.__exit__()
            raise BenchError(f"the target did not start, and exited {self.process.returncode}")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def cpu_seconds(stat):
    """User and system time in a line of /proc/PID/stat."""
    # The program's name, in brackets, may hold spaces.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Usage:
    """What the client and the target use, sampled while the client runs."""

    def __init__(self, client_pid, target_pid):
        self.pids = (client_pid, target_pid)
        self.rss_mib = 0.0
        # Moments, and the CPU time of both until then.
        self.points = []

    def sample(self):
        client_pid, _ = self.pids
        try:
            stats = [Path(f"/proc/{pid}/stat").read_text(encoding="ascii") for pid in self.pids]
            status = Path(f"/proc/{client_pid}/status").read_text(encoding="utf-8")
        except OSError:
            return
        # One that has ended but was not waited for has no memory left.
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.rss_mib = max(self.rss_mib, int(line.split()[1]) / 1024)
                self.points.append((time.monotonic(), *map(cpu_seconds, stats)))

    def shares(self, seconds):
        """Of a core, by client and target, over the middle of the last `seconds`."""
        last = self.points[-1][0] if self.points else 0.0
        begin, end = MIDDLE
        inside = [p for p in self.points if last - begin * seconds <= p[0] <= last - end * seconds]
        if len(inside) < 2:
            raise BenchError("the client ended before its CPU time could be read")
        first, last = inside[0], inside[-1]
        return [
            (after - before) / (last[0] - first[0]) for before, after in zip(first[1:], last[1:])
        ]


def client(context, target, command, seconds, env=None):
    """Runs a client on its core: its output and usage. BenchError unless it exits 0."""
    output, errors = context.work / "client.out", context.work / "client.err"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            pinned(context.cores.client, command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=context.work,
            env=env,
        )
    usage = Usage(process.pid, target.process.pid)
    give_up = time.monotonic() + seconds + GRACE_SECONDS
    try:
        while process.poll() is None:
            if time.monotonic() > give_up:
                raise BenchError(f"{command[0]} did not end in time, and was killed")
            usage.sample()
            time.sleep(SAMPLE_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        text = errors.read_text(errors="replace").strip() or output.read_text(errors="replace")
        name = Path(str(command[0])).name
        raise BenchError(f"{name} exited {process.returncode}: {text.strip()[-1000:]}")
    return output.read_text(errors="replace"), usage


def run_loadtest(context, target, seconds, *flags):
    """One run of loadtest; its document and what was used."""
    path = context.work / "load.json"
    path.unlink(missing_ok=True)
    command = [context.programs["loadtest"], "run", "--quiet", "--host", target.url]
    command += ["--threads", 1, "--run-time", f"{seconds}s", "--json", path, *flags]
    _, usage = client(context, target, command, seconds)
    return check_load(json.loads(path.read_text())), usage


@contextlib.contextmanager
def warm_target(context):
    """A target that has answered for a while."""
    with Target(context.programs["target"], context.cores.target) as target:
        run_loadtest(context, target, WARM_UP_SECONDS, "--users", USERS)
        yield target


def rate_sample(rate, usage, seconds):
    client_cpu, target_cpu = usage.shares(seconds)
    return {
        "value": rate,
        "unit": "req/s",
        "cpu_us": client_cpu / rate * 1e6,
        "client_cpu": client_cpu,
        "target_cpu": target_cpu,
        "rss_mib": usage.rss_mib,
    }


def parse_wrk(output):
    """The JSON line that transfer.lua prints. BenchError if requests failed."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchError(f"wrk printed no figures: {output.strip()[-500:]}")
    figures = json.loads(lines[-1])
    if figures["errors"] or not figures["requests"]:
        raise BenchError(f"wrk had errors: {figures}")
    return figures


def wrk(env=()):
    def side(context):
        with warm_target(context) as target:
            command = [context.programs["wrk"], "-t1", f"-c{USERS}", f"-d{context.seconds}s"]
            command += ["-s", SCRIPT, target.url]
            output, usage = client(
                context, target, command, context.seconds, env={**os.environ, **dict(env)}
            )
        figures = parse_wrk(output)
        rate = figures["requests"] / figures["duration_us"] * 1e6
        return rate_sample(rate, usage, context.seconds) | {
            "p50_ms": figures["p50_us"] / 1000,
            "p99_ms": figures["p99_us"] / 1000,
        }

    return side


def loadtest(users, *flags):
    def side(context):
        with warm_target(context) as target:
            document, usage = run_loadtest(
                context, target, context.seconds, "--users", users, *flags
            )
        latency = document["latency_us"]["2xx"]
        return rate_sample(document["rate"], usage, context.seconds) | {
            "p50_ms": latency["p50"] / 1000,
            "p99_ms": latency["p99"] / 1000,
            "unsent": document["requests"]["unsent"],
            "lag_p99_ms": document["generator"]["lag_p99_us"] / 1000,
        }

    return side


def open_model(context):
    sample = loadtest(USERS, "--rate", OPEN_RATE)(context)
    return sample | {"held": sample["value"] / OPEN_RATE}


def parse_locust(output):
    """Rate, requests and latencies of `locust --json`. BenchError if requests failed."""
    try:
        rows = json.loads(output)
    except ValueError:
        raise BenchError(f"locust printed no figures: {output.strip()[-500:]}") from None
    requests = sum(row["num_requests"] for row in rows)
    failures = sum(row["num_failures"] for row in rows)
    if failures or not requests:
        raise BenchError(f"locust made {requests} requests, and {failures} failed")
    begin = min(row["start_time"] for row in rows)
    last = max(row["last_request_timestamp"] for row in rows)
    times = {}
    for row in rows:
        for time_ms, count in row["response_times"].items():
            times[float(time_ms)] = times.get(float(time_ms), 0) + count
    return {
        "rate": requests / (last - begin),
        "requests": requests,
        "p50_ms": quantile(times, 0.5),
        "p99_ms": quantile(times, 0.99),
    }


def quantile(times, share):
    """Of a dict from values to how often each was seen."""
    wanted = share * sum(times.values())
    seen = 0
    for value in sorted(times):
        seen += times[value]
        if seen >= wanted:
            return value
    return None


def locust(client_name):
    def side(context):
        # Its figures are reset when all users are there, a second after the start.
        seconds = context.seconds + 1
        command = [context.programs["locust"], "-f", context.programs["locustfile"], "--headless"]
        command += ["--users", USERS, "--spawn-rate", USERS, "--run-time", f"{seconds}s"]
        command += ["--reset-stats", "--json", "--skip-log", "--tags", "transfer"]
        command += ["--wait-min", 0, "--wait-max", 0]
        # Settings of the caller's own Locust are not those of this comparison.
        env = {name: value for name, value in os.environ.items() if name[:7] != "LOCUST_"}
        env["LOCUST_CLIENT"] = client_name
        with warm_target(context) as target:
            command += ["--host", target.url]
            output, usage = client(context, target, command, seconds, env)
        figures = parse_locust(output)
        return rate_sample(figures["rate"], usage, context.seconds) | {
            "p50_ms": figures["p50_ms"],
            "p99_ms": figures["p99_ms"],
        }

    return side


RUNNERS = {
    "wrk": wrk(),
    "loadtest": loadtest(USERS),
    "locust": locust("fast"),
    "locust-requests": locust("requests"),
    "wrk-static": wrk({"TRANSFER_STATIC": "1"}),
    "open": open_model,
    "users-10000": loadtest(MANY_USERS),
}
SIDES = list(RUNNERS)


def choose(only):
    """The sides to run, in order."""
    if only is None:
        return SIDES
    names = only.split(",")
    for name in names:
        if name not in RUNNERS:
            raise BenchError(f"--only {name}: no such side; there are {', '.join(SIDES)}")
    return [side for side in SIDES if side in names]
