"""The rules as files: what is in them, promtool's verdict, their unit tests, their runbooks."""

import functools
import json
import re
import subprocess
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parents[1]
REPOSITORY = HERE.parents[1]
SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation")
# `none`: of the alert that only shows that alerting works.
SEVERITIES = ("page", "ticket", "none")


def rule_files(root=HERE):
    return sorted([*(root / "rules").glob("*.yaml"), *(root / "rules/host").glob("*.yaml")])


# The parser in C, where it is there.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def parsed(text):
    return yaml.load(text, LOADER)["groups"]


def rules(root=HERE):
    """Every rule with the name of its file; none is to be changed."""
    for path in rule_files(root):
        for group in parsed(path.read_text()):
            for rule in group["rules"]:
                yield path.relative_to(root).as_posix(), rule


def alerts(root=HERE):
    return {rule["alert"]: rule for _, rule in rules(root) if "alert" in rule}


def recorded(root=HERE):
    return {rule["record"] for _, rule in rules(root) if "record" in rule}


def promtool(*arguments, cwd=None):
    """Its output if it fails; nothing if it is content."""
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stdout + done.stderr


def wrong_in_rules(root=HERE):
    for path in rule_files(root):
        problem = promtool("check", "rules", path)
        if problem:
            yield f"{path.name}: {problem}"
    names = [rule.get("alert") or rule.get("record") for _, rule in rules(root)]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"{name} is there twice"
    for name, rule in alerts(root).items():
        if rule.get("labels", {}).get("severity") not in SEVERITIES:
            yield f"{name}: its severity is none of {', '.join(SEVERITIES)}"
        for text in ("summary", "description", "runbook_url"):
            if not rule.get("annotations", {}).get(text):
                yield f"{name} has no {text}"


def wrong_in_runbooks(root=HERE):
    known = alerts(root)
    for name, rule in known.items():
        url = rule.get("annotations", {}).get("runbook_url", "")
        wanted = f"ops/monitoring/runbooks/{name}.md"
        if url != wanted:
            yield f"{name}: its runbook_url is {url!r}, not {wanted}"
        path = root / "runbooks" / f"{name}.md"
        if not path.is_file():
            yield f"{name} has no runbook {path.name}"
            continue
        text = path.read_text()
        if not text.startswith(f"# {name}\n"):
            yield f"{path.name} does not begin with '# {name}'"
        if tuple(re.findall(r"^## (.*)$", text, re.M)) != SECTIONS:
            yield f"{path.name}: its sections are not {', '.join(SECTIONS)}"
        for section in re.split(r"^## .*$", text, flags=re.M)[1:]:
            if not section.strip():
                yield f"{path.name} has an empty section"
        diagnosis = text.partition("## Diagnosis")[2].partition("## Mitigation")[0]
        if not re.search(r"^    \S|^```", diagnosis, re.M):
            yield f"{path.name}: its Diagnosis has no command or query to paste"
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if "://" not in link and not (path.parent / link).exists():
                yield f"{path.name} links to {link}, which is not there"
    for path in (root / "runbooks").glob("*.md"):
        if path.stem not in known and path.name != "README.md":
            yield f"{path.name} is the runbook of no alert"


def wrong_in_tests(root=HERE, only=None):
    """Every alert has a case in which it fires and one in which it does not, and promtool agrees."""
    # Strings only: to YAML, promtool's 0x10 is a number of its own.
    table = yaml.load((root / "tests/alerts.yaml").read_text(), getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    known = alerts(root)
    for name in sorted(set(table) - set(known)):
        yield f"tests/alerts.yaml tests {name}, which is no alert"
    for name, rule in known.items():
        if only not in (None, name):
            continue
        cases = table.get(name, [])
        if not any(case["expect"] for case in cases):
            yield f"{name} has no test in which it fires"
        if not all(case["expect"] for case in cases) or rule["expr"] == "vector(1)":
            continue
        yield f"{name} has no test in which it does not fire"
    for name in known:
        if only in (None, name):
            yield from wrong_in_cases(root, [(name, case) for case in table.get(name, [])], known)


def wrong_in_cases(root, cases, known):
    """Of one alert: promtool evaluates all rules of its files in each test, so they hold no others."""
    if not cases:
        return
    name = cases[0][0]
    # A day has 1,440 minutes, and promtool takes some milliseconds for each.
    every = "10m" if any(int(case["at"].removesuffix("m").removesuffix("s")) > 300 for _, case in cases) else "1m"
    document = {"rule_files": ["rules.json"], "evaluation_interval": every, "tests": []}
    for _, case in cases:
        labels = [{**expected, "severity": known[name]["labels"]["severity"]} for expected in case["expect"]]
        document["tests"].append({
            "name": f"{name}: {case}",
            "interval": "1m",
            "input_series": [{"series": series, "values": str(values)} for series, values in case["given"].items()],
            "alert_rule_test": [{"eval_time": case["at"], "alertname": name, "exp_alerts": [{"exp_labels": each} for each in labels]}],
        })  # fmt: skip
    wanted = [rule for _, rule in rules(root) if rule.get("alert") == name or rule.get("record", "-") in known[name]["expr"]]
    # Without the texts, whose every word promtool would want to be told.
    wanted = [{key: value for key, value in rule.items() if key != "annotations"} for rule in wanted]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rules.json").write_text(json.dumps({"groups": [{"name": "tested", "rules": wanted}]}))
        Path(folder, "tests.json").write_text(json.dumps(document))
        problem = promtool("test", "rules", "tests.json", cwd=folder)
    if problem:
        yield f"{name}: promtool test rules: {problem}"


def wrong_in_configuration(root=HERE):
    """promtool and amtool on the configurations with each set of targets; the routes."""
    sets = sorted(path for path in (root / "targets").iterdir() if path.is_dir())
    wanted = set(re.findall(r"targets/([a-z]+\.yaml)", (root / "prometheus.yml").read_text()))
    for targets in sets:
        there = {path.name for path in targets.iterdir()}
        for name in wanted ^ there:
            yield f"targets/{targets.name}: {name} is {'missing' if name in wanted else 'read by nobody'}"
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "rules").symlink_to(root / "rules")
            (place / "targets").symlink_to(targets)
            (place / "prometheus.yml").write_text((root / "prometheus.yml").read_text())
            problem = promtool("check", "config", place / "prometheus.yml")
            if problem:
                yield f"promtool check config, targets/{targets.name}: {problem}"
        for path in targets.iterdir():
            for entry in yaml.safe_load(path.read_text()) or []:
                if not entry.get("targets"):
                    yield f"{path}: an entry without targets"
    jobs = {job["job_name"] for job in yaml.safe_load((root / "prometheus.yml").read_text())["scrape_configs"]}
    for name, rule in alerts(root).items():
        for job in re.findall(r'\bjob="([^"]+)"', rule["expr"]):
            if job not in jobs:
                yield f"{name} asks for job={job!r}, which prometheus.yml does not scrape"
    done = subprocess.run(["amtool", "check-config", root / "alertmanager.yml"], capture_output=True, text=True)
    if done.returncode:
        yield f"amtool check-config: {done.stdout}{done.stderr}"
        return
    yield from wrong_in_routes(root)


# Whom each severity goes to; those in the second line are kube-prometheus-stack's.
RECEIVERS = {
    "page": "pager", "ticket": "team",
    "critical": "pager", "warning": "team", "info": "nobody", "none": "nobody",
}  # fmt: skip


def wrong_in_routes(root=HERE):
    cases = {("EngineDown", severity): receiver for severity, receiver in RECEIVERS.items()}
    cases |= {(name, rule["labels"]["severity"]): RECEIVERS.get(rule["labels"]["severity"]) for name, rule in alerts(root).items()}
    cases["Watchdog", "none"] = "heartbeat"
    for (name, severity), wanted in cases.items():
        command = ["amtool", "config", "routes", "test", f"--config.file={root / 'alertmanager.yml'}", f"alertname={name}", f"severity={severity}"]
        got = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        if got != wanted:
            yield f"{name} ({severity}) goes to {got!r}, not to {wanted!r}"
    # What inhibits or is inhibited exists: a misspelt name would silence nothing.
    config = yaml.safe_load((root / "alertmanager.yml").read_text())
    for rule in config["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            found = re.fullmatch(r'alertname\s*(=~?)\s*"?(.*?)"?', matcher)
            for one in alternatives(found[2]) if found else []:
                if not any(re.fullmatch(one, name) for name in alerts(root)):
                    yield f"alertmanager.yml inhibits by {one}, which is no alert"


def alternatives(pattern):
    """The parts of `a(b|c)` and of `a|b`."""
    found = re.fullmatch(r"(\w*)\(([^()]*)\)(\w*)", pattern)
    return [f"{found[1]}{part}{found[3]}" for part in found[2].split("|")] if found else pattern.split("|")
