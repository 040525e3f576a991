"""What a drill finds on this machine: users, programs, ports, a folder on disk."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from faults import DrillError

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
POSTGRES_MAJOR_MIN = 15
# Debian's package makes the first; the second exists everywhere.
SERVER_USERS = ("postgres", "nobody")
COMMAND_SECONDS_MAX = 120


class User:
    """Who the servers run as: ourselves, or another user if we are root."""

    def __init__(self, entry=None):
        self.entry = entry

    @classmethod
    def choose(cls):
        if os.geteuid() != 0:
            return cls()
        for name in SERVER_USERS:
            try:
                return cls(pwd.getpwnam(name))
            except KeyError:
                continue
        raise DrillError("PostgreSQL refuses root, and there is neither a user postgres nor nobody")

    def options(self):
        """For subprocess: become this user, and drop root's other groups."""
        if self.entry is None:
            return {}
        return {"user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": []}

    def uid(self):
        return os.geteuid() if self.entry is None else self.entry.pw_uid

    def gid(self):
        return os.getegid() if self.entry is None else self.entry.pw_gid

    def own(self, path):
        if self.entry is not None:
            os.chown(path, self.entry.pw_uid, self.entry.pw_gid)
        return path

    def folder(self, path):
        """A new folder that belongs to this user alone."""
        path.mkdir(mode=0o700)
        return self.own(path)

    def can_enter(self, path):
        """Asked of the kernel: mode bits know neither groups nor access lists."""
        try:
            done = subprocess.run(["/bin/true"], cwd=path, check=False, **self.options())
        except OSError:
            return False
        return done.returncode == 0


def attempt(command, user=None, env=None, cwd=None, seconds=COMMAND_SECONDS_MAX, stdin=""):
    """Runs a command to its end; its exit code and output."""
    name = Path(str(command[0])).name
    try:
        done = subprocess.run(
            [str(part) for part in command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            env=env,
            cwd=cwd or "/",
            timeout=seconds,
            **(user.options() if user else {}),
        )
    except subprocess.TimeoutExpired:
        raise DrillError(f"{name} did not end in {seconds} s") from None
    return done.returncode, done.stdout


def run(command, check=True, **options):
    """Runs a command to its end; its output, or DrillError with its last lines."""
    code, output = attempt(command, **options)
    if check and code != 0:
        tail = "\n".join(output.strip().splitlines()[-8:])
        raise DrillError(f"{Path(str(command[0])).name} exited {code}:\n{tail}")
    return output


def version_of(program):
    """The major version of a `postgres`; 0 if it cannot be told."""
    try:
        text = run([program, "--version"])
    except (DrillError, OSError):
        return 0
    found = re.match(r"postgres \(PostgreSQL\) (\d+)", text)
    return int(found.group(1)) if found else 0


def is_root():
    return os.geteuid() == 0


def postgres_folder():
    """Where the newest PostgreSQL's programs are."""
    folders = sorted(DEBIAN_POSTGRES.glob("*/bin"))
    on_path = shutil.which("postgres")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    known = [(version_of(folder / "postgres"), folder) for folder in folders]
    known = [pair for pair in known if pair[0] >= POSTGRES_MAJOR_MIN]
    if not known:
        raise DrillError("no PostgreSQL 15 or later here: apt-get install postgresql")
    return max(known, key=lambda pair: pair[0])[1]


def program(*names, package):
    """The first of these programs that is installed."""
    # Only root has the folder of daemons on the PATH.
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return Path(found)
    raise DrillError(f"{names[0]} is missing: apt-get install {package}")


def free_ports(count):
    """Ports that are free now; all are held until all are known."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def work_folder(base, user):
    """A new folder on disk that the servers' user can enter.

    A disk, not /tmp, which may be memory: there a lost write could not be told
    from a kept one. The fallback is for a repository inside a closed home.
    """
    for parent in (base, Path("/var/tmp")):
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="drill.", dir=parent))
        work.chmod(0o755)
        if user.can_enter(work):
            return work
        work.rmdir()
    raise DrillError(f"the servers' user can enter neither {base} nor /var/tmp")
