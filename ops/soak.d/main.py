"""Runs a soak: see ops/soak --help."""

import argparse
import json
import re
import sys
import time
import traceback
from pathlib import Path

# What drills and a soak share: servers, processes, load. Behind this folder, so that
# a name here wins.
sys.path.append(str(Path(__file__).resolve().parents[1] / "drill.d"))

import page  # noqa: E402
import soaking  # noqa: E402
from console import EXIT_UNAVAILABLE, Parser, say, unwind_when_told_to_end  # noqa: E402
from faults import DrillError  # noqa: E402
from figures import outcome  # noqa: E402
from place import REPOSITORY, Place, sweep_left_over  # noqa: E402
from stage import as_json  # noqa: E402

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def size(text):
    """Bytes, as the engine's own flags take them."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]iB)?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it as 20GiB")
    return int(float(found.group(1)) * UNITS[found.group(2) or ""])


def setting(text):
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("ENGINE_"):
        raise argparse.ArgumentTypeError(f"{text!r}: write it as ENGINE_NAME=VALUE")
    return name, value


def at_least(kind, least):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{text}: at least {least}")
        return value

    return parse


def parse(arguments):
    parser = Parser(
        prog="ops/soak",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Loads one engine at its maximum and judges whether it stays as it was.\n\n"
        "Starts a PostgreSQL (fsync on), a Redis, an engine and the load generator with its journal,\n"
        "on free ports of this machine. Every 5 seconds it measures memory, open files, threads,\n"
        "queues, throughput and disk. At the end it reconciles every transfer with `loadtest verify`\n"
        "and `engine verify`, and judges the last two thirds of each line: the slope of memory (Theil\n"
        "and Sen's, which a spike does not move) and its growth. Exit code 1: something grew, or a promise\n"
        "broke. Everything but the report is removed, also after Ctrl-C.",
        epilog="Examples:\n"
        "  ops/soak                                      half an hour as fast as it goes\n"
        "  ops/soak --minutes 10 --rate 8000             a constant rate; disk: about 800 bytes a transfer\n"
        "  ops/soak --rate 60000 --users 4096            above what it can do: most is refused\n"
        "  ops/soak --set ENGINE_QUEUE_DEPTH_MAX=16384   another setting of the engine",
    )
    add = parser.add_argument
    add("--minutes", type=at_least(float, 0.5), default=30, metavar="N", help="how long (default 30)")
    add("--users", type=at_least(int, 1), default=256, metavar="N",
        help="connections; without --rate each sends as soon as it was answered (default 256)")  # fmt: skip
    add("--rate", type=at_least(int, 1), default=None, metavar="N",
        help="requests per second at constant intervals, whatever the answers take (default: the maximum)")  # fmt: skip
    add("--accounts", type=at_least(int, 2), default=10_000, metavar="N", help="accounts, funded (default 10000)")
    add("--set", dest="setting", type=setting, action="append", default=[], metavar="ENGINE_NAME=VALUE",
        help="a setting of the engine; may be repeated")  # fmt: skip
    add("--slope-max", type=float, default=48.0, metavar="MIB",
        help="memory may grow by so many MiB per hour; not judged over less than 5 minutes (default 48)")  # fmt: skip
    add("--growth-max", type=float, default=10.0, metavar="PERCENT",
        help="memory, open files and threads may grow by so much over the last two thirds (default 10)")  # fmt: skip
    add("--disk-leave", dest="leave", type=size, default=size("20GiB"), metavar="SIZE",
        help="stop before less than this is free on the disk (default 20GiB)")  # fmt: skip
    add("--out", type=Path, default=REPOSITORY / ".data" / "soak", metavar="DIR",
        help="where report and logs go (default .data/soak)")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="also write what was measured to this file")
    add("--work", type=Path, default=REPOSITORY / ".data", metavar="DIR",
        help="where the servers keep their data meanwhile; on a disk (default .data)")  # fmt: skip
    add("--bin-dir", type=Path, default=REPOSITORY / "target" / "release", metavar="DIR",
        help="where `engine` and `loadtest` are; given, nothing is built (default target/release)")  # fmt: skip
    add("--check", action="store_true", help=argparse.SUPPRESS)
    add("--sweep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in ("bin_dir", "out", "work"):
        setattr(options, name, getattr(options, name).resolve())
    options.say = say
    return options


def perform(options):
    """The document of one soak, whatever happened."""
    begun = time.monotonic()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with Place(options.bin_dir, options.work) as place:
        soak = soaking.Soak(place, options)
        try:
            soak.build()
            soak.soak()
            soak.finish()
        except DrillError as error:
            soak.promise("the soak came to its end", False, str(error))
        except Exception:  # a mistake here: told like a failure, cleaned up after
            soak.promise("the soak came to its end", False, traceback.format_exc())
        document = soak.document()
        document |= {"started_at": started, "seconds": round(time.monotonic() - begun, 1)}
        document["verdict"] = outcome(document["promises"])
        if document["verdict"] == "BROKEN":
            place.keep_logs(options.out / "logs")
            document["logs"] = str(options.out / "logs")
    return document


def main(arguments):
    options = parse(arguments)
    if options.check:
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    left = sweep_left_over(options.work)
    if left:
        say(f"ended what a killed run had left: {', '.join(left)}")
    if options.sweep:
        return 0
    soaking.check_room(options)
    unwind_when_told_to_end()
    options.out.mkdir(parents=True, exist_ok=True)
    say(f"soak: {options.minutes:g} minutes; disk: {soaking.gib(soaking.room(options)[0])} may be written")
    document = perform(options)
    (options.out / "soak.html").write_text(page.page(document))
    (options.out / "soak.json").write_text(as_json(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2, default=str) + "\n")
    print(page.text(document), flush=True)
    print(f"  report: {options.out / 'soak.html'}", flush=True)
    return 0 if document["verdict"] == "kept" else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DrillError as error:
        say(f"ops/soak: {error}")
        sys.exit(EXIT_UNAVAILABLE)
