"""Where a drill happens: its folder, its users, its programs."""

import os
import shutil
import tempfile
from pathlib import Path

import machine
from faults import DrillError
from processes import Processes, live_owner, sweep

REPOSITORY = Path(__file__).resolve().parents[2]
SOCKETS_NOTE = "sockets"
MOUNTS_NOTE = "mounts"


class Place:
    """The folder of one drill; use it as a context manager."""

    def __init__(self, programs_dir, base):
        self.programs_dir = programs_dir
        self.base = base
        self.user = machine.User.choose()
        self.postgres = machine.postgres_folder()
        self.psql = machine.program("psql", package="postgresql-client")
        self.redis = machine.program("redis-server", "valkey-server", package="redis-server")
        self.redis_cli = machine.program("redis-cli", "valkey-cli", package="redis-tools")
        self.work = None
        self.sockets = None
        self.processes = None

    @property
    def haproxy(self):
        return machine.program("haproxy", package="haproxy")

    def program(self, name):
        path = self.programs_dir / name
        if not path.is_file():
            raise DrillError(f"{path} is not there: build it with cargo build --release")
        return path

    def server_env(self):
        """No PGPORT and no locale of the caller reaches a server."""
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}

    def __enter__(self):
        self.work = machine.work_folder(self.base, self.user)
        self.processes = Processes(self.work)
        # Short: the path of a socket has 107 bytes at most.
        self.sockets = Path(tempfile.mkdtemp(prefix="drill.", dir="/tmp"))
        self.user.own(self.sockets)
        (self.work / SOCKETS_NOTE).write_text(str(self.sockets))
        return self

    def __exit__(self, *_):
        self.processes.end()
        remove(self.work)

    def mount(self, folder, size_mib):
        """A small file system in memory on a folder; root only. `remove` unmounts it."""
        with open(self.work / MOUNTS_NOTE, "a", encoding="utf-8") as mounts:
            mounts.write(f"{folder}\n")
        owner = f"uid={self.user.uid()},gid={self.user.gid()},mode=700"
        machine.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,{owner}", "drill", folder])

    def keep_logs(self, folder):
        """Copies the logs for a person to read."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for log in self.work.glob("*.log"):
            shutil.copy(log, folder)


def remove(work):
    """Removes a drill's folder and what belongs to it elsewhere; ends nothing."""
    try:
        sockets = Path((work / SOCKETS_NOTE).read_text())
    except OSError:
        sockets = None
    try:
        mounts = (work / MOUNTS_NOTE).read_text().splitlines()
    except OSError:
        mounts = []
    for mount in mounts:
        if Path(mount).is_relative_to(work) and os.path.ismount(mount):
            machine.run(["umount", mount], check=False)
    if sockets is not None and sockets.name.startswith("drill."):
        shutil.rmtree(sockets, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def sweep_left_over(base):
    """Ends and removes what drills left that were killed; returns what was found."""
    found = []
    for parent in (base, Path("/var/tmp")):
        for work in parent.glob("drill.*"):
            if (work / "pids").is_file() and not live_owner(work):
                found += sweep(work)
                remove(work)
    return found
