"""The arithmetic of a drill: outages and throughput, from what was counted.

Pure functions over lists; moments are seconds of one clock.
"""

# Of the throughput before the fault.
BACK_SHARE = 0.9
# A single second is noise on a shared machine.
WINDOW_S = 3


def longest_gap(moments, begin, end):
    """The longest time between two of these moments, within [begin, end].

    Returns (length, when it began); begin and end count as moments, so that an
    outage that did not end is seen.
    """
    inside = sorted(m for m in moments if begin <= m <= end)
    edges = [begin, *inside, end]
    gaps = [(after - before, before) for before, after in zip(edges, edges[1:])]
    return max(gaps, key=lambda gap: gap[0])


def steady_rate(series, begin, end):
    """Successes per second over the whole seconds inside [begin, end)."""
    counts = [p["succeeded"] for p in series if begin <= p["at_seconds"] and p["at_seconds"] + 1 <= end]
    return sum(counts) / len(counts) if counts else None


def back_after(series, moment, base, end):
    """Seconds from a moment until throughput is back to BACK_SHARE of `base`.

    Back means a window of WINDOW_S seconds whose mean reaches it; the answer is when
    that window begins, 0 at the least. None if it did not come back before `end`.
    """
    points = [p for p in series if p["at_seconds"] + 1 <= end]
    for index, first in enumerate(points):
        window = points[index : index + WINDOW_S]
        if first["at_seconds"] + 1 <= moment or len(window) < WINDOW_S:
            continue
        if sum(p["succeeded"] for p in window) / WINDOW_S >= BACK_SHARE * base:
            return max(0.0, first["at_seconds"] - moment)
    return None


def codes_of(canaries):
    """How often each answer other than 200 was seen."""
    counts = {}
    for row in canaries:
        if row["status"] != 200:
            name = f"{row['status']} {row['code']}".strip() if row["status"] else row["code"]
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def outcome(promises):
    """The verdict over all promises: a drill without one proves nothing."""
    return "kept" if promises and all(p["held"] for p in promises) else "BROKEN"
