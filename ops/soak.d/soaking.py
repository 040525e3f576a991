"""The soak: one engine on servers of its own, load, measurements, verdict.

Owns: how long it runs and when it must stop early; what is promised at the end.
Never: takes the disk's last bytes: see `room`.
"""

import os
import platform
import sys
import time
from pathlib import Path

import flat
import samples
from faults import DrillError
from load import Load
from machine import free_ports
from postgres import Node
from services import Engine, Redis
from stage import Stage, as_json, database_url, make_ledger

SCENARIO = Path(__file__).resolve().parent / "scenario.toml"
ROLE = "engine_app"
INTERVAL_S = 5
# Long enough to see what the rate is.
FORECAST_S = 60
# With the journal, both indexes, the key and its index, and the log between two checkpoints.
BYTES_PER_TRANSFER = 800
WAL_BYTES = 4 << 30
# A look at tens of millions of rows takes minutes.
VERIFY_SECONDS_MAX = 3600
# What differs from the drills: a server for load, not one of several on one machine.
DATABASE = {
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "wal_compression": "lz4",
    "checkpoint_timeout": "5min",
}
MEMORY = {
    "rss": "engine, resident",
    "sessions": "PostgreSQL, private memory of the engine's sessions",
    "redis": "Redis",
}
COUNTS = {"fds": "engine, open files", "threads": "engine, threads"}
BOUNDED = {
    "permits": "transfers admitted",
    "queue": "transfers waiting",
    "bodies": "bytes of bodies",
    "pool": "connections for reads",
}


def gib(count):
    return f"{count / (1 << 30):.1f} GiB"


def room(options):
    """How many bytes may be written, and a complaint if that is certainly too little."""
    free = samples.free_bytes(options.work)
    mine = free - options.leave
    least = WAL_BYTES
    if options.rate:
        least += options.rate * options.minutes * 60 * BYTES_PER_TRANSFER
    if mine >= least:
        return mine, None
    what = f"{gib(free)} are free on the disk of {options.work}, and {gib(options.leave)} must be left"
    fits = int((mine - WAL_BYTES) / BYTES_PER_TRANSFER / (options.minutes * 60))
    slower = f", fewer --minutes, or --rate {fits}" if fits >= 1 else ""
    return mine, (
        f"{what}: too little for about {gib(least)}. Nothing was started. "
        f"Give --work a larger disk, a smaller --disk-leave{slower}"
    )


class Soak(Stage):
    """One engine, one PostgreSQL, one Redis, one load."""

    def __init__(self, place, options):
        super().__init__(place, "soak", options)
        self.sampler = samples.Sampler(self, ROLE)
        self.judged = {}
        self.cut_short = None

    def build(self):
        self.say("  building: PostgreSQL, Redis, one engine")
        ports = free_ports(4)
        node = Node(self.place, "a", ports[0])
        node.init(**DATABASE)
        node.start()
        make_ledger(self.place, node)
        self.nodes, self.primary = {"a": node}, node
        redis = Redis(self.place, "a", ports[1])
        redis.start()
        self.redis = {"a": redis}
        environment = {
            "ENGINE_DATABASE_URL": database_url([node.port], ROLE),
            "ENGINE_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
        } | dict(self.options.setting)
        self.engines = [Engine(self.place, "1", ports[2], ports[3], environment)]
        self.start_engines()
        self.open_accounts(self.options.accounts)

    def soak(self):
        """Load and measurements, until the time is over or the disk is."""
        options = self.options
        seconds = int(options.minutes * 60)
        may_write, _ = room(options)
        self.load = Load(
            self.place, self.engines[0].port, options.accounts, options.rate, options.users,
            name="soak", scenario=SCENARIO, run_seconds=seconds + 60,
        )  # fmt: skip
        self.load.start()
        rate = f"{options.rate:,} requests/s" if options.rate else "as fast as it goes"
        self.mark(f"load: {rate} over {options.users} connections for {options.minutes:g} minutes", kind="load")
        ends = self.load.began + seconds
        begun_disk = None
        while time.monotonic() < ends:
            time.sleep(min(INTERVAL_S, max(0.1, ends - time.monotonic())))
            self.load.check_running()
            row = self.sampler.take()
            begun_disk = row["disk"] if begun_disk is None else begun_disk
            self.progress(row, seconds)
            self.cut_short = self.too_much(row, begun_disk, seconds, may_write)
            if self.cut_short:
                self.note(f"stopped early: {self.cut_short}")
                break
        self.progress_ends()
        self.mark("end of load", kind="load")
        self.ended["load"] = self.load.finish()
        self.wait_idle()

    def too_much(self, row, begun_disk, seconds, may_write):
        """Why the disk does not allow to go on, if so."""
        if row["free"] < self.options.leave:
            return f"{gib(row['free'])} are left on the disk; --disk-leave is {gib(self.options.leave)}"
        if row["at"] < FORECAST_S or row["at"] > FORECAST_S + 2 * INTERVAL_S:
            return None
        # The log does not grow beyond its own limit, the rest does.
        growth = max(0, row["disk"] - begun_disk - WAL_BYTES) + row["transfers"] * BYTES_PER_TRANSFER
        expected = WAL_BYTES + growth * seconds / row["at"]
        if expected <= may_write:
            return None
        fits = int(row["requests"] / row["at"] * may_write / expected)
        return (
            f"at this rate it would write about {gib(expected)}, and {gib(may_write)} may be. "
            f"Give --rate {fits}, fewer --minutes, or --work on a larger disk"
        )

    def progress(self, row, seconds):
        left = max(0, seconds - row["at"])
        text = (
            f"  {row['at'] / 60:5.1f} min ({left / 60:.1f} left)  {row.get('per_second') or 0:>7,.0f} transfers/s"
            f"  p99 <= {row.get('p99_ms') or 0:.0f} ms  engine {row['rss'] / flat.MIB:.0f} MiB"
            f"  PostgreSQL {row['postgres'] / flat.MIB:.0f} MiB  queue {row['queue']:.0f}"
            f"  disk {gib(row['disk'])}, {gib(row['free'])} free"
        )
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
        elif len(self.sampler.rows) % 12 == 1:
            # A log gets a line a minute.
            self.say(text)

    def progress_ends(self):
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def finish(self):
        """Reconciles, and judges what was measured."""
        options = self.options
        self.promise("the load ran its whole time", self.cut_short is None, self.cut_short or f"{options.minutes:g} minutes")
        self.promise_flat()
        self.promise_bounded()
        self.promise_answered()
        # Reconciling takes minutes: what was measured is safe from a Ctrl-C in them.
        (options.out / "measured.json").write_text(as_json(self.document()))
        self.say("  reconciling: loadtest verify, engine verify; a look at each of millions of transfers")
        url = self.primary.url("engine_read")
        verdict = self.load.reconcile(url, self.engines[0].port, VERIFY_SECONDS_MAX)
        self.ended["verify"] = verdict
        self.promise_reconciled(verdict)
        self.promise_verified(url, VERIFY_SECONDS_MAX)
        code = self.engines[0].stop()
        self.promise("the engine stops cleanly", code == 0, f"exit code {code}")

    def promise_flat(self):
        for name, told in MEMORY.items():
            verdict = flat.judge(
                self.sampler.line(name), self.options.growth_max, self.options.slope_max * flat.MIB
            )
            self.judged[name] = verdict
            detail = verdict["why"]
            if "median" in verdict:
                detail = (
                    f"{verdict['median'] / flat.MIB:.1f} MiB, {verdict['per_hour'] / flat.MIB:+.1f} MiB/h, "
                    f"{verdict['percent']:+.1f} % over {verdict['seconds'] / 60:.1f} min, "
                    f"at most {verdict['max'] / flat.MIB:.1f} MiB {verdict['why']}"
                ).strip()
            self.promise(f"flat: {told}", verdict["flat"], detail)
        for name, told in COUNTS.items():
            verdict = flat.judge(self.sampler.line(name), self.options.growth_max)
            self.judged[name] = verdict
            detail = verdict["why"]
            if "median" in verdict:
                detail = f"{verdict['median']:.0f}, at most {verdict['max']:.0f} {verdict['why']}".strip()
            self.promise(f"flat: {told}", verdict["flat"], detail)

    def promise_bounded(self):
        """What the engine says of its own limits."""
        for name, told in BOUNDED.items():
            most = max((value for _, value in self.sampler.line(name)), default=0)
            bound = self.sampler.bounds.get(name)
            held = bound is not None and most <= bound
            self.promise(f"bounded: {told}", held, f"at most {most:,.0f} of {bound:,.0f}" if bound else "no bound is told")

    def promise_answered(self):
        """Nobody waited longer than the deadline and a second; refusals are typed."""
        errors = self.ended["load"]["errors"]
        broken = {name: errors[name] for name in ("connect", "io", "timeout", "protocol") if errors[name]}
        strange = {
            code: count for code, count in self.ended["load"]["statuses"].items()
            if code not in ("200", "422", "503", "504")
        }  # fmt: skip
        self.promise("every request had a definite answer", not broken and not strange, broken or strange or "all")

    def document(self):
        load, rows = self.ended.get("load", {}), self.sampler.rows
        # Counts from funding are not the load's.
        busy = rows[1:]
        figures = {}
        if busy:
            ends = rows[-1]
            moved = ends["transfers"] - rows[0]["transfers"]
            figures = {
                "transfers": int(moved),
                "transfers_per_second": round(moved / (ends["at"] - rows[0]["at"]), 1),
                "disk_bytes_per_transfer": round((ends["disk"] - rows[0]["disk"]) / moved, 1) if moved else None,
                "first_third_per_second": share_rate(busy, 0, 1 / 3),
                "last_third_per_second": share_rate(busy, 2 / 3, 1),
                "postgres_mib_last": round(ends["postgres"] / flat.MIB, 1),
                "generator_mib_last": round(ends["generator"] / flat.MIB, 1),
                "seconds": round(ends["at"], 1),
            }
        latency = load.get("latency_us", {}).get("all")
        if latency:
            figures["p50_ms"] = round(latency["p50"] / 1000, 2)
            figures["p99_ms"] = round(latency["p99"] / 1000, 2)
        return {
            "version": 1,
            "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
            "load_of_machine": list(os.getloadavg()),
            "settings": {
                "minutes": self.options.minutes, "users": self.options.users, "rate": self.options.rate,
                "accounts": self.options.accounts, "slope_max_mib_per_hour": self.options.slope_max,
                "growth_max_percent": self.options.growth_max, "engine": dict(self.options.setting),
                "postgres": DATABASE,
            },
            "promises": self.promises, "notes": self.notes, "figures": figures, "judged": self.judged,
            "bounds": self.sampler.bounds, "samples": rows,
            "load": {name: load.get(name) for name in ("statuses", "codes", "errors", "requests", "latency_us")},
            "verify": {k: v for k, v in self.ended.get("verify", {}).items() if k not in ("examples", "journal")},
        }  # fmt: skip


def share_rate(rows, begin, end):
    """Transfers per second over a part of the run."""
    part = rows[int(len(rows) * begin) : max(int(len(rows) * end), int(len(rows) * begin) + 1)]
    rates = [row["per_second"] for row in part if row.get("per_second") is not None]
    return round(sum(rates) / len(rates), 1) if rates else None


def check_room(options):
    _, complaint = room(options)
    if complaint:
        raise DrillError(complaint)
