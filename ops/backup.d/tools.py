"""What backup and restore share: commands, users, connections, times."""

import datetime
import os
import pwd
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STANZA = "ledger"
EXIT_FAILED = 1
EXIT_USAGE = 64
DEFAULT_CONFIG = Path("/etc/pgbackrest.conf")
# Seven days of daily backups, and every moment between them.
KEEP_DAYS = 7


class BackupError(Exception):
    """It cannot go on; says what failed, what was not done, and the next step."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Owner:
    """Whom the server's files belong to: pgBackRest and PostgreSQL run as that user."""

    def __init__(self, uid):
        self.entry = pwd.getpwuid(uid)

    @property
    def name(self):
        return self.entry.pw_name

    def options(self):
        if os.geteuid() == self.entry.pw_uid:
            return {}
        if os.geteuid() != 0:
            raise BackupError(f"run this as {self.name}, whose files these are, or as root")
        return {"user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": []}

    def own(self, path):
        if os.geteuid() == 0:
            os.chown(path, self.entry.pw_uid, self.entry.pw_gid)
        return path


def run(command, owner=None, env=None, stream=False, stdin="", check=True):
    """Runs a command to its end; its output, or BackupError with its last lines."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        stdout=sys.stderr if stream else subprocess.PIPE,
        stderr=None if stream else subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env=env,
        cwd="/",
        **(owner.options() if owner else {}),
    )
    output = done.stdout or ""
    if check and done.returncode != 0:
        tail = "\n".join(output.strip().splitlines()[-8:])
        name = Path(str(command[0])).name
        raise BackupError(f"{name} exited {done.returncode}" + (f":\n{tail}" if tail else ""))
    return output


def need(program, package):
    # Only root has the folder of daemons on the PATH.
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not found:
        raise BackupError(f"{program} is missing: apt-get install {package}")
    return Path(found)


def engine_program(given):
    """The engine that verifies what was restored."""
    for path in (given, REPOSITORY / "target" / "release" / "engine", shutil.which("engine")):
        if path and Path(path).is_file():
            return Path(path).resolve()
    raise BackupError("no `engine` to verify with: give --engine FILE, or cargo build --release")


def connection(url):
    """PG* variables for a URL: a password must not stand on a command line."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql") or not parts.path.strip("/"):
        raise BackupError("the database URL must look like postgres://USER:PASSWORD@HOST/DATABASE")
    unquote = urllib.parse.unquote
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    env["PGDATABASE"] = unquote(parts.path.strip("/"))
    env["PGHOST"] = unquote(parts.hostname or "127.0.0.1")
    for name, value in (("PGPORT", parts.port), ("PGUSER", parts.username), ("PGPASSWORD", parts.password)):
        if value:
            env[name] = unquote(str(value))
    for name, value in urllib.parse.parse_qsl(parts.query):
        if name in ("sslmode", "sslrootcert"):
            env["PG" + name.upper()] = value
    return env


def query(env, sql, owner=None):
    psql = need("psql", "postgresql-client")
    command = [psql, "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    return run(command, env=env, owner=owner, stdin=sql).strip()


def parse_time(text):
    """A moment with its zone, as PostgreSQL reads it; RFC 3339 as we write it."""
    if not re.search(r"(Z|[+-]\d\d:?\d\d)$", text):
        raise BackupError(f"--to {text}: give the zone too, for example 2026-01-31T12:00:00Z")
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise BackupError(f"--to {text}: expected `latest` or a time such as 2026-01-31T12:00:00Z") from None
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")
