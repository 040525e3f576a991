"""ops/compose.yaml, Grafana's provisioning, Loki's and Alloy's files: what can be told without running them.

Alloy's own program cannot be had here. So: its files' blocks are closed, every component that
one names exists, its fields are fields of the engine's log, and few values become labels.
"""

import json
import re

import yaml

from rules import HERE

# A label makes a stream of each of its values.
LABELS_ALLOWED = {"level"}
COMPONENTS = {
    "discovery.docker": {"targets"}, "discovery.kubernetes": {"targets"}, "discovery.relabel": {"output", "rules"},
    "loki.source.docker": set(), "loki.source.kubernetes": set(), "loki.relabel": {"receiver", "rules"},
    "loki.source.journal": set(), "loki.process": {"receiver"}, "loki.write": {"receiver"},
}  # fmt: skip
STAGES = {"stage.match", "stage.json", "stage.timestamp", "stage.labels", "stage.structured_metadata"}
BLOCKS = {"rule", "filter", "endpoint", "selectors"}


def wrong_in_compose(text, schema, folder=HERE.parent):
    """Against the compose specification's schema; what is mounted is there; images have a version."""
    import jsonschema

    document = yaml.safe_load(text)
    for error in jsonschema.Draft7Validator(schema).iter_errors(document):
        yield f"{'/'.join(map(str, error.path))}: {error.message}"
    volumes = set(document.get("volumes") or {})
    for name, service in document["services"].items():
        for mount in service.get("volumes", []):
            source, target = str(mount).split(":")[:2]
            if source.startswith("."):
                if not (folder / source).exists():
                    yield f"{name} mounts {source}, which is not there"
            elif not source.startswith("/") and source not in volumes:
                yield f"{name} mounts the volume {source}, which is not declared"
            if not target.startswith("/"):
                yield f"{name}: {mount} has no absolute target"
        if not re.search(r":v?\d+\.\d+|:local$", service["image"]):
            yield f"{name}: {service['image']} has no version"
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name} publishes {port} beyond loopback"
        needs = service.get("depends_on", {})
        for other in needs:
            if other not in document["services"]:
                yield f"{name} depends on {other}, which is not there"
            elif set(document["services"][other].get("profiles", [])) - set(service.get("profiles", [])):
                yield f"{name} depends on {other}, which only another profile starts"
    if not any("listen-address=0.0.0.0" in word for word in document["services"]["loki"]["command"]):
        yield "loki listens where loki.yaml says, on its own loopback: Grafana and Alloy cannot reach it"
    yield from wrong_in_targets(document)
    yield from wrong_in_provisioning(document)


def wrong_in_targets(document):
    """Prometheus' targets of compose are its services."""
    for path in (HERE / "targets/compose").iterdir():
        for entry in yaml.safe_load(path.read_text()):
            for target in entry["targets"]:
                host = target.split(":")[0]
                if host != "127.0.0.1" and host not in document["services"]:
                    yield f"targets/compose/{path.name}: {target} is no service of compose.yaml"


def wrong_in_provisioning(document):
    """Each variable of the provisioning is set, and leads to a service and its port."""
    grafana = document["services"]["grafana"]
    environment = grafana["environment"]
    text = "".join(path.read_text() for path in sorted((HERE / "grafana/provisioning").glob("*/*.yaml")))
    for name in sorted(set(re.findall(r"\$\{(\w+)\}", text))):
        value = environment.get(name)
        if value is None:
            yield f"grafana: {name} of its provisioning is not set"
        elif value.startswith("http"):
            host = re.match(r"http://([\w-]+):\d+$", value)
            if not host or host[1] not in document["services"]:
                yield f"grafana: {name}={value} is no service of compose.yaml"
        elif not any(mount.split(":")[1] == value for mount in grafana["volumes"]):
            yield f"grafana: {name}={value} is mounted by nobody"
    kinds = {one["type"] for one in yaml.safe_load((HERE / "grafana/provisioning/datasources/datasources.yaml").read_text())["datasources"]}
    for path in (HERE / "dashboards").glob("*.json"):
        for one in json.loads(path.read_text())["templating"]["list"]:
            if one["type"] == "datasource" and one["query"] not in kinds:
                yield f"{path.name} chooses among sources of {one['query']}, none of which is provisioned"


def blocks(text):
    """(name, label, body) of each block, outer ones first; ValueError if one is not closed."""
    text = re.sub(r"(?m)^\s*//.*$", "", text)
    stack, done = [], []
    token = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<open>(?P<name>[a-z][\w.]*)(?:\s+"(?P<label>\w+)")?\s*\{)|(?P<map>\{)|(?P<close>\})', re.S)
    for found in token.finditer(text):
        if found["open"]:
            stack.append((found["name"], found["label"], found.end()))
        elif found["map"]:
            stack.append((None, None, found.end()))
        elif found["close"]:
            if not stack:
                raise ValueError("a brace closes nothing")
            name, label, begin = stack.pop()
            if name:
                done.append((name, label, text[begin : found.start()], len(stack)))
    if stack:
        raise ValueError(f"{stack[-1][0]} is not closed")
    return done


def wrong_in_alloy(name, text, fields):
    """fields: those of the engine's log lines."""
    try:
        found = blocks(text)
    except ValueError as error:
        yield f"{name}: {error}"
        return
    there = {f"{block}.{label}" for block, label, _, depth in found if depth == 0}
    for block, label, body, depth in found:
        if depth == 0 and block not in COMPONENTS:
            yield f"{name}: {block} is no component known here"
        elif depth and block not in STAGES | BLOCKS:
            yield f"{name}: {block} is no block known here"
        if depth == 0:
            for kind, other, export in re.findall(r"\b((?:loki|discovery)\.[a-z.]+?)\.(\w+)\.(\w+)", body):
                if f"{kind}.{other}" not in there:
                    yield f"{name}: {block} {label} names {kind}.{other}, which is not there"
                elif export not in COMPONENTS[kind]:
                    yield f"{name}: {kind} has no {export}"
        if block == "stage.json":
            for _, field in re.findall(r'(\w+)\s*=\s*"(\w+)"', body):
                if field not in fields:
                    yield f"{name}: the engine's log has no field {field}"
        if block == "stage.labels":
            for label_name in re.findall(r'(\w+)\s*=\s*"', body):
                if label_name not in LABELS_ALLOWED:
                    yield f"{name}: {label_name} as a label makes a stream of each of its values"
        if block in ("stage.labels", "stage.structured_metadata"):
            for extracted in re.findall(r'(\w+)\s*=\s*"', body):
                if not any(re.search(rf"\b{extracted}\s*=", inner) for kind, _, inner, _ in found if kind == "stage.json"):
                    yield f"{name}: {block} uses {extracted}, which no stage.json takes out"
    if text.count("loki.write \"") != 1 or text.count("The one block to change for Elasticsearch") != 1:
        yield f"{name}: not one block that names the store"


def wrong_in_loki(text):
    """What Loki refuses or silently does without."""
    config = yaml.safe_load(text)
    for listener in ("http", "grpc"):
        if config["server"].get(f"{listener}_listen_address") != "127.0.0.1":
            yield f"loki.yaml: {listener} listens beyond loopback, and Loki has no authentication"
    if config["compactor"].get("retention_enabled") and not config["compactor"].get("delete_request_store"):
        yield "loki.yaml: retention needs delete_request_store, or Loki does not start"
    newest = config["schema_config"]["configs"][-1]
    if config["limits_config"].get("allow_structured_metadata") and (newest["schema"], newest["store"]) != ("v13", "tsdb"):
        yield "loki.yaml: structured metadata needs schema v13 and tsdb, or Loki does not start"
