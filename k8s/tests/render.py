"""Render the chart for every environment into k8s/rendered, or say what differs.

    render.py            write the files
    render.py --check    exit 1 and a diff if a file is not what the chart gives

The order is Helm's own order of kinds, so that `kubectl apply -f` makes accounts and
settings before what uses them.
"""

import difflib
import pathlib
import sys

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "k8s/chart"
VALUES = ROOT / "k8s/values"
RENDERED = ROOT / "k8s/rendered"
ENVIRONMENTS = ["local", "staging", "production-us-east-1", "production-us-west-2"]
NAMESPACE = "engine"
# The run from several generators is rendered apart: it is no part of the release.
LOAD_TESTS = ["staging"]

# Helm's InstallOrder, as far as it concerns us; custom resources come last.
ORDER = [
    "Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange", "PodDisruptionBudget", "ServiceAccount",
    "Secret", "ConfigMap", "PersistentVolumeClaim", "Service", "Deployment", "StatefulSet", "Job", "CronJob",
    "HorizontalPodAutoscaler", "SecretStore", "ExternalSecret", "AnalysisTemplate",
]  # fmt: skip


def values_of(environment: str) -> dict:
    return yaml.safe_load((VALUES / f"{environment}.yaml").read_text())


def merged(base: dict, over: dict) -> dict:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def render(environment: str, *, overrides: dict | None = None, only: str = "") -> list[dict]:
    """The objects of an environment, in the order in which they are applied."""
    values = merged(values_of(environment), merged({"namespace": {"create": True}}, overrides or {}))
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="engine", namespace=NAMESPACE)
    documents = []
    for path, text in sorted(files.items()):
        if path.endswith((".tpl", ".txt")) or only not in path:
            continue
        for part in yaml.safe_load_all(text):
            if part:
                documents.append(part)
    place = {kind: index for index, kind in enumerate(ORDER)}
    return sorted(documents, key=lambda it: (place.get(it["kind"], len(ORDER)), it["kind"], it["metadata"]["name"]))


class Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no references between objects."""

    def ignore_aliases(self, data):
        return True


def text(dumper, value):
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, text)


def how(name: str, documents: list[dict]) -> str:
    """How it is applied without Helm: who knows nothing of hooks has to keep their order by hand."""
    file = f"k8s/rendered/{name}.yaml"
    migration = next((it["metadata"]["name"] for it in documents if it["metadata"]["name"].startswith("engine-migrate-") and it["kind"] == "Job"), "")
    if not migration:
        return f"    kubectl apply -f {file}\n"
    # Of an engine's objects the component is `server`: everything else goes first.
    return f"""\
    curl -fsSO https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
    kubectl apply -f {file} -l app.kubernetes.io/component!=server
    kubectl -n engine create configmap engine-database-ca --from-file=ca.pem=global-bundle.pem
    kubectl -n engine wait --for=condition=Complete --timeout=15m job/{migration}
    kubectl apply -f {file}
"""


def page(name: str, documents: list[dict], source: str) -> str:
    head = f"# Rendered from k8s/chart with {source} by k8s/tests/render.py; not to be edited.\n#\n"
    head += "# Without Helm (k8s/README.md says what must be there before):\n#\n"
    head += "".join(f"# {line}\n" for line in how(name, documents).splitlines())
    return head + yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=200, explicit_start=True)


def pages() -> dict[pathlib.Path, str]:
    result = {}
    for environment in ENVIRONMENTS:
        result[RENDERED / f"{environment}.yaml"] = page(environment, render(environment), f"k8s/values/{environment}.yaml")
    for environment in LOAD_TESTS:
        documents = render(environment, overrides={"loadtest": {"enabled": True}}, only="/loadtest/")
        result[RENDERED / f"loadtest-{environment}.yaml"] = page(
            f"loadtest-{environment}", documents, f"k8s/values/{environment}.yaml and loadtest.enabled=true, templates/loadtest alone"
        )
    return result


def main() -> int:
    wrong = 0
    expected = pages()
    if sys.argv[1:] != ["--check"]:
        RENDERED.mkdir(exist_ok=True)
        for path, content in expected.items():
            path.write_text(content)
        return 0
    for path in sorted(set(RENDERED.glob("*")) | set(expected)):
        found = path.read_text() if path.exists() else ""
        if found != expected.get(path, ""):
            wrong += 1
            lines = difflib.unified_diff(found.splitlines(), expected.get(path, "").splitlines(), "committed", "rendered", lineterm="", n=1)
            print(f"{path.relative_to(ROOT)} is not what the chart gives; run ops/test-infra.d/k8s --render")
            print("\n".join(list(lines)[:40]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
