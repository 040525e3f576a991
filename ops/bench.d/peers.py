"""Measures the load generator against wrk and Locust: see ops/bench loadtest --help."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import machine
import peers_report
import peers_sides
import report
from cores import Cores
from database import BenchError
from locust_venv import locust_program
from main import REPOSITORY, Parser, in_folder, say

DOCUMENT_VERSION = 1
# Connections of the largest side, and what the process needs besides.
OPEN_FILES_MIN = peers_sides.MANY_USERS + 256


def parse(arguments):
    parser = Parser(
        prog="ops/bench loadtest",
        description="Measures loadtest, wrk and Locust with the same task on one trivial "
        "target, in turn. The target has one core and the client another; every sample "
        "has a target of its own, and every other round runs backwards. Compare ratios.",
        epilog="Sides: "
        + "; ".join(f"{name}: {text}" for name, text in peers_sides.MEANING.items()),
    )
    add = parser.add_argument
    add("--only", metavar="SIDE,...", help="measure only these sides")
    add("--quick", action="store_true", help="one short round: a smoke test, not a measurement")
    add("--rounds", type=int, metavar="N", help="rounds over all sides (default 5)")
    add("--seconds", type=int, metavar="N", help="seconds per measurement (default 8)")
    add("--json", metavar="FILE", type=Path, help="also write everything to this file as JSON")
    add("--loadtest", metavar="FILE", type=Path, help="a load generator built elsewhere")
    add(
        "--locust",
        metavar="FILE",
        help="a Locust installed elsewhere, instead of the pinned one from PyPI",
    )
    add("--list", action="store_true", help="print the sides and stop")
    options = parser.parse_args(arguments)
    defaults = (1, 2) if options.quick else (5, 8)
    for name, default in zip(("rounds", "seconds"), defaults):
        if getattr(options, name) is None:
            setattr(options, name, default)
        if not 1 <= getattr(options, name) <= 3600:
            parser.error(f"--{name}: expected 1 to 3600")
    # Known before the run, not after it.
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: its folder does not exist")
    try:
        options.sides = peers_sides.choose(options.only)
    except BenchError as error:
        parser.error(str(error))
    return options


def build():
    """Builds loadtest and its examples as ops/bench builds the engine."""
    manifest = REPOSITORY / "Cargo.toml"
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", str(manifest)]
    command += ["--target-dir", str(REPOSITORY / "target")]
    command += ["-p", "loadtest", "--bins", "--examples"]
    try:
        done = subprocess.run(command, check=False)
    except OSError as error:
        raise BenchError(f"cargo: {error}: install Rust, or put cargo on the PATH") from None
    if done.returncode:
        raise BenchError("cargo build failed")


def programs(options):
    release = REPOSITORY / "target" / "release"
    found = {
        "loadtest": (options.loadtest or release / "loadtest").resolve(),
        "target": release / "examples" / "target",
        "overhead": release / "examples" / "overhead",
        "locustfile": REPOSITORY / "loadtest" / "examples" / "locustfile.py",
    }
    if any(side.startswith("wrk") for side in options.sides):
        found["wrk"] = shutil.which("wrk")
        if found["wrk"] is None:
            raise BenchError("wrk is missing: apt-get install wrk, or leave it out with --only")
    if any(side.startswith("locust") for side in options.sides):
        # Beside the other data of this repository, so that it is installed once.
        found["locust"] = options.locust or locust_program(REPOSITORY / ".data", say)
    return found


def raise_file_limit():
    """Lets this process and its children open a file per connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES_MIN:
        raise BenchError(f"only {hard} open files are allowed: ulimit -Hn {OPEN_FILES_MIN}")
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES_MIN:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MIN, hard))


def measure(context, chosen, rounds):
    """Runs the rounds; a side that fails is reported and left out."""
    failures, samples = {}, {side: [] for side in chosen}
    for number in range(1, rounds + 1):
        # Backwards every other time: what drifts then favours nobody.
        for side in chosen if number % 2 else reversed(chosen):
            if side in failures:
                continue
            try:
                sample = peers_sides.RUNNERS[side](context)
            except BenchError as error:
                failures[side] = str(error)
                say(f"round {number} {side}: FAILED: {error}")
                continue
            samples[side].append(sample)
            figure = report.number(sample["value"])
            say(f"round {number}/{rounds} {side}: {figure} {sample['unit']}")
    return failures, samples


def overhead(found):
    """Nanoseconds of a clock read and of recording an answer."""
    done = subprocess.run([found["overhead"]], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise BenchError(f"overhead exited {done.returncode}: {done.stderr.strip()}") from None


def versions(found):
    names = {"wrk": ["-v"], "locust": ["--version"]}
    return {n: machine.first_line([found[n], *flags]) for n, flags in names.items() if n in found}


def bench(options, work):
    raise_file_limit()
    found = programs(options)
    build()
    cores = Cores.choose()
    context = peers_sides.Context(found, cores, work, options.seconds)
    document = {
        "version": DOCUMENT_VERSION,
        "machine": machine.describe(work, REPOSITORY),
        "versions": versions(found),
        "cores": cores.describe(),
        "run": {"rounds": options.rounds, "seconds": options.seconds},
        "overhead": overhead(found),
    }
    failures, samples = measure(context, options.sides, options.rounds)
    document["samples"] = samples
    document["ratios"] = peers_report.ratios(samples)
    document["limits"] = peers_report.limits(samples)
    document["failures"] = failures
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(peers_report.text(document))
    return 1 if failures else 0


def main():
    options = parse(sys.argv[1:])
    if options.list:
        print("\n".join(peers_sides.SIDES))
        return 0
    return in_folder("ops/bench loadtest", None, lambda work: bench(options, work))


if __name__ == "__main__":
    sys.exit(main())
