"""Measures every side in turn on a private server: see ops/bench --help."""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import machine
import report
import sides
from database import BenchError, Database, SqlSides
from engine import Ledger

DOCUMENT_VERSION = 1
EXIT_USAGE = 64
REPOSITORY = Path(__file__).resolve().parents[2]
ACCOUNTS = 10_000


class Parser(argparse.ArgumentParser):
    """Exits like the other commands of this repository."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def parse(arguments):
    parser = Parser(
        prog="ops/bench",
        description="Compares the engine with plain SQL on a private PostgreSQL whose "
        "commits are durable. All figures of one run come from one machine; compare ratios.",
        epilog="Sides: "
        + ", ".join(sides.SIDES)
        + ". The load generator itself against wrk and Locust: ops/bench loadtest --help",
    )
    add = parser.add_argument
    add(
        "--only", metavar="SIDE,...", help="measure only these sides or groups (naive, engine, ...)"
    )
    add("--quick", action="store_true", help="one short round: a smoke test, not a measurement")
    add("--full", action="store_true", help="also with 20 million transfers stored (minutes more)")
    add("--rounds", type=int, metavar="N", help="rounds over all sides (default 3)")
    add("--seconds", type=int, metavar="N", help="seconds per measurement (default 10)")
    add("--warm-up", type=int, metavar="N", help="seconds before each measurement (default 3)")
    add("--json", metavar="FILE", type=Path, help="also write everything to this file as JSON")
    add("--engine", metavar="FILE", type=Path, help="an engine built elsewhere, to compare builds")
    add("--loadtest", metavar="FILE", type=Path, help="a load generator built elsewhere")
    add("--list", action="store_true", help="print the sides and stop")
    add("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    defaults = (1, 3, 1) if options.quick else (3, 10, 3)
    for name, default in zip(("rounds", "seconds", "warm_up"), defaults):
        if getattr(options, name) is None:
            setattr(options, name, default)
        if not 1 <= getattr(options, name) <= 3600:
            parser.error(f"--{name.replace('_', '-')}: expected 1 to 3600")
    return options


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(context, chosen, rounds):
    """Runs the rounds; a side that fails is reported and left out."""
    failures = {}
    for number in range(1, rounds + 1):
        for side in chosen:
            if side in failures:
                continue
            try:
                sample = sides.RUNNERS[side](context)
            except BenchError as error:
                failures[side] = str(error)
                say(f"round {number} {side}: FAILED: {error}")
                context.end_round()
                continue
            context.samples.setdefault(side, []).append(sample)
            p99 = f", p99 {sample['p99_ms']:.2f} ms" if "p99_ms" in sample else ""
            figure = report.number(sample["value"])
            say(f"round {number}/{rounds} {side}: {figure} {sample['unit']}{p99}")
        context.end_round()
    return failures


def verify(ledgers, failures):
    """Checks the ledgers that were written; an outcome per database."""
    outcomes = {}
    for ledger in ledgers:
        if not ledger.ready:
            continue
        name = ledger.database.name
        say(f"engine verify on {name}")
        try:
            outcomes[name] = ledger.verify().splitlines()[-1:] or ["ok"]
        except BenchError as error:
            outcomes[name] = ["FAILED"]
            failures[f"verify {name}"] = str(error)
    return {name: lines[0] for name, lines in outcomes.items()}


def settings_text(document):
    host = document["machine"]
    server = document["postgres"]
    run = document["run"]
    settings = ", ".join(f"{name}={value}" for name, value in sorted(server["settings"].items()))
    engine = "".join(f", {name}={value}" for name, value in run["engine_environment"].items())
    return (
        f"{host['date']}, commit {host['commit']}\n"
        f"{host['processor']}, {host['cores']} cores, {host['memory_mib']} MiB, {host['system']}, "
        f"{host['file_system']}, 8 KiB write + fsync {host['fsync_8k_us']} us, "
        f"load before {host['load_before']}\n"
        f"PostgreSQL {server['version']}: {settings}\n"
        f"{run['rounds']} rounds of {run['seconds']} s after {run['warm_up']} s, medians; "
        f"{run['accounts']:,} accounts; loads by pgbench and loadtest on the same machine\n"
        f"engine: defaults{engine}; overload: {run['overload_flags']}, "
        f"{sides.OVERLOAD_USERS:,} connections"
    )


def show(document):
    parts = [settings_text(document), report.sides_table(document["samples"])]
    if document["ratios"]:
        parts.append(report.ratios_table(document["ratios"]))
    if document["limits"]:
        parts.append(report.limits_table(document["limits"]))
    parts += [f"engine verify, {name}: {text}" for name, text in document["verify"].items()]
    parts += [f"FAILED {side}: {error}" for side, error in document["failures"].items()]
    if document["machine"]["load_before"] > machine.QUIET_LOAD:
        parts.append("Something else was running when this began: take these figures with care.")
    print("\n\n".join(parts))


def programs(options):
    release = REPOSITORY / "target" / "release"
    found = {
        "engine": (options.engine or release / "engine").resolve(),
        "loadtest": (options.loadtest or release / "loadtest").resolve(),
    }
    for path in found.values():
        if not path.is_file():
            raise BenchError(f"{path} is not there: build it with cargo build --release")
    return found


def bench(options, work):
    server_url = os.environ.get("DATABASE_URL")
    if not server_url:
        raise BenchError("DATABASE_URL is not set: start this through ops/bench")
    redis_url = os.environ.get("REDIS_URL")
    chosen = sides.choose(options.only, options.full)
    found = programs(options)
    # About four seconds of COPY on two cores, or one.
    batches = 12 if options.quick else 50
    sql = SqlSides(server_url, found["engine"], work, ACCOUNTS, batches)
    ledger = Ledger(server_url, redis_url, found, work, ACCOUNTS)
    full_ledger = Ledger(server_url, redis_url, found, work, ACCOUNTS, "bench_full")
    document = {
        "version": DOCUMENT_VERSION,
        "machine": machine.describe(work, REPOSITORY),
        "postgres": machine.postgres(Database(server_url, "postgres")),
        "run": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "warm_up": options.warm_up,
            "accounts": ACCOUNTS,
            "engine_environment": machine.engine_environment(),
            "overload_flags": " ".join(sides.OVERLOAD_FLAGS),
        },
    }
    context = sides.Context(
        sql=sql,
        ledger=ledger,
        full_ledger=full_ledger,
        warm_up=options.warm_up,
        seconds=options.seconds,
        say=say,
        samples={},
    )
    try:
        failures = measure(context, chosen, options.rounds)
    finally:
        context.end_round()
    document["verify"] = verify([ledger, full_ledger], failures)
    document["samples"] = context.samples
    document["ratios"] = report.ratios(context.samples)
    document["limits"] = report.limits(context.samples)
    document["failures"] = failures
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    show(document)
    return 1 if failures else 0


def in_folder(command, parent, work):
    """The exit code of `work(folder)` in a temporary folder; errors are said for `command`."""
    # Stop what runs under load too: both signals unwind through every `with`.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as folder:
            return work(Path(folder))
    except BenchError as error:
        say(f"{command}: {error}")
        return 1
    except KeyboardInterrupt:
        say(f"{command}: interrupted")
        return 130


def main():
    options = parse(sys.argv[1:])
    if options.list:
        print("\n".join(sides.SIDES))
        return 0
    try:
        sides.choose(options.only, options.full)
    except BenchError as error:
        say(f"ops/bench: {error}")
        return EXIT_USAGE
    if options.check:
        return 0
    # Beside the servers' data, so that the fsync probe asks the same disk.
    folder = os.environ.get("BENCH_DIR")
    return in_folder("ops/bench", folder, lambda work: bench(options, work))


if __name__ == "__main__":
    sys.exit(main())
