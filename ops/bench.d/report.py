"""Medians, ratios, and how they are shown."""

import statistics

# Ratio rows of the speed goal: name, side, compared with, at least, aim as
# (factor, compared with). `value` is what the side's samples measure.
GOALS = [
    ("engine, 1 connection", "engine-1", "naive-1", 0.8, (0.7, "proc-1")),
    ("engine, 16 connections", "engine-16", "naive-16", 1.6, (1.0, "proc-16")),
    ("engine, 64", "engine-64", "naive-64", 3.0, (2.0, "proc-64")),
    ("engine, 256", "engine-256", "naive-64", 5.0, (7.0, "naive-64")),
    ("engine, 1,024", "engine-1024", "naive-64", 5.5, (8.0, "naive-64")),
    ("all into one account, 256", "engine-hot", "naive-hot", 18.0, (1.0, "engine-256")),
    ("batch call, 1,000 per call", "engine-batch", "naive-64", 11.0, (16.0, "naive-64")),
    ("full, 256", "engine-full", "engine-256", 0.8, (1.0, "engine-256")),
    ("cached balance, 64", "balance", "health", 0.4, (0.7, "health")),
]
# Ratios worth seeing that have no goal.
SHOWN = [
    ("half into one account, 256", "engine-half-hot", "engine-256"),
    ("batch call against COPY alone", "engine-batch", "ceiling"),
    ("access log: all against off", "engine-log-all", "engine-log-off"),
]
# Limits: name, side, field of its detail, and the limit with its sense.
LIMITS = [
    ("p99 at half load, ms", "p99-half", "value", "<=", 10.0),
    ("overload: goodput share", "overload", "value", ">", 0.9),
    ("overload: 503 p99, ms", "overload", "refused_p99_ms", "<=", 100.0),
    ("overload: memory, MiB", "overload", "rss_mib_max", "<", 256.0),
    ("batch overload: goodput share", "overload-batch", "value", ">", 0.9),
    ("batch overload: 503 p99, ms", "overload-batch", "refused_p99_ms", "<=", 100.0),
    ("batch overload: memory, MiB", "overload-batch", "rss_mib_max", "<", 256.0),
]


def medians(samples):
    """The median of each side: `samples` maps sides to lists of sample dicts."""
    return {
        side: statistics.median(s["value"] for s in runs) for side, runs in samples.items() if runs
    }


def field_median(runs, field):
    """The median of one field over the samples that have it."""
    values = [run[field] for run in runs if run.get(field) is not None]
    return statistics.median(values) if values else None


def ratio(values, side, base):
    """The ratio of two sides, or None if one was not measured."""
    if side not in values or not values.get(base):
        return None
    return values[side] / values[base]


def verdict(low, high):
    """`low` and `high`: whether the minimum and the aim are met; None is unknown."""
    if low is False:
        return "short"
    if high:
        return "aim"
    return "met" if low else "unknown"


def ratios(samples):
    """One dict per row that can be computed from the samples."""
    values = medians(samples)
    rows = []
    for name, side, base, least, (aim, aim_base) in GOALS:
        got = ratio(values, side, base)
        if got is None:
            continue
        aimed = ratio(values, side, aim_base)
        rows.append(
            {
                "name": name,
                "ratio": round(got, 3),
                "base": base,
                "at_least": least,
                "aim": aim,
                "aim_base": aim_base,
                "aim_ratio": None if aimed is None else round(aimed, 3),
                "verdict": verdict(got >= least, aimed is not None and aimed >= aim),
            }
        )
    for name, side, base in SHOWN:
        got = ratio(values, side, base)
        if got is not None:
            rows.append({"name": name, "ratio": round(got, 3), "base": base})
    return rows


def limits(samples):
    """One dict per limit whose side was measured."""
    rows = []
    for name, side, field, sense, bound in LIMITS:
        got = field_median(samples.get(side, []), field)
        if got is None:
            continue
        kept = {"<=": got <= bound, "<": got < bound, ">": got > bound}[sense]
        rows.append(
            {
                "name": name,
                "value": round(got, 3),
                "limit": f"{sense} {bound:g}",
                "verdict": "met" if kept else "short",
            }
        )
    return rows


def number(value):
    """A figure with as many digits as mean something."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def columns(rows, header):
    """Text in columns; the first is flush left, the others flush right."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def sides_table(samples):
    rows = []
    for side, runs in samples.items():
        if not runs:
            continue
        values = [run["value"] for run in runs]
        rows.append(
            [
                side,
                number(statistics.median(values)),
                runs[0]["unit"],
                f"{number(min(values))}..{number(max(values))}",
                number(field_median(runs, "p50_ms")),
                number(field_median(runs, "p99_ms")),
                str(len(runs)),
            ]
        )
    return columns(rows, ["side", "median", "unit", "range", "p50 ms", "p99 ms", "runs"])


def ratios_table(rows):
    cells = []
    for row in rows:
        least = f"{row['at_least']:g}" if "at_least" in row else "-"
        aim = "-"
        if "aim" in row:
            aim = f"{row['aim']:g}"
            if row["aim_base"] != row["base"]:
                shown = "?" if row["aim_ratio"] is None else f"{row['aim_ratio']:.2f}"
                aim = f"{row['aim']:g} x {row['aim_base']} (is {shown})"
        verdict_text = row.get("verdict", "")
        cells.append([row["name"], f"{row['ratio']:.2f} x {row['base']}", least, aim, verdict_text])
    return columns(cells, ["ratio", "measured", "at least", "aim", ""])


def limits_table(rows):
    cells = [[r["name"], number(r["value"]), r["limit"], r["verdict"]] for r in rows]
    return columns(cells, ["limit", "measured", "wanted", ""])
