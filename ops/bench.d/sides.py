"""Every side of the bench: what it runs, and what its figure means.

A side is measured once per round, after a warm-up of its own, and gives one
sample: {"value", "unit", and details}. Sides run in the order of SIDES.
"""

import contextlib
from dataclasses import dataclass, field

import full
from database import BenchError
from engine import Memory, check_load

# A batch call holds 1,000 transfers, so few connections keep the engine busy.
BATCH_USERS = 8
BATCH_ROWS = 1000
# 1,024 connections more than the engine admits transfers: those are refused.
OVERLOAD_USERS = 9_216
OVERLOAD_FLAGS = ("--queue-depth-max", "8192")
OVERLOAD_BATCH_USERS = 256
OVERLOAD_FACTOR = 4
ANSWERS = frozenset({"200", "503"})


@dataclass
class Context:
    """What the sides of a run share."""

    sql: object
    ledger: object
    full_ledger: object
    warm_up: int
    seconds: int
    say: object
    samples: dict
    # The engine that serves the plain sides of one round.
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    serving: object = None

    def engine(self):
        """The round's engine, started at first use."""
        if self.serving is None:
            self.ledger.prepare()
            self.serving = self.stack.enter_context(self.ledger.engine())
        return self.serving

    def end_round(self):
        self.serving = None
        self.stack.close()

    def newest(self, side):
        """The newest figure of a side, measured now if there is none."""
        if not self.samples.get(side):
            self.samples[side] = [RUNNERS[side](self)]
        return self.samples[side][-1]["value"]


def spread(document, kind="2xx", clock="latency_us"):
    latency = document[clock][kind]
    return {
        "p50_ms": latency["p50"] / 1000,
        "p99_ms": latency["p99"] / 1000,
        "p999_ms": latency["p999"] / 1000,
        "max_ms": latency["max"] / 1000,
    }


def plain(value, unit="tx/s"):
    return {"value": value, "unit": unit}


def naive(clients, hot_percent=0):
    return lambda c: plain(c.sql.naive(clients, hot_percent, c.warm_up, c.seconds))


def proc(clients):
    return lambda c: plain(c.sql.proc(clients, c.warm_up, c.seconds))


def ceiling(context):
    return plain(context.sql.ceiling(), "rows/s")


def loaded(context, ledger, engine, users, **load):
    """Warm-up, then a measured closed run; the document of the latter.

    No checkpoint is forced: after one, every page is written whole to the log
    when it is first touched, and the key index is touched all over. A server
    does that once in checkpoint_timeout, not before every few seconds' work.
    """
    check_load(ledger.load(engine, context.warm_up, users, **load))
    return check_load(ledger.load(engine, context.seconds, users, **load))


def engine_side(users, hot="0"):
    def side(context):
        document = loaded(context, context.ledger, context.engine(), users, hot=hot)
        return plain(document["transfer_rate"]) | spread(document)

    return side


def engine_batch(context):
    task = f"batch:{BATCH_ROWS}"
    document = loaded(context, context.ledger, context.engine(), BATCH_USERS, task=task)
    return plain(document["transfer_rate"]) | spread(document)


def engine_log(setting):
    """256 connections on an engine of its own with that access log."""

    def side(context):
        context.end_round()
        context.ledger.prepare()
        with context.ledger.engine("--access-log", setting) as engine:
            document = loaded(context, context.ledger, engine, 256)
        return plain(document["transfer_rate"]) | spread(document)

    return side


def engine_full(context):
    ledger = context.full_ledger
    if not ledger.ready:
        context.say("full: storing 20 million transfers and keys; this takes minutes")
        ledger.prepare()
        full.fill(ledger, context.say)
    context.end_round()
    with ledger.engine() as engine:
        document = loaded(context, ledger, engine, 256)
    return plain(document["transfer_rate"]) | spread(document) | full.sizes(ledger.database)


def balance(context):
    engine = context.engine()
    engine.wait_cached(1)
    document = loaded(context, context.ledger, engine, 64, task="balance")
    return plain(document["success_rate"], "req/s") | spread(document)


def health(context):
    document = loaded(context, context.ledger, context.engine(), 64, task="health")
    return plain(document["success_rate"], "req/s") | spread(document)


def p99_half(context):
    """The open model at half of the 256-connection maximum of this run."""
    rate = max(1, int(context.newest("engine-256") / 2))
    engine = context.engine()
    check_load(context.ledger.load(engine, context.warm_up, 256, rate=rate))
    document = check_load(context.ledger.load(engine, context.seconds, 256, rate=rate))
    details = spread(document)
    unsent = document["requests"]["unsent"]
    return plain(details["p99_ms"], "ms") | details | {"rate": rate, "unsent": unsent}


def overloaded(context, flags, base, users, task, rows):
    """Offers four times the base side's maximum; the share that still succeeds."""
    best = context.newest(base)
    rate = max(1, int(OVERLOAD_FACTOR * best / rows))
    context.end_round()
    ledger = context.ledger
    ledger.prepare()
    ledger.database.checkpoint()
    with ledger.engine(*flags) as engine:
        warm_up = ledger.load(engine, context.warm_up, min(users, 256), task=task)
        # 256 calls of 1,000 transfers are more than the queue holds, too.
        check_load(warm_up, ANSWERS)
        memory = Memory(engine.process.pid)
        memory.start()
        document = ledger.load(engine, context.seconds, users, task=task, rate=rate)
        resident = memory.finish()
    check_load(document, ANSWERS)
    refused = document["service_us"]["503"]
    return (
        plain(document["transfer_rate"] / best, "share")
        | spread(document, clock="service_us")
        | resident
        | {
            "offered": rate * rows,
            "sent": document["requests"]["sent"],
            "unsent": document["requests"]["unsent"],
            "refused": refused["count"],
            "refused_p99_ms": refused["p99"] / 1000 if refused["count"] else None,
            "refused_max_ms": refused["max"] / 1000 if refused["count"] else None,
        }
    )


def overload(context):
    return overloaded(context, OVERLOAD_FLAGS, "engine-256", OVERLOAD_USERS, "transfer", 1)


def overload_batch(context):
    task = f"batch:{BATCH_ROWS}"
    return overloaded(context, (), "engine-batch", OVERLOAD_BATCH_USERS, task, BATCH_ROWS)


RUNNERS = {
    "naive-1": naive(1),
    "naive-16": naive(16),
    "naive-32": naive(32),
    "naive-64": naive(64),
    # As many as the row lock lets through; more clients only queue longer.
    "naive-hot": naive(16, 100),
    "proc-1": proc(1),
    "proc-16": proc(16),
    "proc-64": proc(64),
    "ceiling": ceiling,
    "engine-1": engine_side(1),
    "engine-16": engine_side(16),
    "engine-64": engine_side(64),
    "engine-256": engine_side(256),
    "engine-1024": engine_side(1024),
    "engine-hot": engine_side(256, "1"),
    "engine-half-hot": engine_side(256, "0.5"),
    "engine-batch": engine_batch,
    "p99-half": p99_half,
    "balance": balance,
    "health": health,
    "engine-log-off": engine_log("off"),
    "engine-log-all": engine_log("all"),
    "overload": overload,
    "overload-batch": overload_batch,
    "engine-full": engine_full,
}
SIDES = list(RUNNERS)
# Takes minutes to prepare, so only with --full or by name.
LONG_SIDES = {"engine-full"}


def choose(only, with_full):
    """The sides to run: names or groups (`engine` is every engine-*), in order."""
    if only is None:
        return [s for s in SIDES if with_full or s not in LONG_SIDES]
    chosen = set()
    for name in only.split(","):
        group = [s for s in SIDES if s.startswith(name + "-") and s not in LONG_SIDES]
        if name in RUNNERS:
            group.append(name)
        if not group:
            raise BenchError(f"--only {name}: no such side; there are {', '.join(SIDES)}")
        chosen.update(group)
    if with_full:
        chosen |= LONG_SIDES
    return [s for s in SIDES if s in chosen]
