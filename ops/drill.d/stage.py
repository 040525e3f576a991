"""The scene of a drill: a whole installation under load, and the clock of events.

Owns: which servers there are, what happened when, and the promises that held or
broke. The drills themselves stand in database.py, engines.py, cache.py, recovery.py.
"""

import json
import os
import time
import uuid

from faults import DrillError
from figures import BACK_SHARE
from load import Load
from machine import COMMAND_SECONDS_MAX, attempt, free_ports, run
from place import REPOSITORY
from postgres import DATABASE, Node
from services import Balancer, Engine, Redis
from watch import Watch

ACCOUNTS = 1000
RATE = 400
USERS = 64
FUNDING = "1000000"
# Beyond the load's own accounts, which nobody else may use.
SPECIAL = {"funding": 900_000, "canary": 900_001, "witnesses": [900_010, 900_011]}
WARM_UP_S = 6
# So many seconds in a row at the full rate, which the window of figures.py needs.
SETTLE_S = 4
# Ten seconds are allowed, and the window must fit behind them.
SETTLE_SECONDS_MAX = 14
CACHE_TTL_S = 5
RECOVERY_SECONDS_MAX = 60
ITEMS_PER_CALL = 1000


class Stage:
    """Servers, load and events of one drill."""

    def __init__(self, place, name, options):
        self.place = place
        self.name = name
        self.options = options
        self.say = options.say
        self.events = []
        self.promises = []
        self.notes = []
        self.figures = {}
        self.nodes = {}
        self.redis = {}
        self.engines = []
        self.balancer = None
        self.load = None
        self.watch = None
        self.primary = None
        self.ended = {}
        self.faulted_at = None
        self.recovered_at = None
        self.skipped = None
        self.checks_after = []

    # --- what is told

    def mark(self, text, kind="event"):
        """Notes that something happens now; the report shows it on the chart."""
        now = time.monotonic()
        self.events.append({"at": now, "kind": kind, "text": text})
        since = "" if self.load is None else f"{now - self.load.began:6.1f} s  "
        self.say(f"  {since}{text}")
        return now

    def fault(self, text):
        """Notes that the fault is injected now."""
        self.faulted_at = self.mark(text, kind="fault")
        return self.faulted_at

    def note(self, text):
        self.notes.append(text)
        self.say(f"  {text}")

    def promise(self, name, held, detail):
        """A promise and whether it held; a broken one fails the drill."""
        self.promises.append({"name": name, "held": bool(held), "detail": str(detail)})

    def skip(self, why):
        """Says that this drill cannot be held here; that is no broken promise."""
        self.skipped = why
        self.say(f"  skipped: {why}")

    def after(self, check):
        """A check to make once the load has ended and was reconciled."""
        self.checks_after.append(check)

    # --- the installation

    def build(
        self, database_hosts=None, redis_through_balancer=False, engine_settings=None, load=None, database=None,
        balancer=None,
    ):  # fmt: skip
        """Everything, from initdb to steady load."""
        self.say("  building: primary, synchronous standby, Redis with replica, two engines, balancer")
        self.build_database(**(database or {}))
        self.build_redis()
        self.build_engines(database_hosts, redis_through_balancer, engine_settings, balancer)
        self.open_accounts()
        self.start_load(**(load or {}))

    def build_database(self, wal_volume=None, **settings):
        ports = free_ports(2)
        a, b = (Node(self.place, name, port) for name, port in zip("ab", ports))
        self.nodes = {"a": a, "b": b}
        a.init(wal_volume, **settings)
        a.start()
        make_ledger(self.place, a)
        b.clone(a, **settings)
        b.start()
        a.reload(synchronous_standby_names="b", **settings)
        a.wait_streaming("b")
        self.primary = a

    def build_redis(self):
        ports = free_ports(2)
        a, b = (Redis(self.place, name, port) for name, port in zip("ab", ports))
        self.redis = {"a": a, "b": b}
        a.start()
        b.start(replica_of=a)

    def build_engines(
        self, database_hosts=None, redis_through_balancer=False, engine_settings=None, balancer=None
    ):
        ports = free_ports(6)
        redis_port = ports[5] if redis_through_balancer else self.redis["a"].port
        environment = {
            "ENGINE_DATABASE_URL": database_url(
                database_hosts or [node.port for node in self.nodes.values()]
            ),
            "ENGINE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "ENGINE_CACHE_TTL": f"{CACHE_TTL_S}s",
            **self.chosen(),
            **(engine_settings or {}),
        }
        self.engines = [
            Engine(self.place, "1", ports[0], ports[1], environment),
            Engine(self.place, "2", ports[2], ports[3], environment),
        ]
        self.balancer = Balancer(self.place, ports[4], **(balancer or {}))
        if redis_through_balancer:
            # The engines' first look at Redis must find the balancer there.
            self.start_engines(wait=False)
            self.balancer.start(self.engines, redis_port, self.redis.values())
            for engine in self.engines:
                engine.wait_ready()
        else:
            self.start_engines()
            self.balancer.start(self.engines)

    def chosen(self):
        """The engines' settings that the command line asks for, whatever the drill."""
        settings = {}
        if self.options.durability:
            settings["ENGINE_DURABILITY"] = self.options.durability
        if self.options.read_replica:
            settings["ENGINE_DATABASE_READ_URL"] = database_url(
                [node.port for node in self.nodes.values()]
            )
        return settings

    def start_engines(self, wait=True):
        for engine in self.engines:
            engine.start(wait=False)
        if wait:
            for engine in self.engines:
                engine.wait_ready()

    def open_accounts(self, count=ACCOUNTS):
        """The load's accounts, funded, and those of canary and witnesses."""
        engine = self.engines[0]
        unlimited = [0, SPECIAL["funding"]]
        plain = [SPECIAL["canary"], *SPECIAL["witnesses"], *range(1, count + 1)]
        accounts = [{"account_id": i, "currency": "USD", "min_balance": None} for i in unlimited]
        accounts += [{"account_id": i, "currency": "USD", "min_balance": 0} for i in plain]
        for first in range(0, len(accounts), ITEMS_PER_CALL):
            engine.expect("POST", "/accounts", accounts[first : first + ITEMS_PER_CALL])
        transfers = [
            {"from": 0, "to": i, "amount": FUNDING, "idempotency_key": f"fund-{i}"}
            for i in range(1, count + 1)
        ]
        for first in range(0, len(transfers), ITEMS_PER_CALL):
            body = {"transfers": transfers[first : first + ITEMS_PER_CALL]}
            answer = engine.expect("POST", "/transactions", body)
            bad = [item for item in answer["results"] if item.get("status") != "completed"]
            if bad:
                raise DrillError(f"funding failed: {bad[0]}")

    def start_load(self, rate=None, users=USERS, retries=5, warm_up=WARM_UP_S):
        rate = rate or self.options.rate
        self.load = Load(self.place, self.balancer.port, ACCOUNTS, rate, users, retries)
        self.load.start()
        ports = [engine.port for engine in self.engines]
        self.watch = Watch(uuid.uuid4().hex, self.balancer.port, ports, SPECIAL, CACHE_TTL_S)
        self.watch.start()
        self.mark(f"load: {rate} requests/s over {users} connections", kind="load")
        ready = time.monotonic() + warm_up
        while time.monotonic() < ready:
            self.load.check_running()
            time.sleep(0.2)

    # --- waiting

    def acknowledged_since(self, moment):
        """The first canary that was sent after a moment and acknowledged."""
        good = [
            row["answered"]
            for row in list(self.watch.canaries)
            if row["status"] == 200 and row["answered"] >= moment
        ]
        return min(good, default=None)

    def wait_acknowledged(self, moment, seconds=RECOVERY_SECONDS_MAX):
        """Waits for the first acknowledged transfer after a moment; when it was."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            found = self.acknowledged_since(moment)
            if found is not None:
                return found
            time.sleep(0.02)
        raise DrillError(f"no transfer was acknowledged within {seconds} s")

    def recovered(self, moment, text="first acknowledged transfer"):
        """Waits for the recovery, and long enough to see the throughput after it."""
        at = self.wait_acknowledged(moment)
        self.recovered_at = at
        self.events.append({"at": at, "kind": "recovery", "text": text})
        self.say(f"  {at - self.load.began:6.1f} s  {text}")
        return at

    def go_on(self, seconds):
        """Lets the load go on, so that the report shows what came after."""
        time.sleep(seconds)

    def settle(self):
        """Lets the load go on until its rate is back, or until that is too late.

        The engines' own count tells when; what is promised is computed from the
        generator's figures afterwards.
        """
        begun = time.monotonic()
        enough = 0
        while time.monotonic() - begun < SETTLE_SECONDS_MAX and enough < SETTLE_S:
            before = self.requests()
            time.sleep(1)
            enough = enough + 1 if self.requests() - before >= BACK_SHARE * self.load.rate else 0

    def requests(self):
        """How many requests the engines that run have answered."""
        alive = [engine for engine in self.engines if engine.process.running()]
        return sum(engine.metric("engine_requests_total") or 0 for engine in alive)

    # --- the end

    def end_load(self):
        """Ends load and watch, and waits until nothing is under way."""
        self.mark("end of load", kind="load")
        self.ended["load"] = self.load.finish()
        self.watch.finish()
        # What an engine still answers has no fate before that.
        self.wait_idle()

    def finish(self):
        """Ends what still runs, and reconciles with the ledger."""
        if not self.ended:
            self.end_load()
        self.say("  reconciling")
        url = self.primary.url("engine_read")
        verdict = self.load.reconcile(url, self.balancer.port)
        self.ended["verify"] = verdict
        self.promise_reconciled(verdict)
        self.promise_canaries()
        self.promise_verified(url)
        self.promise(
            "no balance older than acknowledged was served",
            not self.watch.stale,
            f"{self.watch.reads['own']} own and {self.watch.reads['other']} other reads, "
            f"{self.watch.reads['cached']} from the cache"
            + (f"; {len(self.watch.stale)} stale, first: {self.watch.stale[0]}" if self.watch.stale else ""),
        )
        alive = sum(engine.process.running() for engine in self.engines)
        ready = sum((engine.ready() or (0,))[0] == 200 for engine in self.engines)
        self.promise(
            "both engines run and are ready, none was restarted but on purpose",
            alive == ready == len(self.engines),
            f"{alive} run, {ready} ready",
        )
        for check in self.checks_after:
            check(self)

    def wait_idle(self, seconds=15):
        """Until no engine has a transfer in flight."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            alive = [engine for engine in self.engines if engine.process.running()]
            if not any(engine.metric("engine_permits_in_use") for engine in alive):
                return
            time.sleep(0.1)
        raise DrillError("an engine still has transfers in flight after the end of the load")

    def promise_reconciled(self, verdict):
        missing, doubled = verdict["missing"], verdict["doubled"]
        doubled += verdict["doubled_without_key"] or 0
        self.promise("acknowledged but missing: 0", missing == 0, missing)
        self.promise("doubled: 0", doubled == 0, doubled)
        self.promise(
            "loadtest verify: every promise kept",
            verdict["verdict"] == "kept",
            f"{verdict['acknowledged']:,} acknowledged, "
            f"{verdict['found_exactly_once']:,} found exactly once",
        )

    def promise_canaries(self):
        """Each acknowledged transfer of canary and witnesses, by its id."""
        ids = {row["txn_id"] for row in self.watch.canaries if row["status"] == 200}
        ids |= set(self.watch.witnessed)
        ids.discard(None)
        found = int(self.primary.query(count_ids(sorted(ids)), role="engine_read"))
        self.promise(
            "canaries and witnesses: acknowledged but missing: 0",
            found == len(ids),
            f"{len(ids) - found} of {len(ids)}",
        )

    def promise_verified(self, url, seconds=COMMAND_SECONDS_MAX):
        command = [self.place.program("engine"), "verify"]
        code, text = attempt(command, env=dict(os.environ, ENGINE_DATABASE_URL=url), seconds=seconds)
        (self.place.work / "engine-verify.log").write_text(text)
        last = (text.strip().splitlines() or ["no output"])[-1]
        self.promise("engine verify: the ledger is sound", code == 0, last)


def count_ids(ids):
    """SQL that counts how many of these transfers are stored."""
    listed = ",".join(f"'{uuid.UUID(each)}'" for each in ids)
    return f"SELECT count(*) FROM transfers WHERE id = ANY(ARRAY[{listed}]::uuid[])"


def database_url(ports, role="engine_app"):
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgres://{role}@{hosts}/{DATABASE}"


def make_ledger(place, node):
    """Database, schema and roles on a fresh server."""
    node.query(f"CREATE DATABASE {DATABASE}", database="postgres")
    environment = dict(os.environ, ENGINE_DATABASE_URL=node.url())
    run([place.program("engine"), "migrate"], env=environment)
    node.psql("-f", REPOSITORY / "sql" / "roles.sql")


def as_json(document):
    return json.dumps(document, indent=2, default=str) + "\n"
