"""The drill of backup and restore: ops/backup and ops/restore, as an operator runs them."""

import json
import os
import time

from database import promise_rto
from drill import drill
from faults import DrillError
from load import Load
from machine import attempt, free_ports
from place import REPOSITORY
from postgres import Node
from stage import ACCOUNTS, SPECIAL, database_url

NEEDS = (("pgbackrest", "pgbackrest"),)
SECOND_LOAD_S = 5
RTO_RESTORE_S = 60.0

# The order of rows does not matter, and nothing is left out.
STATE = """
SELECT (SELECT count(*) FROM transfers), (SELECT count(*) FROM commits),
       (SELECT count(*) FROM idempotency_keys), (SELECT sum(balance) FROM accounts),
       (SELECT sum(hashtextextended(concat_ws(':', id, balance, version), 0)::numeric) FROM accounts)
"""


def ops(stage, tool, *arguments):
    """Runs ops/backup or ops/restore; what it printed as JSON, if it did."""
    command = [REPOSITORY / "ops" / tool, *arguments]
    began = time.monotonic()
    code, output = attempt(command, env=dict(os.environ))
    with open(stage.place.work / "backup.log", "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(map(str, command))}\n{output}\n")
    if code != 0:
        tail = "\n".join(output.strip().splitlines()[-10:])
        raise DrillError(f"ops/{tool} exited {code}:\n{tail}")
    last = output.strip().splitlines()[-1] if output.strip() else ""
    return (json.loads(last) if last.startswith("{") else {}), time.monotonic() - began


def state(node, database="ledger"):
    """Row counts, and a digest over all balances and versions."""
    return node.query(STATE, database=database)


def restore(stage, config, to, name):
    """A new server at that moment."""
    place = stage.place
    node = Node(place, name, free_ports(1)[0])
    node.data = place.work / f"pg-{name}"
    ops(stage, "restore", "--config", config, "--to", to, "--data-dir", node.data, "--port", node.port,
        "--socket-dir", place.sockets, "--user", "postgres", "--engine", place.program("engine"))  # fmt: skip
    return node


def wait_archived(node):
    """Until the segment that is being written now is in the repository."""
    segment = node.query("SELECT pg_walfile_name(pg_switch_wal())")
    sql = f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver"
    node.wait_for(sql, "t")


def set_up(stage):
    """pgBackRest's configuration and a first backup, while the load runs."""
    place, node = stage.place, stage.primary
    folder = place.user.folder(place.work / "backup")
    config = folder / "pgbackrest.conf"
    _, seconds = ops(stage, "backup", "--setup", "--config", config, "--log-dir", place.user.folder(folder / "logs"),
                     "--repository", folder / "repository", "--database-url", node.url())  # fmt: skip
    stage.mark(f"archive set up and checked in {seconds:.1f} s")
    made, seconds = ops(stage, "backup", "--config", config)
    stage.mark(f"{made['type']} backup of {made['bytes'] / 2**20:.0f} MiB under load in {seconds:.1f} s")
    return config


def second_load(stage, logical):
    """More transfers, which a restore to an earlier moment must not have."""
    load = Load(stage.place, stage.balancer.port, ACCOUNTS, stage.options.rate, 16, name="second")
    load.start()
    time.sleep(1)
    made, seconds = ops(stage, "backup", "--logical", "--repository", logical,
                        "--database-url", stage.primary.url())  # fmt: skip
    stage.note(f"logical backup of {made['tables']['transfers']:,} transfers under load in {seconds:.1f} s")
    time.sleep(SECOND_LOAD_S)
    load.finish()
    stage.wait_idle()
    return made["backup"]


@drill("backup-restore", "a mistake destroys the ledger; the moment before it is restored", NEEDS)
def backup_restore(stage):
    """Under load: archive, full backup. The load ends at a moment that is written down. A
    second load runs, during which a logical backup is made. Restored are: the latest
    state, then, after a mistake has destroyed the ledger, that moment, which must
    agree with the first load's journal; and the logical backup. The engines then
    serve the restored ledger."""
    stage.build(database={"archive_mode": "on"})
    config = set_up(stage)
    stage.go_on(2)
    stage.end_load()
    original = stage.primary
    moment = original.query("SELECT to_char(clock_timestamp() AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    then = state(original)
    dump = second_load(stage, stage.place.work / "logical")
    wait_archived(original)
    latest = restore(stage, config, "latest", "latest")
    stage.promise("restore to latest: rows and balances as on the primary",
                  state(latest) == state(original), state(latest).replace("|", ", "))  # fmt: skip
    stage.fault("a mistake: UPDATE accounts SET balance = 0 and DELETE FROM transfers")
    original.query("BEGIN; UPDATE accounts SET balance = 0; DELETE FROM transfers; COMMIT")
    wait_archived(original)
    for engine in stage.engines:
        engine.stop()
    ordered = stage.mark(f"restore to {moment} begins", kind="repair")
    restored = restore(stage, config, moment, "restored")
    stage.primary = restored
    stage.promise(f"restore to {moment}: rows and balances as they were then",
                  state(restored) == then, state(restored).replace("|", ", "))  # fmt: skip
    at = serve(stage, restored)
    promise_rto(stage, ordered, at, "the restore began", RTO_RESTORE_S)
    logical_restore(stage, restored, dump)


def serve(stage, node):
    """The engines on the restored ledger, and one transfer; when it was acknowledged."""
    for engine in stage.engines:
        engine.environment["ENGINE_DATABASE_URL"] = database_url([node.port])
    stage.start_engines()
    body = {"from": SPECIAL["funding"], "to": SPECIAL["canary"], "amount": "0.01"}
    stage.engines[0].expect("POST", "/transaction", body)
    return stage.mark("first transfer on the restored ledger", kind="recovery")


def logical_restore(stage, node, dump):
    node.query("CREATE DATABASE from_dump", database="postgres")
    made, seconds = ops(stage, "restore", "--logical", dump, "--database-url", node.url(database="from_dump"),
                        "--engine", stage.place.program("engine"))  # fmt: skip
    stage.promise("restore of the logical backup: rows and balances of its manifest", True,
                  f"{seconds:.1f} s; {made['verify']}")  # fmt: skip
