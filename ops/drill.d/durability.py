"""Drills of what an acknowledgement rests on, and of reads from a replica."""

import threading
import time

from drill import drill
from database import DETECT_S, promise_rto, promote
from faults import DrillError

# With it an engine acknowledges nothing that only one machine has. It holds requests
# for as long as they may wait, so the deadline is shorter than the fault.
SYNC_STANDBY = {"ENGINE_DURABILITY": "sync-standby", "ENGINE_REQUEST_DEADLINE": "2s"}
WITHOUT_STANDBY_S = 8
LAG_MAX_S = 1
LAG_S = 8
READ_EVERY_S = 0.1


def promise_refusals(stage, fault, back):
    """Between the two nothing is acknowledged, and clients are told so in time."""
    # What was flushed on a standby before may be answered a little later.
    seen = [row for row in list(stage.watch.canaries) if fault + 0.5 < row["answered"] < back]
    early = [row for row in seen if row["status"] == 200]
    refused = [row for row in seen if row["status"] == 503]
    codes = ", ".join(sorted({str(row["code"]) for row in refused}))
    stage.promise("nothing was acknowledged without a synchronous standby", not early, len(early))
    stage.promise(
        "clients are refused within their deadline, certainly not applied",
        refused,
        f"{len(refused)} of {len(seen)} canaries ({codes})",
    )


@drill("primary-loss-sync-standby", "primary-loss under --durability sync-standby: no loss is possible")
def primary_loss_sync_standby(stage):
    """SIGKILL to the primary, promotion of its standby. The new primary has no standby
    yet, so the engines refuse every transfer rather than trust one machine. The old one
    is rewound and joins; from then on all goes on. The RPO of 0 is the setting's."""
    stage.build(engine_settings=SYNC_STANDBY)
    old, new = stage.nodes["a"], stage.nodes["b"]
    fault = stage.fault("SIGKILL to the primary, all its processes")
    old.kill()
    time.sleep(DETECT_S)
    promote(stage, new)
    stage.go_on(3)
    old.rewind(new)
    old.follow(new)
    back = stage.mark(f"{new.name} counts on {old.name} as its synchronous standby", kind="repair")
    new.reload(synchronous_standby_names=old.name)
    new.wait_streaming(old.name)
    promise_rto(stage, back, stage.recovered(back), "the new primary had a synchronous standby")
    promise_refusals(stage, fault, back)
    stage.settle()


@drill("standby-loss-sync-standby", "standby-loss under --durability sync-standby: refused until it is back")
def standby_loss_sync_standby(stage):
    """SIGKILL to the synchronous standby. A commit under way then waits for it (504 at
    its deadline, applied once it is back); what comes later is not begun: 503."""
    stage.build(engine_settings=SYNC_STANDBY)
    standby = stage.nodes["b"]
    fault = stage.fault("SIGKILL to the standby, all its processes")
    standby.kill()
    time.sleep(WITHOUT_STANDBY_S)
    started = stage.mark("the standby starts again", kind="repair")
    standby.start()
    stage.nodes["a"].wait_streaming(standby.name)
    back = stage.mark("it follows, and COMMIT counts on it", kind="repair")
    promise_rto(stage, back, stage.recovered(back), "the standby followed again")
    promise_refusals(stage, fault, started)
    stage.settle()


class Reader:
    """Asks an engine for the newest transfers all the time, as a back office does."""

    def __init__(self, engine):
        self.engine = engine
        self.rows = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.wait(READ_EVERY_S):
            try:
                status, _ = self.engine.call("GET", "/transactions?limit=1")
            except OSError:
                status = 0
            self.rows.append((time.monotonic(), status))

    def finish(self):
        self.over.set()
        self.thread.join()


def read_by(engine, server):
    return engine.metric("engine_replica_reads_total", f'server="{server}"') or 0


@drill("replica-lag", "the replica that reads go to falls behind")
def replica_lag(stage):
    """--database-read-url names the standby. Its replay is paused: it still has every
    commit flushed, so transfers go on, but shows an old ledger. Reads must move to the
    primary within --replica-lag-max, and back when the replica has caught up."""
    stage.build_database()
    stage.build_redis()
    replica = stage.nodes["b"]
    stage.build_engines(engine_settings={
        "ENGINE_DATABASE_READ_URL": replica.url("engine_app"),
        "ENGINE_REPLICA_LAG_MAX": f"{LAG_MAX_S}s",
    })  # fmt: skip
    stage.open_accounts()
    stage.start_load()
    engine = stage.engines[0]
    reader = Reader(engine)
    stage.go_on(3)
    before = read_by(engine, "replica")
    stage.promise("reads go to the replica while it keeps up", before > 0, f"{before:.0f} reads")
    paused = stage.fault("replay stands still on the replica")
    replica.query("SELECT pg_wal_replay_pause()", database="postgres")
    stage.go_on(LAG_MAX_S + 1)
    probe_at_replica(stage, engine, LAG_S - LAG_MAX_S - 1)
    lag = engine.metric("engine_replica_lag_seconds")
    stage.note(f"the engine sees the replica {lag:.1f} s behind")
    back = stage.mark("replay goes on", kind="repair")
    replica.query("SELECT pg_wal_replay_resume()", database="postgres")
    stage.recovered(paused)
    again = read_by(engine, "replica")
    give_up = time.monotonic() + 10
    while read_by(engine, "replica") <= again:
        if time.monotonic() > give_up:
            raise DrillError("no read went back to the replica within 10 s")
        time.sleep(0.05)
    stage.figures["reads_back_s"] = round(time.monotonic() - back, 2)
    stage.settle()
    reader.finish()
    bad = [row for row in reader.rows if row[1] != 200]
    stage.promise("every read was answered", not bad, f"{len(bad)} of {len(reader.rows)} were not")


def probe_at_replica(stage, engine, seconds):
    """While the replica is late: nobody asks it, and what was acknowledged is shown."""
    by_replica, by_primary = read_by(engine, "replica"), read_by(engine, "primary")
    hidden = []
    until = time.monotonic() + seconds
    looked = 0
    while time.monotonic() < until:
        good = [row["txn_id"] for row in list(stage.watch.canaries) if row["status"] == 200]
        status, _ = engine.call("GET", f"/transactions/{good[-1]}")
        looked += 1
        if status != 200:
            hidden.append((good[-1], status))
        time.sleep(0.2)
    late = read_by(engine, "replica") - by_replica
    stage.promise("no read goes to the replica while it is late", late == 0, f"{late:.0f} reads")
    moved = read_by(engine, "primary") - by_primary
    stage.promise("reads move to the primary", moved > 0, f"{moved:.0f} reads")
    stage.promise(
        "a transfer just acknowledged is shown", not hidden, f"{looked - len(hidden)} of {looked}"
    )
