"""Drills that take Redis away, or bring back an old one."""

import shutil
import time

from drill import drill
from faults import DrillError

SNAPSHOT_AGE_S = 5
# Longer than the drill: an entry of the old snapshot must not expire by itself.
LONG_TTL_S = 120
CACHED_AGAIN_SECONDS_MAX = 30


def cached_reads(stage):
    return stage.watch.reads["cached"]


def wait_cached_again(stage, seconds=CACHED_AGAIN_SECONDS_MAX):
    """Waits until balances come from Redis again."""
    before, since = cached_reads(stage), time.monotonic()
    while time.monotonic() < since + seconds:
        if cached_reads(stage) > before:
            waited = time.monotonic() - since
            stage.figures["cached_again_s"] = round(waited, 2)
            stage.mark("balances come from the cache again", kind="recovery")
            stage.promise(f"the cache is used again within {seconds} s", True, f"{waited:.1f} s")
            return
        time.sleep(0.1)
    stage.promise(f"the cache is used again within {seconds} s", False, "not within that time")


def watch_cost(stage):
    """After the end: the cache's fault cost latency only."""
    failed = {c: n for c, n in stage.ended["load"]["statuses"].items() if c != "200"}
    stage.promise("no transfer failed", not failed, failed or "all 200")
    stage.promise("no balance failed", stage.watch.reads["failed"] == 0, stage.watch.reads["failed"])


@drill("cache-loss", "Redis and its replica are gone (SIGKILL) and come back empty")
def cache_loss(stage):
    """SIGKILL to both Redis servers; six seconds without; both start empty."""
    stage.build()
    stage.after(watch_cost)
    fault = stage.fault("SIGKILL to Redis and its replica")
    for server in stage.redis.values():
        server.process.kill()
    stage.recovered(fault + 0.2, "transfers go on")
    stage.go_on(6)
    stage.mark("both start again, empty", kind="repair")
    stage.redis["a"].start()
    stage.redis["b"].start(replica_of=stage.redis["a"])
    wait_cached_again(stage)
    stage.go_on(4)


@drill("cache-failover", "Redis is gone (SIGKILL); its replica is promoted")
def cache_failover(stage):
    """The engines reach Redis through the balancer, which follows the role. SIGKILL to
    the master; a second later REPLICAOF NO ONE on the replica, which may miss the
    newest entries: it is never asked to decide anything."""
    stage.build(redis_through_balancer=True)
    stage.after(watch_cost)
    fault = stage.fault("SIGKILL to the Redis master")
    stage.redis["a"].process.kill()
    time.sleep(1)
    stage.redis["b"].ask("REPLICAOF", "NO", "ONE")
    stage.mark("the replica is promoted", kind="repair")
    stage.recovered(fault + 0.2, "transfers go on")
    wait_cached_again(stage)
    stage.go_on(6)


@drill("cache-stale-snapshot", "Redis comes back from an old snapshot, and an engine restarts with it")
def cache_stale_snapshot(stage):
    """A snapshot is taken; transfers go on for five seconds; Redis is killed and starts
    from the snapshot, whose balances are all too old by then. One engine is
    killed and started at the same moment, so that it remembers nothing."""
    stage.build(engine_settings={"ENGINE_CACHE_TTL": f"{LONG_TTL_S}s"})
    stage.after(watch_cost_of_snapshot)
    redis = stage.redis["a"]
    redis.ask("SAVE")
    snapshot = stage.place.work / "snapshot.rdb"
    shutil.copy(redis.folder / "dump.rdb", snapshot)
    stage.mark("snapshot of Redis taken")
    time.sleep(SNAPSHOT_AGE_S)
    fault = stage.fault("SIGKILL to Redis and engine 2; both start, Redis from the snapshot")
    redis.process.kill()
    stage.engines[1].process.kill()
    shutil.copy(snapshot, redis.folder / "dump.rdb")
    stage.place.user.own(redis.folder / "dump.rdb")
    redis.start()
    old = int(redis.ask("DBSIZE").split()[-1])
    if old == 0:
        raise DrillError("the snapshot held no balance: the drill proved nothing")
    stage.note(f"Redis came back with {old:,} balances of {SNAPSHOT_AGE_S} s ago")
    stage.engines[1].start()
    stage.recovered(fault + 0.2, "transfers go on")
    wait_cached_again(stage)
    stage.settle()


def watch_cost_of_snapshot(stage):
    failed = {c: n for c, n in stage.ended["load"]["statuses"].items() if c != "200"}
    stage.promise("no transfer failed, after the clients' retries",
                  set(failed) <= {"502", "503"}, failed or "all 200")  # fmt: skip
