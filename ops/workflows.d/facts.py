"""What must hold in .github beyond what actionlint and zizmor see.

    facts.py [FOLDER]      every broken fact on a line; exit 1 if there is one

Owns: pins, permissions, credentials, the order of a delivery, what one job hands to another, and that
    what workflows run, and the variables that they read, exist.
Never: reaches the network. Whether a digest is its version's GitHub is asked by the job `workflows` of ci.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PIN = re.compile(r"^\s*(?:- )?uses: (?P<action>[^@\s]+)@(?P<ref>\S+)(?P<comment>\s+#.*)?$")
# Repository and environment variables that README, "Continuous integration", asks for.
VARIABLES = {
    "AWS_REGION", "DEPLOY_ROLE", "PLAN_ROLE", "PRODUCTION_IMAGES", "PRODUCTION_IMAGES_ROLE", "PRODUCTION_RUNNER",
    "PRODUCTION_TFVARS", "STAGING_IMAGES", "STAGING_IMAGES_ROLE", "STAGING_RUNNER", "STATE_BUCKET", "TERRAFORM_OUTPUTS",
}  # fmt: skip
# What the pipeline is for. A step that goes missing is a broken fact, not a quieter pipeline.
REQUIRED = {
    "ci.yml": [".ci/run", "ops/coverage", "cobertura.xml", "ops/test-infra", "terraform -chdir=\"$ROOT\" validate",
               "dependency-review-action", "cargo deny", "codeql-action/init", "gitleaks\" git", "trivy-action", "ops/test-image",
               "zizmor .github"],
    "deliver.yml": ["ops/release --passed", "provenance: mode=max", "sbom: true", "attest-build-provenance", "trivy-action",
                    "push-by-digest=true", "--preserve-digests"],
    "stage.yml": ["--image \"$IMAGES@$(cat engine)\""],
    "nightly.yml": ["ops/drill all", "ops/soak --minutes 30", "-detailed-exitcode", "advisories", "category: image-nightly"],
    "release.yml": ["ops/release --check", "ops/release --passed", "ops/release --notes", "attest-build-provenance",
                    "gh release create"],
}  # fmt: skip
# Who waits for whom before it touches an environment.
STAGES = [("staging", "images"), ("promote", "staging"), ("canary", "promote"), ("production", "canary")]


def workflows(github: pathlib.Path) -> dict[str, tuple[str, dict]]:
    return {p.name: (p.read_text(), yaml.safe_load(p.read_text())) for p in sorted((github / "workflows").glob("*.yml"))}


def pins(files: dict) -> list[str]:
    found, digests = [], {}
    for name, (text, _) in files.items():
        for number, line in enumerate(text.splitlines(), 1):
            if not re.match(r"^\s*(- )?uses:", line):
                continue
            where = f"{name}:{number}"
            if re.match(r"^\s*(- )?uses: \./", line):
                continue
            match = PIN.match(line)
            if not match or not re.fullmatch(r"[0-9a-f]{40}", match["ref"]):
                found.append(f"{where}: not pinned by a commit of 40 digits: {line.strip()}")
                continue
            version = re.fullmatch(r"\s+# (v\d+\.\d+\.\d+)", match["comment"] or "")
            if not version:
                found.append(f"{where}: no comment with the version, such as `# v1.2.3`: {line.strip()}")
                continue
            repository = "/".join(match["action"].split("/")[:2])
            first = digests.setdefault((repository, version[1]), match["ref"])
            if first != match["ref"]:
                found.append(f"{where}: {repository} {version[1]} is {first} elsewhere")
    return found


def jobs(files: dict) -> list[str]:
    found = []
    for name, (_, document) in files.items():
        if document.get("permissions") != {}:
            found.append(f"{name}: does not begin without permissions (`permissions: {{}}`)")
        for job, content in document["jobs"].items():
            if "permissions" not in content:
                found.append(f"{name}: job {job} names no permissions")
            if "uses" not in content and "timeout-minutes" not in content:
                found.append(f"{name}: job {job} has no timeout-minutes")
            for step in content.get("steps", []):
                if "actions/checkout@" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") is not False:
                    found.append(f"{name}: job {job} leaves its token in .git (persist-credentials: false)")
    return found


def credentials(files: dict) -> list[str]:
    found = []
    for name, (text, _) in files.items():
        for secret in re.findall(r"secrets\.(\w+)|(secrets: inherit)|(aws-(?:access|secret)\S*key\S*)", text):
            found.append(f"{name}: a stored key: {''.join(secret)}. Roles come from OIDC, the token is github.token")
        for variable in sorted(set(re.findall(r"\bvars\.(\w+)", text)) - VARIABLES):
            found.append(f"{name}: vars.{variable} is in no list: VARIABLES here, and the README")
    return found


def scripts(files: dict, shellcheck: str | None) -> list[str]:
    found = []
    for name, (_, document) in files.items():
        for job, content in document["jobs"].items():
            for number, step in enumerate(content.get("steps", [])):
                run = step.get("run")
                if run is None:
                    continue
                where = f"{name}: job {job}, step {number}"
                if "${{" in run:
                    found.append(f"{where}: an expression inside of run; hand it over through env")
                found += [f"{where}: {problem}" for problem in commands(run)]
                if shellcheck:
                    found += [f"{where}: {line}" for line in shellchecked(run, shellcheck)]
    return found


def commands(run: str) -> list[str]:
    """Scripts of this repository exist, and know the flags that they are given."""
    found = []
    joined = run.replace("\\\n", " ")
    for path, rest in re.findall(r"(?<![\w./-])(ops/[\w./-]+|\.ci/run)([^\n|;&]*)", joined):
        script = ROOT / path
        if not (script.is_file() and script.stat().st_mode & 0o111):
            found.append(f"{path} is no program of this repository")
            continue
        # Its own folder, and those that it names.
        beside = {script.name, *re.findall(r"([\w-]+)\.d\b", script.read_text())}
        sources = [script, *(path for name in beside for path in script.with_name(name + ".d").glob("*.py"))]
        # What only a comment speaks of is not known.
        known = "\n".join(line for source in sources for line in source.read_text().splitlines() if not re.match(r"\s*#", line))
        flags = re.findall(r"(--[a-z][a-z-]*)", rest)
        found += [f"{path} does not know {flag}" for flag in flags if not re.search(re.escape(flag) + r"(?![a-z-])", known)]
    return found


def shellchecked(run: str, shellcheck: str) -> list[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        # As GitHub runs it.
        file.write("#!/bin/bash\nset -eo pipefail\n" + run)
        file.flush()
        done = subprocess.run([shellcheck, "--format", "gcc", file.name], capture_output=True, text=True)
    return [line.split(":", 1)[1] for line in done.stdout.splitlines()]


def parts(files: dict) -> list[str]:
    found = [f"there is no {name}" for name in REQUIRED if name not in files]
    for name, wanted in REQUIRED.items():
        found += [f"{name}: without {text}" for text in wanted if name in files and text not in files[name][0]]
    if "deliver.yml" in files:
        deliver = files["deliver.yml"][1]["jobs"]
        for job, before in STAGES:
            needs = deliver.get(job, {}).get("needs", [])
            if before not in ([needs] if isinstance(needs, str) else needs):
                found.append(f"deliver.yml: {job} does not wait for {before}")
        for job, environment in (("staging", "staging"), ("canary", "production"), ("production", "production")):
            if deliver.get(job, {}).get("with", {}).get("environment") != environment:
                found.append(f"deliver.yml: {job} is not in the environment {environment}")
        if files["deliver.yml"][1]["concurrency"]["cancel-in-progress"] is not False:
            found.append("deliver.yml: a delivery could be cut off in the middle")
    if "stage.yml" in files and files["stage.yml"][1]["jobs"]["deploy"].get("environment") != "${{ inputs.environment }}":
        found.append("stage.yml: the job is in no environment, so nobody approves it")
    return found


def handed_over(files: dict) -> list[str]:
    """What a job downloads another has uploaded; an image gets its tags after its scan."""
    found, uploaded, downloaded = [], set(), []
    for name, (_, document) in files.items():
        for job, content in document["jobs"].items():
            cells = content.get("strategy", {}).get("matrix", {}).get("include", [{}])
            for step in content.get("steps", []):
                names = {re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda m: str(cell.get(m[1])), step.get("with", {}).get("name", "")) for cell in cells}
                if "upload-artifact@" in step.get("uses", ""):
                    uploaded |= names
                elif "download-artifact@" in step.get("uses", "") and "pattern" not in step["with"]:
                    downloaded += [(f"{name}: job {job}", wanted) for wanted in names]
    found += [f"{where} wants the artifact {wanted}, which no job uploads" for where, wanted in downloaded if wanted not in uploaded]
    if "deliver.yml" in files:
        steps = files["deliver.yml"][1]["jobs"]["images"]["steps"]
        order = [next((n for n, step in enumerate(steps) if text in str(step)), None) for text in ("trivy-action", "attest-", "--tag", "upload-artifact")]
        if None in order or order != sorted(order):
            found.append("deliver.yml: not in this order: scan, attest, tag, hand the digest over")
    return found


def variables(files: dict) -> list[str]:
    """The README says of each variable what it is, in outputs that Terraform has."""
    chapter = (ROOT / "README.md").read_text().split("\n### Continuous integration\n")[1].split("\n## ")[0]
    used = set(re.findall(r"\bvars\.(\w+)", "".join(text for text, _ in files.values())))
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", chapter, re.M))
    found = [f"README: no row for the variable {name}" for name in sorted(used - set(rows))]
    found += [f"README: no workflow reads the variable {name}" for name in sorted(set(rows) & VARIABLES - used)]
    outputs = (ROOT / "terraform/environments/production/outputs.tf").read_text()
    for output in re.findall(r"output -json (\w+)", "".join(rows.values())):
        if f'output "{output}"' not in outputs:
            found.append(f"README: terraform/environments/production has no output {output}")
    roles = (ROOT / "terraform/modules/ci-roles/main.tf").read_text()
    for role in re.findall(r"jq -r \.(\w+)", "".join(rows.values())):
        if not re.search(rf"\b{role} += \[", roles):
            found.append(f"README: terraform/modules/ci-roles makes no role {role}")
    return found


def versions(files: dict) -> list[str]:
    found = []
    text = "\n".join(text for text, _ in files.values())
    pinned = (pathlib.Path(__file__).parent / "requirements.txt").read_text()
    for tool, seen in {
        "terraform": set(re.findall(r"terraform_version: (\S+)", text)),
        "cargo-deny": set(re.findall(r"--version (\S+) cargo-deny", text)),
        "zizmor": set(re.findall(r"zizmor==(\S+)", text + pinned)),
    }.items():
        if len(seen) != 1:
            found.append(f"{tool} is wanted in {len(seen)} versions: {sorted(seen)}")
    return found


def dependabot(github: pathlib.Path) -> list[str]:
    manifests = {
        "cargo": ["Cargo.toml"], "github-actions": [".github/workflows/*.yml"], "docker": ["Dockerfile"],
        "docker-compose": ["compose.yaml"], "terraform": ["*.tf"], "pip": ["*.txt"], "npm": ["package.json"],
    }  # fmt: skip
    found = []
    updates = yaml.safe_load((github / "dependabot.yml").read_text())["updates"]
    for missing in sorted(set(manifests) - {u["package-ecosystem"] for u in updates}):
        found.append(f"dependabot.yml: nothing looks after {missing}")
    for update in updates:
        for pattern in update.get("directories", [update.get("directory")]):
            folders = [p for p in ROOT.glob(pattern[1:]) if p.is_dir()] if pattern != "/" else [ROOT]
            if not any(list(folder.glob(name)) for folder in folders for name in manifests[update["package-ecosystem"]]):
                found.append(f"dependabot.yml: {update['package-ecosystem']} finds nothing in {pattern}")
    return found


def broken(github: pathlib.Path, shellcheck: str | None = None) -> list[str]:
    files = workflows(github)
    return [
        *pins(files), *jobs(files), *credentials(files), *scripts(files, shellcheck), *parts(files), *handed_over(files),
        *variables(files), *versions(files), *dependabot(github),
    ]  # fmt: skip


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1]) if sys.argv[1:] else ROOT / ".github"
    problems = broken(folder, str(pathlib.Path(sys.executable).with_name("shellcheck")))
    print(*problems, sep="\n")
    sys.exit(1 if problems else 0)
