"""Ratios and limits of ops/bench loadtest, and how they are shown."""

import statistics

import machine
import report

# Rows: name, side, compared with, field of both, whether less is better, at least.
RATIOS = [
    ("requests per second, against wrk", "loadtest", "wrk", "value", False, 0.8),
    ("requests per second, against Locust", "loadtest", "locust", "value", False, 30.0),
    ("requests per second of CPU, against wrk", "loadtest", "wrk", "cpu_us", True, None),
    ("requests per second of CPU, against Locust", "loadtest", "locust", "cpu_us", True, None),
    ("requests per second, against static wrk", "loadtest", "wrk-static", "value", False, None),
    ("requests per second, against HttpUser", "loadtest", "locust-requests", "value", False, None),
]
# Name, side, field, sense, limit.
LIMITS = [
    ("memory at 10,000 users, MiB", "users-10000", "rss_mib", "<", 300.0),
    ("open model: share of the schedule kept", "open", "held", ">=", 0.999),
    ("open model: late to send, p99, ms", "open", "lag_p99_ms", "<=", 1.0),
]
# From here on a core has nothing left.
FULL = 0.9


def ratios(samples):
    """One dict per row that can be computed: the median of the rounds' own ratios, so
    that both sides of each come from the same minute."""
    rows = []
    for name, side, base, field, less, least in RATIOS:
        pairs = zip(samples.get(side, []), samples.get(base, []))
        each = [b[field] / s[field] if less else s[field] / b[field] for s, b in pairs]
        if not each:
            continue
        got = statistics.median(each)
        row = {"name": name, "base": base, "ratio": round(got, 3)}
        row["range"] = [round(min(each), 3), round(max(each), 3)]
        if least is not None:
            row |= {"at_least": least, "verdict": "met" if got >= least else "short"}
        rows.append(row)
    return rows


def limits(samples):
    """One dict per limit whose side was measured; medians."""
    rows = []
    for name, side, field, sense, bound in LIMITS:
        got = report.field_median(samples.get(side, []), field)
        if got is None:
            continue
        kept = {"<=": got <= bound, "<": got < bound, ">=": got >= bound}[sense]
        row = {"name": name, "value": round(got, 4), "limit": f"{sense} {bound:g}"}
        rows.append(row | {"verdict": "met" if kept else "short"})
    return rows


def settings_text(document):
    host, run = document["machine"], document["run"]
    # Without where it is installed and whose copyright it is.
    known = [version for version in document["versions"].values() if version]
    peers = ", ".join(version.split(" from ")[0].split(" [")[0] for version in known)
    return (
        f"{host['date']}, commit {host['commit']}\n"
        f"{host['processor']}, {host['cores']} cores, {host['memory_mib']} MiB, {host['system']}, "
        f"load before {host['load_before']}\n"
        f"{document['cores']}\n"
        f"{run['rounds']} rounds of {run['seconds']} s, medians; POST /transaction with a key of "
        f"its own on 64 connections\n{peers}"
    )


def sides_table(samples):
    rows = []
    for side, runs in samples.items():
        if not runs:
            continue
        values = [run["value"] for run in runs]
        shares = [report.field_median(runs, name) for name in ("client_cpu", "target_cpu")]
        rows.append(
            [
                side,
                report.number(statistics.median(values)),
                f"{report.number(min(values))}..{report.number(max(values))}",
                report.number(report.field_median(runs, "p50_ms")),
                report.number(report.field_median(runs, "p99_ms")),
                report.number(report.field_median(runs, "cpu_us")),
                *(f"{share:.0%}" for share in shares),
                report.number(report.field_median(runs, "rss_mib")),
            ]
        )
    header = ["side", "req/s", "range", "p50 ms", "p99 ms", "CPU us/req", "client", "target", "MiB"]
    return report.columns(rows, header)


def ratios_table(rows):
    cells = []
    for row in rows:
        low, high = row["range"]
        least = f"{row['at_least']:g}" if "at_least" in row else "-"
        spread = f"{low:.2f}..{high:.2f}"
        cells.append([row["name"], f"{row['ratio']:.2f}", spread, least, row.get("verdict", "")])
    return report.columns(cells, ["ratio", "measured", "range", "at least", ""])


def overhead_text(document):
    """What the generator itself costs, next to what a request costs."""
    cost = document["overhead"]
    text = f"own cost: {cost['clock_ns']:.0f} ns per clock read (at most two per request), "
    text += f"{cost['recording_ns']:.0f} ns for recording an answer"
    cpu_us = report.field_median(document["samples"].get("loadtest", []), "cpu_us")
    if cpu_us:
        share = (2 * cost["clock_ns"] + cost["recording_ns"]) / (cpu_us * 1000)
        text += f": {share:.1%} of the {cpu_us:.2f} us of CPU that a request takes"
    return text


def notes(samples):
    """What a reader must know to read the ratios."""
    lines = []
    for side, runs in samples.items():
        target = report.field_median(runs, "target_cpu")
        client = report.field_median(runs, "client_cpu")
        if target is not None and target >= FULL > client and side != "users-10000":
            lines.append(
                f"{side}: the target's core was full and the client's was not: its rate is the "
                "target's limit, and it could have sent more. Compare CPU per request, too."
            )
    if samples.get("locust"):
        lines.append(
            "locust: one process, one core. Locust needs a process for each core it is to use "
            "(--processes); loadtest and wrk use a thread."
        )
    return "\n".join(lines)


def text(document):
    samples = document["samples"]
    parts = [settings_text(document), sides_table(samples)]
    if document["ratios"]:
        parts.append(ratios_table(document["ratios"]))
    if document["limits"]:
        parts.append(report.limits_table(document["limits"]))
    parts += [overhead_text(document), notes(samples)]
    parts += [f"FAILED {side}: {error}" for side, error in document["failures"].items()]
    if document["machine"]["load_before"] > machine.QUIET_LOAD:
        parts.append("Something else was running when this began: take these figures with care.")
    return "\n\n".join(part for part in parts if part)
