"""The command line of ops/backup."""

import argparse
import json
import sys
from pathlib import Path

import logical
import physical
from tools import DEFAULT_CONFIG, EXIT_FAILED, EXIT_USAGE, KEEP_DAYS, BackupError, say


class Parser(argparse.ArgumentParser):
    """Exits like the other commands of this repository."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def parse(arguments):
    parser = Parser(
        prog="ops/backup",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Backs the ledger up.\n\n"
        "Where the server's files can be had: pgBackRest, a base backup a day and the write-ahead\n"
        f"log as it is written. Every moment of the last {KEEP_DAYS} days can be restored.\n"
        "Where they cannot (Amazon RDS, Aurora): --logical, a dump whose manifest holds a\n"
        "checksum of every file, the rows of every table and the sums of all balances.",
        epilog="Examples:\n"
        "  ops/backup --setup --repository /backup/ledger --database-url postgres://postgres@/ledger\n"
        "  ops/backup                                       now, and daily by cron or a timer\n"
        "  ops/backup --list\n"
        "  ops/backup --setup --repository s3://bucket/ledger --s3-region eu-central-1 ...\n"
        "  DATABASE_URL=postgres://engine_owner:...@rds/ledger ops/backup --logical --repository /backup\n\n"
        "Restore with ops/restore; which backup answers which loss: ops/drill.d/README.md",
    )
    add = parser.add_argument
    add("--setup", action="store_true", help="write pgBackRest's configuration, switch archiving on, check it")
    add("--logical", action="store_true", help="dump through a connection instead")
    add("--list", action="store_true", help="print the backups there are")
    add("--database-url", metavar="URL",
        help="the ledger; for --setup a superuser on the server itself. Or DATABASE_URL")  # fmt: skip
    add("--repository", metavar="PLACE", help="a folder, or with --setup s3://BUCKET/PREFIX")
    add("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"of pgBackRest (default {DEFAULT_CONFIG})")
    add("--type", choices=("auto", "full", "diff", "incr"), default="auto",
        help="auto: a full one a week, on other days what changed since (default)")  # fmt: skip
    add("--s3-region", metavar="REGION")
    add("--s3-endpoint", metavar="HOST", help="default: that of Amazon in the region")
    add("--log-dir", type=Path, metavar="DIR", help="for pgBackRest's logs and locks; default: its own")
    add("--jobs", type=int, default=2, metavar="N", help="connections of a dump (default 2)")
    options = parser.parse_args(arguments)
    if options.setup or options.logical:
        for name in ("database_url", "repository"):
            if getattr(options, name) is None:
                parser.error(f"--{name.replace('_', '-')} is missing")
    return options


def main(arguments, environment):
    if environment.get("DATABASE_URL") and not any(a.startswith("--database-url") for a in arguments):
        arguments = [*arguments, "--database-url", environment["DATABASE_URL"]]
    options = parse(arguments)
    if options.list:
        config = options.config.resolve()
        print(json.dumps(physical.known(config, physical.owner_of(config)), indent=2))
    elif options.setup:
        physical.setup(options)
    elif options.logical:
        logical.backup(options)
    else:
        physical.backup(options)
    return 0


if __name__ == "__main__":
    import os

    try:
        sys.exit(main(sys.argv[1:], os.environ))
    except BackupError as error:
        say(f"ops/backup: {error}")
        sys.exit(EXIT_FAILED)
