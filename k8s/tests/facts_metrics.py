"""What holds between queries (alerts, analyses, the autoscaler) and the metrics that exist.

A misspelt metric or label value is a valid query whose answer is empty: the alert never
fires, the canary is never given up. So every name, label and value is looked for on the
metrics page of a running engine.
"""

import json
import re

from objects import label, name_of, named, of_kind, selects

# What other exporters serve; the monitoring checks ask those themselves.
ELSEWHERE = ("up", "kube_", "rollout_", "node_", "pg_", "redis_", "istio_", "container_", "probe_", "alertmanager_",
             "prometheus_", "ALERTS", "aws_", "certmanager_", "kubelet_", "pgbackrest_", "backup_", "loki_", "envoy_",
             "analysis_run_", "scrape_", "externalsecret_", "drill_", "ops_")  # fmt: skip
# Of Prometheus and the operator, on every series.
TARGET_LABELS = {"job", "instance", "namespace", "pod", "service", "container", "endpoint",
                 "rollouts_pod_template_hash", "app_kubernetes_io_version"}  # fmt: skip
WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset", "inf", "nan", "atan2",
         "sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "stddev", "stdvar", "group", "count_values"}  # fmt: skip


class Page:
    """A metrics page: each name with the values that its labels take."""

    def __init__(self, text: str):
        self.labels: dict[str, dict[str, set]] = {}
        self.values: dict[str, float] = {}
        for line in text.splitlines():
            found = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", line)
            if not found or line.startswith("#"):
                continue
            known = self.labels.setdefault(found[1], {})
            for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""):
                known.setdefault(name, set()).add(value)
            self.values[line.rsplit(" ", 1)[0]] = float(found[3])


def series_of(query: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Every metric of a query with its matchers: (name, [(label, operator, value)])."""
    result = []
    pattern = re.compile(
        r'"(?:[^"\\]|\\.)*"|(?P<group>\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\))'
        r"|\[[^\]]*\]|(?P<name>[a-zA-Z_:][\w:]*)\s*(?P<call>\()?(?P<match>\{[^}]*\})?"
    )
    # Braces inside a value, such as an argument of an analysis, are not the matchers' end.
    query = re.sub(r"\{\{.*?\}\}", "ARGUMENT", query)
    for found in pattern.finditer(query):
        if found["name"] and not found["call"] and found["name"].lower() not in WORDS:
            matchers = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"', found["match"] or "")
            result.append((found["name"], matchers))
    return result


def wrong_in_query(query: str, page: Page, recorded: set[str]):
    names = series_of(query)
    if not names:
        yield f"asks for nothing: {query}"
    for name, matchers in names:
        if name in recorded or re.sub("_bucket$", "", name) in recorded:
            continue
        if not name.startswith(("engine_", "process_")):
            if not name.startswith(ELSEWHERE):
                yield f"asks for {name}, which nobody serves"
            continue
        if name not in page.labels:
            yield f"asks for {name}, which the engine does not serve"
            continue
        for own, operator, value in matchers:
            if own in TARGET_LABELS:
                continue
            values = page.labels[name].get(own)
            if values is None:
                yield f"asks {name} for the label {own}, which it has not"
            elif operator in ("=", "!="):
                if value not in values:
                    yield f'asks {name} for {own}="{value}"; there are {sorted(values)}'
            else:
                for one in re.split(r"\|(?![^(]*\))", value):
                    if not any(re.fullmatch(one, known) for known in values):
                        yield f'asks {name} for {own} like "{one}"; there are {sorted(values)}'


def queries_of(objects):
    """Every query with the object it is of."""
    for it in of_kind(objects, "PrometheusRule"):
        for group in it["spec"]["groups"]:
            for rule in group["rules"]:
                yield f"{rule.get('alert') or rule.get('record')}", rule["expr"]
    for it in of_kind(objects, "AnalysisTemplate"):
        for metric in it["spec"]["metrics"]:
            yield f"{name_of(it)}/{metric['name']}", metric["provider"]["prometheus"]["query"]


def recorded_in(objects) -> set[str]:
    return {rule["record"] for it in of_kind(objects, "PrometheusRule") for group in it["spec"]["groups"] for rule in group["rules"] if "record" in rule}


def metrics_exist(objects, page: Page):
    for what, query in queries_of(objects):
        for problem in wrong_in_query(query, page, recorded_in(objects)):
            yield f"{what} {problem}"


def alerts_name_what_is_there(objects):
    """The cron jobs, jobs and rollouts that alerts look for by name; the job they are scraped as."""
    crons = {name_of(it) for it in of_kind(objects, "CronJob")}
    scraped = {it["metadata"]["labels"]["app.kubernetes.io/name"] for it in of_kind(objects, "Service") if named([it], "Service", "engine-admin")}
    for what, query in queries_of(objects):
        for name, matchers in series_of(query):
            for own, operator, value in matchers:
                if own == "cronjob" and operator == "=" and value not in crons:
                    yield f"{what}: no CronJob {value}"
                if own == "job_name" and not any(re.fullmatch(value, f"{cron}-1") for cron in crons):
                    yield f"{what}: no CronJob makes Jobs like {value}"
                if own == "job" and name in ("up",) and value.startswith("engine") and value not in scraped:
                    yield f"{what}: nothing is scraped as {value}, only {sorted(scraped)}"
                if name == "rollout_info" and own == "name" and not any(name_of(it) == value for it in of_kind(objects, "Rollout")):
                    yield f"{what}: no Rollout {value}"


def monitor_finds_the_engines(objects):
    for it in of_kind(objects, "ServiceMonitor"):
        found = [service for service in of_kind(objects, "Service") if selects(it["spec"]["selector"], service["metadata"]["labels"])]
        if len(found) != 1:
            yield f"{label(it)} finds {[label(one) for one in found] or 'nothing'}: each engine is to be read once"
        for service in found:
            ports = {port["name"] for port in service["spec"]["ports"]}
            for endpoint in it["spec"]["endpoints"]:
                if endpoint["port"] not in ports:
                    yield f"{label(it)} reads the port {endpoint['port']}, {label(service)} has {sorted(ports)}"
            if not service["spec"].get("publishNotReadyAddresses"):
                yield f"{label(service)} hides the engines that are not ready"
        if it["spec"].get("jobLabel") != "app.kubernetes.io/name":
            yield f"{label(it)}: the alerts' job=\"engine\" comes from app.kubernetes.io/name"
        if of_kind(objects, "Rollout") and "rollouts-pod-template-hash" not in it["spec"].get("podTargetLabels", []):
            yield f"{label(it)} does not keep the version's hash, which the analyses ask for"


def autoscaler_is_served(objects, page: Page, adapter: dict | None):
    """`adapter`: the values of prometheus-adapter's chart, where this tree has them."""
    served = {rule["name"]["as"]: rule["seriesQuery"] for rule in adapter["rules"]["custom"]} if adapter else None
    for it in of_kind(objects, "HorizontalPodAutoscaler"):
        asked = [one["pods"]["metric"]["name"] for one in it["spec"]["metrics"] if one["type"] == "Pods"]
        if not asked:
            yield f"{label(it)} does not look at the queue"
        for name in asked:
            if name not in page.labels:
                yield f"{label(it)} asks for {name}, which the engine does not serve"
            if served is None:
                continue
            if name not in served:
                yield f"{label(it)} asks for {name}, which the adapter does not serve"
                continue
            for metric, _ in series_of(served[name]):
                if metric not in page.labels:
                    yield f"the adapter asks for {metric}, which the engine does not serve"


def verdict(condition: str, result: list[float]) -> bool:
    """An Argo successCondition for an answer of Prometheus, in the part of the language used here."""
    text = condition.replace("&&", " and ").replace("||", " or ")
    names = {"result": result, "len": len, "isNaN": lambda value: value != value}
    return bool(eval(text, {"__builtins__": {}}, names))  # noqa: S307 - our own file


def rules_json(objects) -> str:
    return json.dumps({"groups": [group for it in of_kind(objects, "PrometheusRule") for group in it["spec"]["groups"]]})
