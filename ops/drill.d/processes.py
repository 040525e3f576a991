"""Every process of a drill: started here, written down, ended by its id.

Owns: the file `pids` of a drill's folder, one line per process with the moment it
began, so that an id that was given to somebody else is never signalled.
Never: looks a process up by its name.
Invariant: what was started is in the file before anybody uses it; whoever finds
the folder of a killed drill can end all of it with `sweep`.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from faults import DrillError

STOP_SECONDS_MAX = 20


def stat_fields(pid):
    """The fields of /proc/PID/stat from the third on; None once it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The second field is the name in brackets, which may itself hold brackets.
    fields = text.rpartition(")")[2].split()
    return None if not fields or fields[0] in "ZX" else fields


def began(pid):
    """When a process began, in clock ticks since boot; None once it is gone."""
    fields = stat_fields(pid)
    return fields and int(fields[19])


def descendants(pid):
    """The ids of all children and children's children that live now."""
    parents = {}
    for entry in os.listdir("/proc"):
        fields = entry.isdigit() and stat_fields(entry)
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found, to_visit = [], [pid]
    while to_visit:
        children = parents.get(to_visit.pop(), [])
        found += children
        to_visit += children
    return found


def signal_quietly(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_tree(pid):
    """As losing the machine: nobody of the tree runs another instruction.

    The parent is stopped first, so that it starts no child that is missed.
    """
    signal_quietly(pid, signal.SIGSTOP)
    for each in [pid, *descendants(pid)]:
        signal_quietly(each, signal.SIGKILL)


def pause_tree(pid):
    """Stops a process and its children; they keep their sockets and their locks."""
    signal_quietly(pid, signal.SIGSTOP)
    for each in descendants(pid):
        signal_quietly(each, signal.SIGSTOP)


def resume_tree(pid):
    for each in [*descendants(pid), pid]:
        signal_quietly(each, signal.SIGCONT)


class Process:
    """A child of this drill."""

    def __init__(self, name, popen, log_path):
        self.name = name
        self.popen = popen
        self.log_path = log_path

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def log_tail(self, lines=12):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:])

    def wait(self, seconds):
        """The exit code, or DrillError if it did not end."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DrillError(f"{self.name} did not end in {seconds} s") from None

    def stop(self, number=signal.SIGTERM, seconds=STOP_SECONDS_MAX):
        """Asks, waits, and returns the exit code."""
        signal_quietly(self.pid, number)
        return self.wait(seconds)

    def kill(self):
        if self.running():
            kill_tree(self.pid)
        self.popen.wait()


class Processes:
    """Starts processes and ends all that are left."""

    def __init__(self, work):
        self.work = work
        self.path = work / "pids"
        self.path.touch()
        self.note_pid(os.getpid(), "drill")
        self.started = []

    def note_pid(self, pid, name):
        """Writes a process down that must not outlive the drill."""
        with open(self.path, "a", encoding="ascii") as pids:
            pids.write(f"{pid} {began(pid) or 0} {name}\n")

    def start(self, name, command, user=None, env=None, cwd=None):
        """A child in the background; its output goes to NAME.log.

        In a session of its own, so that a terminal's Ctrl-C reaches only the
        drill, which then ends its children in order.
        """
        log_path = self.work / f"{name}.log"
        with open(log_path, "ab") as log:
            popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=cwd or self.work,
                start_new_session=True,
                **(user.options() if user else {}),
            )
        self.note_pid(popen.pid, name)
        process = Process(name, popen, log_path)
        self.started.append(process)
        return process

    def end(self):
        """Ends all that was started, last first."""
        sweep(self.work, spare=os.getpid())
        for process in self.started:
            process.popen.wait()


def recorded(work):
    """The processes of a folder that still live, last started first."""
    try:
        lines = (work / "pids").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    rows = [line.split(None, 2) for line in lines]
    # A line that a crash cut short names nobody.
    rows = [row for row in rows if len(row) == 3 and row[0].isdigit() and row[1].isdigit()]
    return [(int(pid), name) for pid, at, name in reversed(rows) if began(int(pid)) == int(at)]


def detached_servers(work):
    """PostgreSQL servers that somebody else (Patroni, pg_ctl) started in this folder.

    A process whose working directory is the data directory is its server.
    """
    found = []
    for claim in [*work.glob("*/postmaster.pid"), *work.glob("*/data/postmaster.pid")]:
        try:
            pid = int(claim.read_text().splitlines()[0])
            if Path(f"/proc/{pid}/cwd").samefile(claim.parent):
                found.append(pid)
        except (OSError, ValueError, IndexError):
            continue
    return found


def sweep(work, spare=None, seconds=5):
    """Ends what a drill's folder names: by force, for its data goes too. Returns the names.

    Except for PostgreSQL, which releases its shared memory on SIGQUIT and gets a
    moment for it.
    """
    found = [(pid, name) for pid, name in recorded(work) if pid != spare]
    found += [(pid, "postgres") for pid in detached_servers(work)]
    trees = []
    for pid, name in found:
        trees += [(each, began(each)) for each in [pid, *descendants(pid)]]
        resume_tree(pid)
        if name.startswith("postgres"):
            signal_quietly(pid, signal.SIGQUIT)
        else:
            kill_tree(pid)
    give_up = time.monotonic() + seconds
    while trees and time.monotonic() < give_up:
        # A child of ours stays a zombie until it is waited for; `began` says gone.
        trees = [(pid, at) for pid, at in trees if at is not None and began(pid) == at]
        time.sleep(0.02)
    for pid, at in trees:
        if at is not None and began(pid) == at:
            signal_quietly(pid, signal.SIGKILL)
    return [name for _, name in found]


def live_owner(work):
    """Whether the drill that made this folder still runs."""
    return any(name == "drill" for _, name in recorded(work))
