"""What README's chapter Operate tells people to run, look at and read, exists.

    operate.py [README]      every broken promise on a line; exit 1 if there is one

Owns: links and anchors of the whole README; in the chapter paths, programs and their flags, metrics, roles
    and variables, labels of the chart, drills and tests.
Never: judges whether a command does what the chapter says; sections of ops/test-infra do.
"""

import functools
import pathlib
import re
import subprocess
import sys

from facts import ROOT, commands

TOPS = "ops|k8s|terraform|sql|engine|loadtest|\\.github"


@functools.cache
def tracked() -> set[str]:
    files = subprocess.run(["git", "-C", ROOT, "ls-files"], check=True, capture_output=True, text=True).stdout.split("\n")
    return {path for path in files if path}


@functools.cache
def words() -> set[str]:
    """Of all that is no document, without these checks; a flag stands there as written or as an identifier."""
    kinds = (".rs", ".sql", ".yml", ".yaml", ".j2", ".tf", ".sh", ".py", ".tpl")
    files = [(ROOT / path).read_text() for path in tracked() if path.endswith(kinds) and "workflows.d" not in path]
    return {word.strip("-") for text in files for word in re.findall(r"[\w-]+", text)}


def chapter(text: str) -> str:
    return text.split("\n## Operate\n")[1].split("\n## ")[0]


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        if path and not (ROOT / path).exists():
            found.append(f"a link leads to {path}, which is not there")
        elif anchor and anchor not in anchors((ROOT / path).read_text() if path else text):
            found.append(f"a link leads to {target}, where no heading is called so")
    return found


def paths(text: str) -> list[str]:
    named = set(re.findall(rf"(?<![\w./$-])((?:{TOPS})/[\w./-]+)", text))
    # `...` stands for the rest of a name, engine/blob for a repository's address.
    whole = {path.rstrip(".") for path in named if not path.endswith("...") and not path.startswith("engine/blob/")}
    return [f"there is no {path}" for path in sorted(whole) if not (ROOT / path).exists()]


def programs(text: str) -> list[str]:
    """Each command in a code line or span: its program and flags, ours and the engine's."""
    found = []
    joined = text.replace("\\\n", " ")
    for run in re.findall(r"^    (\S.*)$|`([^`\n]+)`", joined, re.M):
        run = "".join(run)
        run = re.sub(r"\s#.*", "", run)
        script = re.match(rf"(?:{TOPS})/\S+", run)
        if script and (ROOT / script[0]).is_file() and (ROOT / script[0]).stat().st_mode & 0o111:
            found += commands(run)
        elif re.match(r"(engine |--)", run):
            flags = re.findall(r"(?<!\S)--([a-z][a-z-]*)", run)
            found += [f"nothing knows --{flag}" for flag in flags if not {flag, flag.replace("-", "_")} & words()]
            verb = re.match(r"engine ([a-z]+)", run)
            if verb and f"    {verb[1].capitalize()}(" not in (ROOT / "engine/src/config/args.rs").read_text():
                found.append(f"the engine has no command {verb[1]}")
    return found


def names(text: str) -> list[str]:
    found = [f"nothing is called {name}" for name in sorted(set(re.findall(r"\bengine_\w+", text))) if name not in words()]
    rendered = (ROOT / "k8s/rendered/production-us-east-1.yaml").read_text()
    for key, value in re.findall(r"-l ([\w./-]+)=([\w-]+)", text):
        if not re.search(rf"{re.escape(key)}: \"?{value}\b", rendered):
            found.append(f"the chart has no label {key}={value}")
    drills = "".join((ROOT / path).read_text() for path in tracked() if path.startswith("ops/drill.d/"))
    found += [f"there is no drill {name}" for name in re.findall(r"ops/drill ([a-z][a-z-]+)", text) if f'@drill("{name}"' not in drills]
    for folder, test in re.findall(r"`(\w+)::(\w+)`", text):
        if not any(re.fullmatch(rf"engine/tests/(.*/)?{folder}/{test}\.rs", path) for path in tracked()):
            found.append(f"there is no test {folder}::{test}")
    return found


def broken(readme: str) -> list[str]:
    operate = chapter(readme)
    return [*links(readme), *paths(operate), *programs(operate), *names(operate)]


if __name__ == "__main__":
    problems = broken(pathlib.Path(sys.argv[1] if sys.argv[1:] else ROOT / "README.md").read_text())
    print(*(f"README: {problem}" for problem in problems), sep="\n")
    sys.exit(1 if problems else 0)
