"""Runs drills: see ops/drill --help."""

import argparse
import sys
from pathlib import Path

# Each of these puts its drills into the list, in this order.
import database  # noqa: F401
import engines  # noqa: F401
import cache  # noqa: F401
import durability  # noqa: F401
import recovery  # noqa: F401
import patroni  # noqa: F401
import report
from console import EXIT_UNAVAILABLE, Parser, say, unwind_when_told_to_end
from drill import DRILLS, perform
from faults import DrillError
from place import REPOSITORY, sweep_left_over
from stage import RATE, as_json

# Those under which this installation, with its standby, can serve.
DURABILITIES = ("auto", "sync-standby", "async")
# Of every drill, beside what ops/run needs.
NEEDS = (("haproxy", "haproxy"), ("redis-cli", "redis-tools"))


def listing():
    width = max(map(len, DRILLS)) + 2
    return "\n".join(f"  {name:<{width}}{entry.title}" for name, entry in DRILLS.items())


def parse(arguments):
    parser = Parser(
        prog="ops/drill",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Breaks a private installation under load and proves what became of every transfer.\n\n"
        "Each drill starts its own PostgreSQL primary with a synchronous standby, Redis with a\n"
        "replica, two engines behind HAProxy and the load generator with its journal, on free\n"
        "ports of this machine; injects the fault; waits for recovery; and reconciles every\n"
        "transfer with `loadtest verify` and `engine verify`. Exit code 1: a promise broke.",
        epilog="Drills:\n" + listing() + "\n\nExamples:\n"
        "  ops/drill primary-loss                 one drill, about half a minute\n"
        "  ops/drill all                          every drill in turn, one summary\n"
        "  ops/drill --rate 1000 network-stall    with more load\n"
        "  ops/drill --durability sync-standby --read-replica planned-switchover\n\n"
        "Every drill writes NAME.json and NAME.html (a chart of the throughput) to --out.",
    )
    add = parser.add_argument
    add("drills", nargs="*", metavar="NAME", help="drills to run, or `all`")
    add("--list", action="store_true", help="print the drills and stop")
    add("--rate", type=int, default=RATE, metavar="N", help=f"transfers per second (default {RATE})")
    add("--durability", choices=DURABILITIES, metavar="MODE",
        help=f"start the engines with this --durability ({', '.join(DURABILITIES)}), whatever the drill")  # fmt: skip
    add("--read-replica", action="store_true",
        help="give the engines the standby as --database-read-url, whatever the drill")  # fmt: skip
    add("--out", type=Path, default=REPOSITORY / ".data" / "drills", metavar="DIR",
        help="where the reports go (default .data/drills)")  # fmt: skip
    add("--work", type=Path, default=REPOSITORY / ".data", metavar="DIR",
        help="where the servers keep their data meanwhile; on a disk (default .data)")  # fmt: skip
    add("--bin-dir", type=Path, default=REPOSITORY / "target" / "release", metavar="DIR",
        help="where `engine` and `loadtest` are; given, nothing is built (default target/release)")  # fmt: skip
    add("--keep-logs", action="store_true", help="keep the servers' logs also if all went well")
    add("--check", action="store_true", help=argparse.SUPPRESS)
    add("--packages", action="store_true", help=argparse.SUPPRESS)
    add("--sweep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.list or options.sweep:
        return options
    if not options.drills:
        parser.error("which drill? `ops/drill --list` names them; `ops/drill all` runs them all")
    if options.drills == ["all"]:
        options.drills = list(DRILLS)
    unknown = [name for name in options.drills if name not in DRILLS]
    if unknown:
        parser.error(f"there is no drill {', '.join(unknown)}; `ops/drill --list` names them")
    if not 1 <= options.rate <= 100_000:
        parser.error("--rate: expected 1 to 100000")
    options.bin_dir = options.bin_dir.resolve()
    options.out = options.out.resolve()
    options.work = options.work.resolve()
    options.say = say
    return options


def packages(names):
    """The programs that these drills need and who brings them, as PROGRAM:PACKAGE."""
    needs = dict(NEEDS)
    for name in names:
        needs.update(DRILLS[name].needs)
    return [f"{program}:{package}" for program, package in needs.items()]


def main(arguments):
    options = parse(arguments)
    if options.check:
        return 0
    if options.list:
        print(listing())
        return 0
    if options.packages:
        print("\n".join(packages(options.drills)))
        return 0
    left = sweep_left_over(options.work)
    if left:
        say(f"ended what a killed drill had left: {', '.join(left)}")
    if options.sweep:
        return 0
    unwind_when_told_to_end()
    options.out.mkdir(parents=True, exist_ok=True)
    documents = []
    for name in options.drills:
        entry = DRILLS[name]
        say(f"{name}: {entry.title}")
        document = perform(entry, options)
        (options.out / f"{name}.json").write_text(as_json(document))
        (options.out / f"{name}.html").write_text(report.page(document))
        print(report.text(document), flush=True)
        print(f"  report: {options.out / name}.html", flush=True)
        documents.append(document)
    if len(documents) > 1:
        print(report.summary(documents))
        (options.out / "summary.json").write_text(as_json(documents))
    return 0 if all(document["verdict"] != "BROKEN" for document in documents) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DrillError as error:
        say(f"ops/drill: {error}")
        sys.exit(EXIT_UNAVAILABLE)
