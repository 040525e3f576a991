"""The command line of ops/restore."""

import argparse
import json
import os
import sys
import time
import urllib.parse
from pathlib import Path

import logical
import physical
from backup import Parser
from tools import DEFAULT_CONFIG, EXIT_FAILED, BackupError, engine_program, run, say


def parse(arguments):
    parser = Parser(
        prog="ops/restore",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Restores a backup of ops/backup beside what is there, and runs `engine verify` on it.\n\n"
        "A physical one goes into a new folder, which a server of its own serves on --port. The\n"
        "original is not touched, archiving stays off, and no standby is waited for: point\n"
        "the engines to it once you are content, and set up standby and backup anew.\n"
        "A logical one goes into an empty database.",
        epilog="Examples:\n"
        "  ops/restore --to latest --data-dir /srv/restored --port 5433\n"
        "  ops/restore --to 2026-01-31T11:59:00Z --data-dir /srv/restored --port 5433\n"
        "  ops/restore --logical /backup/ledger-20260131T030000Z --database-url postgres://postgres@host/new",
    )
    add = parser.add_argument
    add("--to", metavar="TIME", help="`latest`, or a moment with its zone: what was committed by then is there")
    add("--data-dir", type=Path, metavar="DIR", help="a new or empty folder")
    add("--port", type=int, default=5433, metavar="N", help="of the restored server (default 5433)")
    add("--socket-dir", type=Path, metavar="DIR", help="for its Unix socket (default: a new one in /tmp)")
    add("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"of pgBackRest (default {DEFAULT_CONFIG})")
    add("--database", default="ledger", metavar="NAME", help="what to verify (default ledger)")
    add("--user", metavar="NAME", help="role to verify as (default: the owner of the files)")
    add("--logical", type=Path, metavar="DIR", help="a dump of ops/backup --logical")
    add("--database-url", metavar="URL", help="an empty database, for --logical. Or DATABASE_URL")
    add("--jobs", type=int, default=2, metavar="N", help="connections of --logical (default 2)")
    add("--engine", type=Path, metavar="FILE", help="the engine that verifies (default target/release/engine)")
    options = parser.parse_args(arguments)
    options.database_url = options.database_url or os.environ.get("DATABASE_URL")
    if options.logical is not None and options.database_url is None:
        parser.error("--logical needs --database-url")
    if options.logical is None and (options.to is None or options.data_dir is None):
        parser.error("--to and --data-dir are needed, or --logical")
    return options


def verify(engine, url, owner=None):
    """`engine verify`; its output. BackupError if the ledger is not sound."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "ENGINE_"))}
    text = run([engine, "verify"], owner=owner, env={**env, "ENGINE_DATABASE_URL": url}).strip()
    return text.splitlines()[-1]


def main(arguments):
    options = parse(arguments)
    engine = engine_program(options.engine)
    began = time.monotonic()
    if options.logical is not None:
        logical.restore(options)
        outcome = {"database": "restored"}
        last = verify(engine, options.database_url)
    else:
        server = physical.restore(options)
        sockets = urllib.parse.quote(str(server["sockets"]), safe="")
        user = options.user or server["owner"].name
        url = f"postgres://{user}@{sockets}:{options.port}/{options.database}"
        outcome = {"data_dir": str(server["data"]), "port": options.port, "socket": str(server["sockets"])}
        last = verify(engine, url, server["owner"])
    say(f"engine verify: {last}")
    print(json.dumps({**outcome, "verify": last, "seconds": round(time.monotonic() - began, 1)}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BackupError as error:
        say(f"ops/restore: {error}")
        sys.exit(EXIT_FAILED)
