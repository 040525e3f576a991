"""The list of drills, and how one is run from building to its figures."""

import platform
import os
import time
import traceback

import figures
from faults import DrillError
from place import Place
from stage import Stage

DRILLS = {}
BACK_SECONDS_MAX = 10


class Entry:
    """A drill: its name, what it does in one line, its steps."""

    def __init__(self, name, title, steps, needs):
        self.name = name
        self.title = title
        self.steps = steps
        self.needs = needs


def drill(name, title, needs=()):
    """Puts a function into the list of drills; `needs` are (program, package)."""

    def put(steps):
        DRILLS[name] = Entry(name, title, steps, needs)
        return steps

    return put


def perform(entry, options):
    """Runs one drill; its document, whatever happened."""
    begun = time.monotonic()
    document = {
        "version": 1,
        "drill": entry.name,
        "title": entry.title,
        "steps": " ".join((entry.steps.__doc__ or "").split()),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
    }
    with Place(options.bin_dir, options.work) as place:
        stage = Stage(place, entry.name, options)
        try:
            entry.steps(stage)
            if stage.skipped is None:
                stage.finish()
        except DrillError as error:
            stage.promise("the drill came to its end", False, str(error))
        except Exception:  # a mistake in the drill: told like a failure, cleaned up after
            stage.promise("the drill came to its end", False, traceback.format_exc())
        document |= gather(stage)
        document["seconds"] = round(time.monotonic() - begun, 1)
        document["verdict"] = figures.outcome(document["promises"])
        if stage.skipped is not None and document["verdict"] != "kept" and not stage.promises:
            document["verdict"] = "skipped"
            document["notes"].append(f"skipped: {stage.skipped}")
        if document["verdict"] == "BROKEN" or options.keep_logs:
            logs = options.out / f"{entry.name}.logs"
            place.keep_logs(logs)
            document["logs"] = str(logs)
    return document


def gather(stage):
    """Everything the report shows, with all moments counted from the load's start."""
    zero = stage.load.began if stage.load and stage.load.began else time.monotonic()
    load = stage.ended.get("load", {})
    series = load.get("series", [])
    verify = stage.ended.get("verify", {})
    throughput(stage, series, zero)
    canaries = stage.watch.canaries if stage.watch else []
    events = [{**e, "at": round(e["at"] - zero, 3)} for e in sorted(stage.events, key=lambda e: e["at"])]
    return {
        "promises": stage.promises,
        "figures": stage.figures,
        "notes": stage.notes,
        "events": events,
        "series": [
            {k: point[k] for k in ("at_seconds", "sent", "succeeded", "failed", "retried", "p99_us")}
            for point in series
        ],
        "load": {
            "statuses": load.get("statuses"),
            "codes": load.get("codes"),
            "errors": load.get("errors"),
            "requests": load.get("requests"),
        },
        "canaries": [
            {"sent": round(row["sent"] - zero, 3), "answered": round(row["answered"] - zero, 3),
             "status": row["status"], "code": row["code"]}
            for row in canaries
        ],  # fmt: skip
        "canary_codes": figures.codes_of(canaries),
        "verify": {k: v for k, v in verify.items() if k not in ("examples", "journal")},
        "examples": verify.get("examples", [])[:5],
    }


def throughput(stage, series, zero):
    """Outage and return of throughput, if there was a fault and a load."""
    if not series or stage.faulted_at is None:
        return
    fault = stage.faulted_at - zero
    end = len(series)
    if end < fault:
        # The load had ended by then.
        return
    good = [row["answered"] - zero for row in stage.watch.canaries if row["status"] == 200]
    gap, since = figures.longest_gap(good, max(0.0, fault - 1), max(good, default=fault))
    stage.figures["outage_s"] = round(gap, 3)
    stage.figures["outage_began_s"] = round(since, 3)
    base = figures.steady_rate(series, 2, fault)
    if base is None:
        return
    stage.figures["throughput_before"] = round(base, 1)
    if stage.recovered_at is None:
        return
    back = figures.back_after(series, stage.recovered_at - zero, base, end)
    stage.figures["throughput_back_s"] = None if back is None else round(back, 1)
    stage.promise(
        f"throughput back to {figures.BACK_SHARE:.0%} at most {BACK_SECONDS_MAX} s after recovery",
        back is not None and back <= BACK_SECONDS_MAX,
        "not within the run" if back is None else f"{back:.1f} s",
    )
