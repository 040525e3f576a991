"""The commands of the runbooks: that what they name is there, tried beside a running engine.

Of each command: the program is known; the engine's and the repository's own take these flags;
a path of HTTP is served; SQL names columns and functions that PostgreSQL has (it is prepared,
not executed). What acts on a machine (systemctl, kubectl) is not run.
"""

import functools
import re
import shlex
import subprocess
import urllib.error
import urllib.request

from rules import HERE, REPOSITORY

# What a machine with the engine, or whoever administers it, has.
PROGRAMS = {
    "amtool", "awk", "cat", "certbot", "chronyc", "curl", "cut", "df", "du", "free", "grep", "head", "journalctl", "kubectl", "ls", "lsof", "openssl",
    "patronictl", "pidof", "pg_basebackup", "pg_ctl", "pg_isready", "pg_rewind", "pgbackrest", "prlimit", "promtool", "ps", "psql", "python3", "redis-cli", "sort",
    "ss", "sudo", "sysctl", "systemctl", "tail", "timedatectl", "top", "uniq",
}  # fmt: skip
# Words of the runbooks that stand for something else, as SQL would take them.
STAND_INS = {"PID": "1", "NAME": "'x'", "DATA": "'x'"}
# Where SQL is, and not a word about it.
QUERY = re.compile(r"(SELECT|SHOW) .*")
OWN = {"engine", "ops/backup", "ops/restore", "ops/deploy.sh", "ops/monitoring-setup.sh", "ops/monitoring/job-metrics", "job-metrics", "ops/test-infra", "loadtest"}


def written(root=HERE):
    """(runbook, what it says) of each line to paste and of each inline code."""
    for path in sorted((root / "runbooks").glob("*.md")):
        text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
        for line in re.findall(r"^    (\S.*)$", text, re.M):
            yield path.name, line
        for code in re.findall(r"`([^`\n]+)`", re.sub(r"^    .*$", "", text, flags=re.M)):
            yield path.name, code


def steps(line):
    """The simple commands of a shell line, also behind its comment (the same on Kubernetes)."""
    for inner in re.findall(r"\$\((.*?)\)", line):
        yield from steps(inner)
    command, _, comment = re.sub(r"\$\(.*?\)", "1", line).partition(" # ")
    for part in [command, comment] if comment.lstrip().startswith(("kubectl", "journalctl")) else [command]:
        lexer = shlex.shlex(part, posix=True, punctuation_chars=";|&<>")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&"):
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words.pop(0)
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def programs(words):
    """The command itself, and the one that it runs."""
    yield words
    if words[0] == "sudo":
        yield from programs(words[3:])
    if "--" in words:
        yield words[words.index("--") + 1 :]


@functools.cache
def help_of(command):
    """What a command says of itself; nothing if there is no such command."""
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=REPOSITORY)
    return "" if done.returncode else done.stdout + done.stderr


def wrong_in_own(words, bin_dir):
    """The engine's and the repository's programs: a subcommand and flags that their --help names."""
    program = words[0]
    if program in ("engine", "loadtest"):
        command = [str(bin_dir / program), *words[1:2]]
    else:
        command = [str(REPOSITORY / ("ops/monitoring/job-metrics" if program == "job-metrics" else program))]
        if program.endswith("job-metrics"):
            command.append(words[1])
    told = help_of(tuple(command))
    if not told:
        yield f"{' '.join(words)}: there is no such command"
        return
    for flag in (word.partition("=")[0] for word in (words[: words.index("--")] if "--" in words else words)):
        if flag.startswith("--") and not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", told):
            yield f"{' '.join(words)}: there is no {flag}"


def wrong_in_url(url, engine, admin):
    """Of the engine's two listeners: anything but 404."""
    path = re.sub(r"https?://[^/]+", "", url)
    base = admin if ":9464" in url else engine if ":5000" in url else None
    if base is None:
        return
    try:
        urllib.request.urlopen(base + path, timeout=10).read()
    except urllib.error.HTTPError as error:
        if error.code in (400, 404):
            yield f"{url} answers {error.code}"


def prepared(sql):
    """Analysed by PostgreSQL, and not executed."""
    for name, value in STAND_INS.items():
        sql = re.sub(rf"\b{name}\b", value, sql)
    return sql if sql.startswith("SHOW") else f"PREPARE one AS {sql}"


def wrong_in_sql(statements, database):
    script = "".join(f"{prepared(sql)};\n{'' if sql.startswith('SHOW') else 'DEALLOCATE one;'}\n" for sql in statements)
    done = subprocess.run(["psql", "--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", "-d", database], input=script, capture_output=True, text=True)
    if done.returncode:
        yield f"{'; '.join(statements)}: {done.stderr.strip()}"


def wrong_in_line(line, is_code, place):
    """place: bin_dir, engine, admin, database."""
    if is_code and QUERY.fullmatch(line):
        yield from wrong_in_sql([line], place["database"])
        return
    if is_code and line.startswith("--"):
        flag = line.split()[0]
        known = [(str(place["bin_dir"] / "engine"), verb) for verb in ("serve", "verify")] + [(str(REPOSITORY / "ops/monitoring/job-metrics"), "backup"), (str(REPOSITORY / "ops/monitoring-setup.sh"),)]
        if not any(re.search(rf"{flag}(?![\w-])", help_of(each)) for each in known):
            yield f"there is no {flag}"
        return
    first = re.sub(r"^([A-Z_]+=\S+ )+", "", line).split(" ")[0]
    # A name that stands in a sentence is no command, unless it is a path of this repository.
    if is_code and not first.startswith("ops/") and (first not in PROGRAMS | OWN or " " not in line):
        return
    if first == "ops/...":
        return
    for step in steps(line):
        for words in programs(step):
            if words[0].startswith("ops/") and not (REPOSITORY / words[0]).exists():
                yield f"{words[0]} is not there"
            elif words[0] in OWN:
                yield from wrong_in_own(words, place["bin_dir"])
            elif words[0] not in PROGRAMS and not words[0].startswith("ops/"):
                yield f"{line}: {words[0]} is no program known here"
            if words[0] == "curl":
                for word in words[1:]:
                    if word.startswith("http"):
                        yield from wrong_in_url(word, place["engine"], place["admin"])
            if words[0] == "psql":
                yield from wrong_in_sql([words[at + 1] for at, word in enumerate(words) if word == "-c"], place["database"])


def wrong_in_commands(place, root=HERE):
    for name, line in written(root):
        is_code = f"    {line}\n" not in (root / "runbooks" / name).read_text()
        for problem in wrong_in_line(line, is_code, place):
            yield f"runbooks/{name}: {problem}"


def wrong_in_checks(readyz, root=HERE):
    """The checks of /readyz and what EngineNotReady tells to do of each."""
    told = set(re.findall(r"^\| `(\w+)` \|", (root / "runbooks/EngineNotReady.md").read_text(), re.M))
    for name in told - set(readyz):
        yield f"runbooks/EngineNotReady.md: /readyz has no check {name}"
    # Never make it unready, or say that it was asked to stop.
    for name in set(readyz) - told - {"redis", "draining"}:
        yield f"runbooks/EngineNotReady.md does not say what to do if {name} fails"
