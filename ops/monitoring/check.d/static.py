"""What can be said of ops/monitoring without starting anything: exit 1 if a check finds something."""

import json
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import files  # noqa: E402
import rules  # noqa: E402
import yaml  # noqa: E402
from rules import HERE, REPOSITORY  # noqa: E402

# Of the engine's log in JSON, beside what an event adds; live.py compares with real lines.
LOG_FIELDS = {"timestamp", "level", "message", "target", "check", "detail", "code"}


def compose_schema():
    """The specification's, from the last docker-compose in Python; it is older than `name`."""
    import importlib.metadata

    distribution = importlib.metadata.distribution("docker-compose")
    path = next(file for file in distribution.files if file.name == "compose_spec.json")
    schema = json.loads(distribution.locate_file(path).read_text())
    schema["properties"]["name"] = {"type": "string"}
    return schema


def blackbox():
    done = subprocess.run(["prometheus-blackbox-exporter", "--config.check", f"--config.file={HERE / 'blackbox.yml'}"], capture_output=True, text=True)
    if done.returncode:
        yield f"blackbox.yml: {done.stderr}"


def all_problems():
    yield from rules.wrong_in_rules()
    yield from rules.wrong_in_runbooks()
    yield from rules.wrong_in_tests()
    yield from rules.wrong_in_configuration()
    yield from blackbox()
    yield from files.wrong_in_compose((HERE.parent / "compose.yaml").read_text(), compose_schema())
    for path in sorted((HERE / "alloy").glob("*.alloy")):
        yield from files.wrong_in_alloy(path.name, path.read_text(), LOG_FIELDS)
    cluster = REPOSITORY / "terraform/helm-values/alloy.yaml"
    yield from files.wrong_in_alloy(cluster.name, yaml.safe_load(cluster.read_text())["alloy"]["configMap"]["content"], LOG_FIELDS)
    yield from files.wrong_in_loki((HERE / "loki.yaml").read_text())


if __name__ == "__main__":
    found = list(all_problems())
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(rules.alerts())} alerts, {len(rules.recorded())} recordings, {len(found)} problems", file=sys.stderr)
    sys.exit(1 if found else 0)
