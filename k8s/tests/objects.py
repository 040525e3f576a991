"""The rendered objects, and the questions that several checks ask of them."""

import copy
import functools
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
RENDERED = ROOT / "k8s/rendered"
COMPONENT = "app.kubernetes.io/component"


# The parser in C, where it is installed: these pages are long.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def _parsed(name: str) -> list[dict]:
    return [it for it in yaml.load_all((RENDERED / f"{name}.yaml").read_text(), LOADER) if it]


def load(*names: str) -> list[dict]:
    """A copy of the objects of these renderings, to be changed at will."""
    return copy.deepcopy([it for name in names for it in _parsed(name)])


def of_kind(objects: list[dict], *kinds: str) -> list[dict]:
    return [it for it in objects if it["kind"] in kinds]


def name_of(it: dict) -> str:
    return it["metadata"]["name"]


def without_hash(name: str) -> str:
    """A name without the hash of what it is of: of a Job's pod, of the engine's settings."""
    return re.sub("-[0-9a-f]{8}$", "", name)


def named(objects: list[dict], kind: str, name: str) -> dict | None:
    """The object of that name, with or without a hash behind it."""
    return next((it for it in of_kind(objects, kind) if name in (name_of(it), without_hash(name_of(it)))), None)


def label(it: dict) -> str:
    return f"{it['kind']} {name_of(it)}"


def template_of(it: dict) -> dict | None:
    """The pod template of whatever makes pods."""
    if it["kind"] in ("Deployment", "Rollout", "StatefulSet", "Job"):
        return it["spec"]["template"]
    if it["kind"] == "CronJob":
        return it["spec"]["jobTemplate"]["spec"]["template"]
    return None


def workloads(objects: list[dict]) -> list[dict]:
    return [it for it in objects if template_of(it)]


def labels_of_pods(it: dict) -> dict[str, str]:
    return template_of(it)["metadata"].get("labels", {})


def containers_of(it: dict) -> list[dict]:
    spec = template_of(it)["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def ports_of(it: dict) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for one in containers_of(it) for port in one.get("ports", [])}


def selects(selector: dict | None, labels: dict[str, str]) -> bool:
    """Kubernetes' label selector; None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        value = labels.get(one["key"])
        wanted = {
            "In": value in one.get("values", []),
            "NotIn": value not in one.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not wanted[one["operator"]]:
            return False
    return True


def selected_by_service(service: dict, objects: list[dict]) -> list[dict]:
    selector = service["spec"].get("selector", {})
    return [it for it in workloads(objects) if selector and selects({"matchLabels": selector}, labels_of_pods(it))]


def seconds(text: str) -> float:
    """12s, 3m, 30d, as Istio, Argo and the engine write a time."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    for unit in ("ms", "s", "m", "h", "d"):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * units[unit]
    return float(text)


def quantity(text: str | int) -> float:
    text = str(text)
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9}
    for unit, factor in units.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def as_deployment(it: dict) -> dict:
    """A Rollout as the Deployment that it stands for: what schemas and scanners of the core kinds can judge."""
    if it["kind"] != "Rollout":
        return it
    spec = {key: value for key, value in it["spec"].items() if key not in ("strategy", "progressDeadlineAbort")}
    return {**it, "apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}
