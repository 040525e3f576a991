"""How a soak is told: on the terminal, and as one page that needs nothing else."""

import html

import flat
from report import BOTTOM, HEIGHT, LEFT, RIGHT, STYLE, TOP, WIDTH, counts, table

FIGURES = {
    "seconds": "seconds of load",
    "transfers": "transfers",
    "transfers_per_second": "transfers per second",
    "first_third_per_second": "of these in the first third",
    "last_third_per_second": "of these in the last third",
    "p50_ms": "half of all requests answered within, ms",
    "p99_ms": "99 in 100 within, ms",
    "disk_bytes_per_transfer": "disk, bytes per transfer, journal and log included",
    "postgres_mib_last": "PostgreSQL at the end, MiB",
    "generator_mib_last": "load generator at the end, MiB",
}
CHARTS = (
    ("Transfers per second", "per_second", 1),
    ("Memory of the engine, MiB", "rss", flat.MIB),
    ("Memory of PostgreSQL, shared buffers included, MiB", "postgres", flat.MIB),
    ("Private memory of the engine's sessions in PostgreSQL, MiB", "sessions", flat.MIB),
    ("Memory of Redis, MiB", "redis", flat.MIB),
    ("99 in 100 requests answered within, ms (upper edge of the bucket)", "p99_ms", 1),
    ("Transfers admitted", "permits", 1),
    ("Open files of the engine", "fds", 1),
)


def shown(value):
    return f"{value:,}" if isinstance(value, int) else str(value)


def rows(document):
    load = document["load"]
    told = [(FIGURES.get(k, k), shown(v)) for k, v in document["figures"].items() if v is not None]
    if load.get("statuses") is not None:
        told.append(("answers by status", counts(load["statuses"].items())))
        told.append(("error codes", counts(load["codes"].items())))
        told.append(("connections", counts(load["errors"].items())))
    return told


def text(document):
    """What the terminal shows."""
    lines = ["", f"soak: {document['verdict']} ({document['seconds']} s, {document['machine']})"]
    for promise in document["promises"]:
        mark = "ok    " if promise["held"] else "BROKEN"
        lines.append(f"  {mark} {promise['name']}: {promise['detail']}")
    lines += [f"  {name}: {value}" for name, value in rows(document)]
    if document.get("logs"):
        lines.append(f"  logs: {document['logs']}")
    return "\n".join(lines)


def chart(samples, name, unit, label):
    """One line over time as SVG; the part that is judged is on white."""
    points = [(row["at"], row[name] / unit) for row in samples if row.get(name) is not None]
    if len(points) < 2:
        return "<p>Nothing was measured.</p>"
    end, top = points[-1][0], max(max(value for _, value in points), 1e-9) * 1.05
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(second):
        return LEFT + plot_w * second / end

    def y(value):
        return TOP + plot_h * (1 - value / top)

    judged = points[0][0] + (end - points[0][0]) * flat.WARM_UP_SHARE
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">',
        f'<rect x="{LEFT}" y="{TOP}" width="{x(judged) - LEFT:.1f}" height="{plot_h}" fill="#f3f3f3"/>',
    ]
    for share in (0, 0.5, 1):
        at = y(top * share)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{top * share:,.0f}</text>')
    step = max(1, round(end / 60 / 10))
    for minute in range(0, int(end // 60) + 1, step):
        parts.append(f'<text x="{x(minute * 60):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{minute} min</text>')
    path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="#3b7dc4" stroke-width="1.5"/></svg>')
    return "\n".join(parts)


def page(document):
    """The whole report."""
    esc = lambda value: html.escape(str(value))  # noqa: E731
    verdict = document["verdict"]
    promises = [
        (
            f'<span class="{"ok" if p["held"] else "broken"}">{"kept" if p["held"] else "BROKEN"}</span>',
            esc(p["name"]),
            esc(p["detail"]),
        )
        for p in document["promises"]
    ]
    charts = "".join(
        f"<h2>{esc(name)}</h2>\n{chart(document['samples'], key, unit, name)}\n" for name, key, unit in CHARTS
    )
    notes = "".join(f"<p>{esc(note)}</p>" for note in document["notes"])
    settings = [(esc(name), esc(value)) for name, value in document["settings"].items()]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>soak: {verdict}</title><style>{STYLE}</style>
<h1>Soak: <span class="{"ok" if verdict == "kept" else "broken"}">{verdict}</span></h1>
<p>{esc(document["started_at"])}, {document["seconds"]} s, {esc(document["machine"])}</p>
{notes}
<h2>Promises</h2>
{table(("", "promise", "measured"), promises)}
<p>Judged is what comes after the warm-up, the grey third of each chart.</p>
{charts}
<h2>Figures</h2>
{table(("what", "measured"), [(esc(a), esc(b)) for a, b in rows(document)])}
<h2>Settings</h2>
{table(("setting", "value"), settings)}
</html>
"""
