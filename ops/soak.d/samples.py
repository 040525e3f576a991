"""What is measured every few seconds: the engine's own page, and /proc for the rest."""

import os
import time
from pathlib import Path

from faults import DrillError
from processes import descendants
from services import call

KIB = 1024
# Gauges of the engine that must stay bounded whatever happens, as they are told.
GAUGES = {
    "rss": "process_resident_memory_bytes",
    "fds": "process_open_fds",
    "threads": "process_threads",
    "connections": "engine_connections",
    "permits": "engine_permits_in_use",
    "queue": "engine_queue_depth",
    "batches": "engine_batches_in_flight",
    "bodies": "engine_body_in_flight_bytes",
    "pool_waiting": "engine_pool_waiting",
    "pool": "engine_pool_connections",
}
COUNTERS = {"transfers": "engine_transfers_total", "requests": "engine_requests_total"}
# And their own bounds, where the page tells them.
BOUNDS = {
    "permits": "engine_permits_max",
    "queue": "engine_queue_depth_max",
    "bodies": "engine_body_in_flight_max_bytes",
    "pool": "engine_pool_connections_max",
}
DURATIONS = "engine_request_duration_seconds_bucket"


def parse(page):
    """A page of metrics as {name: sum over labels}, and the buckets of the durations."""
    sums, buckets = {}, {}
    for line in page.splitlines():
        if not line or line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        name, _, labels = series.partition("{")
        sums[name] = sums.get(name, 0.0) + float(value)
        if name == DURATIONS:
            edge = labels.partition('le="')[2].partition('"')[0]
            edge = float("inf") if edge == "+Inf" else float(edge)
            buckets[edge] = buckets.get(edge, 0.0) + float(value)
    return sums, buckets


def quantile(before, after, share):
    """The upper edge of the bucket in which this quantile of what came between lies."""
    total = after.get(float("inf"), 0) - before.get(float("inf"), 0)
    if total <= 0:
        return None
    for edge in sorted(after):
        if after[edge] - before.get(edge, 0) >= share * total:
            return edge
    return None


def memory(pid, field="Pss"):
    """Bytes of one process: its share of what is shared; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * KIB
    return 0


def title(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def folder_bytes(folder):
    """Bytes on disk below a folder; files come and go meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    return total


def free_bytes(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Sampler:
    """Takes measurements of one engine, its servers and its load."""

    def __init__(self, stage, role):
        self.stage = stage
        self.role = role
        self.rows = []
        self.bounds = {}
        self.last = None

    def take(self):
        """One row, appended and returned."""
        stage, now = self.stage, time.monotonic()
        status, page = call(stage.engines[0].admin_port, "GET", "/metrics")
        if status != 200:
            raise DrillError(f"/metrics answered {status}")
        sums, buckets = parse(page)
        missing = [name for name in [*GAUGES.values(), *COUNTERS.values()] if name not in sums]
        if missing:
            raise DrillError(f"/metrics has no {', '.join(missing)}")
        self.bounds = {name: sums.get(metric) for name, metric in BOUNDS.items()}
        row = {"at": now - stage.load.began}
        row |= {name: sums[metric] for name, metric in GAUGES.items()}
        row |= {name: sums[metric] for name, metric in COUNTERS.items()}
        row |= self.servers()
        if self.last is not None:
            before, seen = self.last
            seconds = row["at"] - before["at"]
            row["per_second"] = (row["transfers"] - before["transfers"]) / seconds
            row["p99_ms"] = (lambda q: q and q * 1000)(quantile(seen, buckets, 0.99))
        self.last = (row, buckets)
        self.rows.append(row)
        return row

    def servers(self):
        """Memory and disk of everything that is not the engine."""
        stage = self.stage
        postgres = stage.primary.process.pid
        everyone = [postgres, *descendants(postgres)]
        sessions = [pid for pid in everyone if f" {self.role} " in title(pid)]
        return {
            "postgres": sum(memory(pid) for pid in everyone),
            # Without the shared buffers, which fill up and are bounded by a setting.
            "sessions": sum(memory(pid, "Pss_Anon") for pid in sessions),
            "session_count": len(sessions),
            "redis": memory(stage.redis["a"].process.pid),
            "generator": memory(stage.load.process.pid),
            "disk": folder_bytes(stage.place.work),
            "free": free_bytes(stage.place.work),
        }

    def line(self, name):
        """(seconds, value) of one measurement."""
        return [(row["at"], row[name]) for row in self.rows if row.get(name) is not None]
