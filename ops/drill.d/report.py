"""How a drill is told: on the terminal, and as one page that needs nothing else."""

import html

WIDTH, HEIGHT = 960, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 28
COLOURS = {"fault": "#b3261e", "repair": "#8a6100", "recovery": "#1b6e3c", "load": "#666", "event": "#333"}
FIGURES = {
    "rto_s": "RTO: first acknowledged transfer after the repair began, s",
    "cached_again_s": "balances from the cache again after, s",
    "outage_s": "longest time without an acknowledged transfer, s",
    "outage_began_s": "it began at, s",
    "throughput_before": "acknowledged requests per second before the fault",
    "throughput_back_s": "back to 90 % of it, s after recovery",
}


def text(document):
    """What the terminal shows of one drill."""
    lines = ["", f"{document['drill']}: {document['verdict']} ({document['seconds']} s)"]
    for promise in document["promises"]:
        mark = "ok    " if promise["held"] else "BROKEN"
        lines.append(f"  {mark} {promise['name']}: {promise['detail']}")
    for name, value in document["figures"].items():
        lines.append(f"  {FIGURES.get(name, name)}: {value}")
    lines += [f"  {name}: {value}" for name, value in rows(document)]
    if document.get("logs"):
        lines.append(f"  logs: {document['logs']}")
    return "\n".join(lines)


def counts(pairs):
    return ", ".join(f"{name} {count:,}" for name, count in pairs if count) or "none"


def rows(document):
    """What else is told: fates and codes."""
    verify, load = document["verify"], document["load"]
    told = []
    if verify:
        told.append(("acknowledged", f"{verify['acknowledged']:,}"))
        told.append(("  of these an earlier answer again", f"{verify['acknowledged_replayed']:,}"))
        told.append(("refused, certainly not applied", f"{verify['refused']:,}"))
        fates = verify["unanswered"]
        told.append(("unanswered, and their fate", counts(fates.items())))
    if load.get("statuses") is not None:
        told.append(("answers by status", counts(load["statuses"].items())))
        told.append(("error codes seen by the load", counts(load["codes"].items())))
        told.append(("connections", counts(load["errors"].items())))
        told.append(("sent again with the same key", f"{load['requests']['retried']:,}"))
    told.append(("error codes seen by the canary", counts(document["canary_codes"].items())))
    return told


def summary(documents):
    """One table over several drills."""
    width = max(len(document["drill"]) for document in documents) + 2
    head = f"{'drill':<{width}}{'verdict':<9}{'seconds':>8}{'outage s':>10}{'RTO s':>8}"
    head += f"{'acked':>10}{'missing':>9}{'doubled':>9}"
    lines = ["", head]
    for document in documents:
        figures, verify = document["figures"], document["verify"]
        doubled = (
            verify["doubled"] + (verify["doubled_without_key"] or 0) if verify else None
        )
        cells = [
            f"{document['seconds']:>8.0f}",
            f"{shown(figures.get('outage_s')):>10}",
            f"{shown(figures.get('rto_s')):>8}",
            f"{shown(verify.get('acknowledged')):>10}",
            f"{shown(verify.get('missing')):>9}",
            f"{shown(doubled):>9}",
        ]
        lines.append(f"{document['drill']:<{width}}{document['verdict']:<9}" + "".join(cells))
    return "\n".join(lines)


def shown(value):
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


def chart(document):
    """Throughput over time as SVG: answered well, answered otherwise, and the events."""
    series = document["series"]
    if not series:
        return "<p>There was no load.</p>"
    seconds = max(len(series), 1)
    top = max(max(p["succeeded"] + p["failed"] for p in series), 1)
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(second):
        return LEFT + plot_w * min(max(second, 0), seconds) / seconds

    def y(count):
        return TOP + plot_h * (1 - count / top)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Throughput over time">']
    for share in (0, 0.5, 1):
        at = y(top * share)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{top * share:,.0f}</text>')
    for second in range(0, seconds + 1, max(1, seconds // 12)):
        parts.append(f'<text x="{x(second):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{second}</text>')
    bar = plot_w / seconds
    for point in series:
        at, good, bad = x(point["at_seconds"]), point["succeeded"], point["failed"]
        title = f"<title>second {point['at_seconds']}: {good} acknowledged, {bad} not</title>"
        for low, count, name in ((0, good, "good"), (good, bad, "bad")):
            if count:
                height = plot_h * count / top
                parts.append(
                    f'<rect x="{at:.1f}" y="{y(low + count):.1f}" width="{max(bar - 1, 1):.1f}" '
                    f'height="{height:.1f}" class="{name}">{title}</rect>'
                )
    for number, event in enumerate(document["events"], 1):
        at, colour = x(event["at"]), COLOURS.get(event["kind"], "#333")
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{colour}" '
            f'stroke-dasharray="4 3"/><text x="{at + 2:.1f}" y="{TOP + 8 + 11 * (number % 4)}" '
            f'fill="{colour}">{number}</text>'
        )
    return "\n".join([*parts, "</svg>"])


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c }
table { border-collapse: collapse; margin: 1rem 0; width: 100% }
td, th { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
svg { width: 100%; height: auto } svg text { font-size: 11px; fill: #444 } .grid { stroke: #e3e3e3 }
.good { fill: #3b7dc4 } .bad { fill: #c4473b } .ok { color: #1b6e3c } .broken { color: #b3261e; font-weight: 600 }
"""


def table(head, body):
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in body
    )
    return f"<table><tr>{cells}</tr>\n{lines}</table>"


def page(document):
    """The whole report of one drill."""
    esc = lambda value: html.escape(str(value))  # noqa: E731
    verdicts = [
        (
            f'<span class="{"ok" if p["held"] else "broken"}">{"kept" if p["held"] else "BROKEN"}</span>',
            esc(p["name"]),
            esc(p["detail"]),
        )
        for p in document["promises"]
    ]
    events = [
        (number, f"{event['at']:.2f}", esc(event["text"]))
        for number, event in enumerate(document["events"], 1)
    ]
    told = [(esc(FIGURES.get(k, k)), esc(v)) for k, v in document["figures"].items()]
    told += [(esc(name), esc(value)) for name, value in rows(document)]
    notes = "".join(f"<p>{esc(note)}</p>" for note in document["notes"])
    name, verdict = esc(document["drill"]), document["verdict"]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}: {verdict}</title><style>{STYLE}</style>
<h1>{name}: <span class="{"ok" if verdict == "kept" else "broken"}">{verdict}</span></h1>
<p>{esc(document["title"])}. {esc(document["steps"])}</p>
<p>{esc(document["started_at"])}, {document["seconds"]} s, {esc(document["machine"])}</p>
<h2>Requests per second</h2>
<p>Blue: acknowledged. Red: answered otherwise, or not at all. The numbers are the events below.</p>
{chart(document)}
{table(("", "seconds", "what happened"), events)}
<h2>Promises</h2>
{table(("", "promise", "measured"), verdicts)}
<h2>Figures</h2>
{table(("what", "measured"), told)}
{notes}
</html>
"""
