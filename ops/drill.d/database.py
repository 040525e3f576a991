"""Drills that take the database away."""

import shutil
import time

from drill import drill
from faults import DrillError
from machine import free_ports, is_root, run
from services import Engine
from stage import SPECIAL, count_ids

RTO_PROMOTION_S = 5.0
# What an operator's script or Patroni needs to be sure that a primary is gone.
DETECT_S = 1.0
# For a commit that must not be answered; one that is takes milliseconds.
COMMIT_WAIT_S = 3
# Of the write-ahead log's own small file system; a few segments of 16 MiB.
WAL_VOLUME_MIB = 192


def promote(stage, node):
    """Scripted promotion; when it was ordered."""
    ordered = stage.mark(f"pg_ctl promote on {node.name}", kind="repair")
    node.promote()
    stage.primary = node
    stage.mark(f"{node.name} takes writes", kind="repair")
    return ordered


def promise_rto(stage, ordered, at, since="promotion was ordered", limit_s=RTO_PROMOTION_S):
    rto = at - ordered
    stage.figures["rto_s"] = round(rto, 3)
    stage.promise(
        f"first acknowledged transfer at most {limit_s:.0f} s after {since}",
        rto <= limit_s,
        f"{rto:.2f} s",
    )


def rejoin(stage, old, new, rewind):
    """Brings the old primary back as the new one's synchronous standby."""
    if rewind:
        old.rewind(new)
    old.follow(new)
    new.reload(synchronous_standby_names=old.name)
    new.wait_streaming(old.name)
    joined = stage.mark(f"{old.name} is {new.name}'s synchronous standby", kind="repair")
    # From here on every commit waits for it: does it follow, or only say so?
    at = stage.wait_acknowledged(joined + 0.5)
    stage.promise(
        "transfers go on with the old primary as synchronous standby", True, f"{at - joined:.1f} s later"
    )


@drill("primary-loss", "the primary's machine is gone (SIGKILL); the standby is promoted")
def primary_loss(stage):
    """SIGKILL to every process of the primary, then pg_ctl promote on the standby."""
    stage.build()
    stage.fault("SIGKILL to the primary, all its processes")
    stage.nodes["a"].kill()
    time.sleep(DETECT_S)
    ordered = promote(stage, stage.nodes["b"])
    promise_rto(stage, ordered, stage.recovered(ordered))
    stage.settle()


@drill("primary-pause", "the primary stands still, is replaced, and wakes up: the fencing test")
def primary_pause(stage):
    """SIGSTOP to the primary, promotion of the standby, SIGCONT to the old primary.

    For some seconds two servers believe to be the primary, and both are in the
    engines' list. The old one still waits for a synchronous standby that left it, so
    it can acknowledge nothing; a new engine is started meanwhile and must not be
    misled either. Then the old primary is stopped, rewound, and joins as standby.
    """
    stage.build()
    old, new = stage.nodes["a"], stage.nodes["b"]
    stage.fault("SIGSTOP to the primary, all its processes")
    old.pause()
    time.sleep(DETECT_S)
    ordered = promote(stage, new)
    promise_rto(stage, ordered, stage.recovered(ordered))
    stage.go_on(3)
    woken = stage.mark("SIGCONT to the old primary: two servers take writes", kind="fault")
    old.resume()
    commit_on(stage, old)
    third_engine(stage)
    stage.go_on(4)
    again = [
        row["answered"] for row in list(stage.watch.canaries) if row["status"] == 200
    ]
    stage.promise(
        "transfers go on while the old primary is awake",
        any(at > woken + 3 for at in again),
        f"{sum(at > woken for at in again)} canaries acknowledged",
    )
    never_acknowledged = orphans(old, new)
    stage.note(
        f"the old primary had stored {never_acknowledged} transfers that the new one does not "
        "know; whether one of them was acknowledged is what the reconciliation tells"
    )
    old.stop("immediate")
    stage.mark("old primary stopped", kind="repair")
    # It waits for a standby that follows another, so it would not shut down nicely.
    rejoin(stage, old, new, rewind=True)
    stage.settle()


def commit_on(stage, old):
    """A commit sent straight to the old primary, by whoever still holds a connection."""
    try:
        old.query("CREATE TABLE fence_probe ()", seconds=COMMIT_WAIT_S)
        held, detail = False, "it was acknowledged"
    except DrillError as error:
        held = "did not end" in str(error)
        detail = f"no answer in {COMMIT_WAIT_S} s" if held else str(error)
    stage.promise("the old primary acknowledges no commit", held, detail)


def third_engine(stage):
    """An engine that starts while two servers take writes, and one transfer by it."""
    ports = free_ports(2)
    engine = Engine(stage.place, "3", *ports, stage.engines[0].environment)
    engine.start(wait=False)
    try:
        engine.wait_ready(15)
        body = {"from": SPECIAL["funding"], "to": SPECIAL["canary"], "amount": "0.01"}
        status, answer = engine.call("POST", "/transaction", body, {"Idempotency-Key": "third"})
    except (DrillError, OSError) as error:
        status, answer = 0, {"code": str(error).splitlines()[0]}
    if status != 200:
        stage.note(f"an engine started meanwhile acknowledged nothing: {status} {answer.get('code')}")
        held, detail = True, "it acknowledged nothing"
    else:
        found = stage.primary.query(count_ids([answer["txn_id"]]))
        held, detail = found == "1", f"its transfer is on the new primary: {found == '1'}"
    stage.promise("an engine started while two servers take writes is not misled", held, detail)
    engine.process.kill()


def orphans(old, new):
    """How many transfers the old primary has that the new one has not."""
    newest = "SELECT id FROM transfers ORDER BY id DESC LIMIT 4000"
    ids = old.try_query(f"SELECT string_agg(id::text, ' ') FROM ({newest}) newest")
    if ids is None:
        return "an unknown number of"
    listed = ids.split()
    return len(listed) - int(new.query(count_ids(listed)))


@drill("planned-switchover", "primary and standby change places on purpose")
def planned_switchover(stage):
    """A fast shutdown of the primary, which hands everything to its standby first;
    promotion; the old primary starts again as the synchronous standby."""
    stage.build()
    old, new = stage.nodes["a"], stage.nodes["b"]
    began = stage.fault("fast shutdown of the primary")
    old.stop("fast")
    ordered = promote(stage, new)
    promise_rto(stage, began, stage.recovered(ordered), "the switchover began")
    rejoin(stage, old, new, rewind=False)
    stage.settle()


@drill("standby-loss", "the synchronous standby is gone (SIGKILL) and comes back")
def standby_loss(stage):
    """Without its standby the primary may acknowledge nothing: durability goes before
    availability. The standby starts again after six seconds. (To go on without it
    an operator empties synchronous_standby_names, and knows what that gives up.)"""
    stage.build()
    standby = stage.nodes["b"]
    fault = stage.fault("SIGKILL to the standby, all its processes")
    standby.kill()
    time.sleep(6)
    back = stage.mark("the standby starts again", kind="repair")
    standby.start()
    promise_rto(stage, back, stage.recovered(back), "the standby's start")
    early = [
        row
        for row in list(stage.watch.canaries)
        # What was flushed on the standby before it died may be answered a little later.
        if row["status"] == 200 and fault + 0.5 < row["answered"] < back
    ]
    stage.promise("nothing was acknowledged without the standby", not early, len(early))
    stage.settle()


@drill("database-restart", "the primary is restarted, as by an update of its package")
def database_restart(stage):
    """A fast shutdown and a start of the primary; nobody is promoted."""
    stage.build()
    node = stage.nodes["a"]
    stage.fault("fast shutdown of the primary")
    node.stop("fast")
    back = stage.mark("the primary starts again", kind="repair")
    node.start(wait=False)
    promise_rto(stage, back, stage.recovered(back), "the start")
    stage.settle()


@drill("disk-full", "the volume of the primary's write-ahead log is full")
def disk_full(stage):
    """pg_wal is a small file system of its own (a tmpfs, for which root is needed). A
    file takes the rest of it: PostgreSQL stops, and does not start again until
    the file is gone. Never the machine's own disk."""
    if not is_root():
        stage.skip("only root may mount the small file system that this drill fills")
        return
    volume = stage.place.work / "wal-volume"
    stage.place.user.folder(volume)
    stage.place.mount(volume, WAL_VOLUME_MIB)
    # Few segments are kept, so that only the ballast fills the volume.
    stage.build(database={"wal_volume": volume, "max_wal_size": "64MB", "min_wal_size": "32MB",
                          "wal_keep_size": "32MB"})  # fmt: skip
    node = stage.nodes["a"]
    stage.fault("a file fills the volume of the write-ahead log")
    ballast = volume / "ballast"
    free = shutil.disk_usage(volume).free
    run(["fallocate", "-l", free, ballast])
    code = node.process.wait(45)
    stage.mark(f"PostgreSQL gave up, exit code {code}", kind="fault")
    time.sleep(2)
    ballast.unlink()
    back = stage.mark("space is free again; the primary starts", kind="repair")
    node.start(wait=False)
    promise_rto(stage, back, stage.recovered(back), "the start")
    stage.settle()
