"""Every query of rules, dashboards and runbooks against the metrics that are really served.

A misspelt metric or label value is a valid query whose answer is empty: nothing fires, a
panel says "no data". So each name, label and value is looked for on pages that were just
read from running servers, or in elsewhere.yaml, which names the source of what cannot run here.
"""

import json
import re
from pathlib import Path

import promql_parser as promql
import yaml

from rules import HERE, recorded, rules

# What Prometheus itself puts on every series that it scrapes.
TARGET_LABELS = {"job", "instance", "namespace"}
# Its own series; and what the prober is told, which is on no page.
OWN = {"up": {}, "ALERTS": {"alertname": None, "alertstate": None, "severity": None}}


class Pages:
    """What is served: each name with the values of its labels; None: any value."""

    def __init__(self, elsewhere=HERE / "check.d/elsewhere.yaml"):
        self.labels = {name: dict(labels) for name, labels in OWN.items()}
        for name, labels in yaml.safe_load(elsewhere.read_text()).items():
            self.labels[name] = {label: None for label in labels}

    def add(self, text):
        for line in text.splitlines():
            found = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", line)
            if not found or line.startswith("#"):
                continue
            known = self.labels.setdefault(found[1], {})
            for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""):
                if known.setdefault(name, set()) is not None:
                    known[name].add(value)


def concrete(query):
    """A dashboard's query with its variables replaced as Grafana would."""
    query = query.replace("$__rate_interval", "5m").replace("$__range", "1h")
    return re.sub(r"\$\{?(instance|namespace)\}?", ".+", query)


def nodes(expression):
    """Every node of a parsed query."""
    yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        child = getattr(expression, name, None)
        if child is not None and not isinstance(child, str):
            yield from nodes(child)
    for child in getattr(expression, "args", None) or []:
        yield from nodes(child)


def selectors(expression):
    return [node for node in nodes(expression) if isinstance(node, promql.VectorSelector)]


def wrong_in_selector(selector, pages, made):
    name = selector.name
    if name is None:
        yield f"a selector without a name: {selector.prettify()}"
        return
    if name in made:
        return
    if name not in pages.labels:
        yield f"{name} is served by nobody"
        return
    for matcher in selector.matchers.matchers:
        if matcher.name in TARGET_LABELS:
            continue
        known = pages.labels[name]
        if matcher.name not in known:
            yield f"{name} has no label {matcher.name}"
        elif known[matcher.name] is not None:
            operator, values = str(matcher.op), known[matcher.name]
            if "Re" in operator:
                for one in alternatives(matcher.value):
                    if not any(re.fullmatch(one, value) for value in values) and not excuse(matcher, operator):
                        yield f'{name} has no {matcher.name} like "{one}"; there are {sorted(values)}'
            elif matcher.value not in values and not excuse(matcher, operator):
                yield f'{name} has no {matcher.name}="{matcher.value}"; there are {sorted(values)}'


def excuse(matcher, operator):
    """Leaving out what is not there is no mistake."""
    return "Not" in operator


def alternatives(pattern):
    return re.split(r"\|(?![^(]*\))", pattern)


def wrong_in_query(query, pages, made):
    try:
        expression = promql.parse(concrete(query))
    except ValueError as error:
        yield f"cannot be parsed: {error}: {query}"
        return
    found = selectors(expression)
    for selector in found:
        yield from wrong_in_selector(selector, pages, made)
    labels = set(TARGET_LABELS)
    for selector in found:
        labels |= set(pages.labels.get(selector.name, {}))
    for node in nodes(expression):
        modifier = getattr(node, "modifier", None)
        for label in grouped(modifier):
            if label not in labels and not any(selector.name in made for selector in found):
                yield f"groups by {label}, which none of its metrics has: {query}"


def grouped(modifier):
    """The labels of by (...), without (...), on (...), ignoring (...)."""
    for part in (modifier, getattr(modifier, "matching", None), getattr(modifier, "labels", None)):
        labels = getattr(part, "labels", None)
        if isinstance(labels, (list, tuple)):
            yield from labels
    if isinstance(modifier, (list, tuple)):
        yield from modifier


def queries(root=HERE):
    """Every query of PromQL with what it is of."""
    for path, rule in rules(root):
        yield f"{path}: {rule.get('alert') or rule.get('record')}", rule["expr"]
    for path in sorted((root / "dashboards").glob("*.json")):
        document = json.loads(path.read_text())
        for panel in document["panels"]:
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == "prometheus":
                    yield f"{path.name}: {panel['title']}", target["expr"]
        for one in document["annotations"]["list"]:
            yield f"{path.name}: annotation {one['name']}", one["expr"]
        for one in document["templating"]["list"]:
            found = re.fullmatch(r"label_values\((\w+), \w+\)", one.get("definition", ""))
            if one["type"] == "query":
                yield f"{path.name}: variable {one['name']}", found[1] if found else one["definition"]
    for path in sorted((root / "runbooks").glob("*.md")):
        for block in re.findall(r"^```promql\n(.*?)^```", path.read_text(), re.M | re.S):
            for query in filter(None, map(str.strip, block.splitlines())):
                yield f"runbooks/{path.name}", query


def wrong_in_queries(pages, root=HERE):
    made = recorded(root)
    for what, query in queries(root):
        for problem in wrong_in_query(query, pages, made):
            yield f"{what}: {problem}"


def wrong_in_coverage(page, root=HERE, unshown=None):
    """What an engine's page serves is asked for by a rule or a panel, or left out for a reason."""
    if unshown is None:
        unshown = yaml.safe_load((root / "check.d/unshown.yaml").read_text())
    asked = {re.sub(r"_(bucket|sum|count)$", "", selector.name) for what, query in queries(root) if not what.startswith("runbooks/")
             for selector in selectors(promql.parse(concrete(query))) if selector.name}  # fmt: skip
    served = set(re.findall(r"^# TYPE (\S+)", page, re.M))
    for name in sorted(served - asked - set(unshown)):
        yield f"{name} is served, and no rule and no panel asks for it; or give the reason in check.d/unshown.yaml"
    for name in sorted(set(unshown) & asked):
        yield f"check.d/unshown.yaml: {name} is asked for"
    for name in sorted(set(unshown) - served):
        yield f"check.d/unshown.yaml: {name} is served by no engine"


def wrong_in_dashboards(root=HERE):
    """What Grafana would not complain of: ids, places, data sources, empty panels."""
    uids = set()
    for path in sorted((root / "dashboards").glob("*.json")):
        document = json.loads(path.read_text())
        name = path.name
        if document["uid"] != path.stem or document["uid"] in uids:
            yield f"{name}: its uid {document['uid']} is not the file's name, or taken"
        uids.add(document["uid"])
        variables = {one["name"] for one in document["templating"]["list"]}
        ids = [panel["id"] for panel in document["panels"]]
        if len(set(ids)) != len(ids):
            yield f"{name}: two panels have one id"
        taken = {}
        for panel in document["panels"]:
            title, at = panel["title"], panel["gridPos"]
            if at["x"] + at["w"] > 24:
                yield f"{name}: {title} reaches past the right edge"
            for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
                if taken.setdefault(cell, title) != title:
                    yield f"{name}: {title} covers {taken[cell]}"
                    break
            if panel["type"] != "row" and not panel.get("targets"):
                yield f"{name}: {title} asks for nothing"
            for asked in [panel, *panel.get("targets", [])] if panel["type"] != "row" else []:
                uid = re.fullmatch(r"\$\{(\w+)\}", asked["datasource"]["uid"])
                if not uid or uid[1] not in variables:
                    yield f"{name}: {title} asks {asked['datasource']['uid']}, which is no variable of it"
            for used in re.findall(r"\$\{([a-z]\w*)[:}]", json.dumps(panel.get("fieldConfig", {}))):
                if used not in variables:
                    yield f"{name}: {title} links to ${used}, which is no variable of it"
            for target in panel.get("targets", []):
                for used in re.findall(r"\$\{?([a-z]\w*)\}?", target["expr"]):
                    if used not in variables and not used.startswith("__"):
                        yield f"{name}: {title} uses ${used}, which is no variable of it"
                for used in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                    groups = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", target["expr"])
                    if groups and not any(used in re.split(r",\s*", group) for group in groups):
                        yield f"{name}: {title} names {{{{{used}}}}} in its legend, by which it does not group"
