"""PostgreSQL servers of a drill: made, started, copied, promoted, rewound.

Owns: data directories and their settings.
Never: gives up durability for speed (`fsync` and `synchronous_commit` stay on).
Whoever can reach the loopback of this machine may log in as any role meanwhile: the
data is made up and is thrown away.
"""

import signal
import time

from faults import DrillError
from machine import run
from processes import kill_tree, pause_tree, resume_tree, stat_fields

START_SECONDS_MAX = 60
DATABASE = "ledger"
# Small, for several servers share a machine; everything else is a default or
# a default of a replicated production server.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "max_connections": "120",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "replica",
    # For pg_rewind, which brings an old primary back as a standby.
    "wal_log_hints": "on",
    "wal_keep_size": "256MB",
    "max_wal_size": "1GB",
    "wal_compression": "on",
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "wal_retrieve_retry_interval": "200ms",
    # In the data directory: /dev/shm would keep what a SIGKILL left behind.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
TRUST = """\
local all all trust
host all,replication all 127.0.0.1/32 trust
"""


def quoted(value):
    return "'" + str(value).replace("'", "''") + "'"


def settings_text(settings):
    return "".join(f"{name} = {quoted(value)}\n" for name, value in settings.items())


class Node:
    """One server: its folder, its port, its process."""

    def __init__(self, place, name, port):
        self.place = place
        self.name = name
        self.port = port
        self.data = place.work / f"pg-{name}"
        self.process = None

    def url(self, role="postgres", database=DATABASE):
        return f"postgres://{role}@127.0.0.1:{self.port}/{database}"

    def tool(self, name, *arguments, **options):
        command = [self.place.postgres / name, *arguments]
        return run(command, user=self.place.user, **options)

    def write_settings(self, **settings):
        """Replaces this drill's own settings; they win over postgresql.conf."""
        path = self.data / "drill.conf"
        own = {"port": self.port, "unix_socket_directories": self.place.sockets}
        path.write_text(settings_text({**SETTINGS, **own, **settings}))
        self.place.user.own(path)

    def init(self, wal_volume=None, **settings):
        self.place.user.folder(self.data)
        wal = [] if wal_volume is None else ["--waldir", wal_volume / "pg_wal"]
        # No sync of what initdb and pg_basebackup write: it is thrown away with the
        # machine's power, and takes most of a drill's time on a busy disk.
        self.tool(
            "initdb", "--no-sync", "--pgdata", self.data, "--username=postgres", "--encoding=UTF8",
            "--locale=C", "--auth=trust", "--data-checksums", "--no-instructions", *wal,
        )  # fmt: skip
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write("include_if_exists 'drill.conf'\n")
        (self.data / "pg_hba.conf").write_text(TRUST)
        self.write_settings(**settings)

    def start(self, wait=True):
        command = [self.place.postgres / "postgres", "-D", self.data]
        self.process = self.place.processes.start(
            f"postgres-{self.name}", command, user=self.place.user, env=self.place.server_env()
        )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds=START_SECONDS_MAX):
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if not self.process.running():
                raise DrillError(f"PostgreSQL {self.name} ended:\n{self.process.log_tail()}")
            if self.try_query("SELECT 1", database="postgres") == "1":
                return
            time.sleep(0.05)
        raise DrillError(f"PostgreSQL {self.name} is not ready:\n{self.process.log_tail()}")

    def psql(self, *arguments, database=DATABASE, role="postgres", seconds=30, stdin=""):
        command = [
            self.place.psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
            "-d", f"host=127.0.0.1 port={self.port} user={role} dbname={database} connect_timeout=3",
        ]  # fmt: skip
        options = {"seconds": seconds, "env": self.place.server_env(), "stdin": stdin}
        return run(command + list(arguments), **options).strip()

    def query(self, sql, **options):
        """The answer; the text goes through a pipe, for a list of ids may be long."""
        return self.psql("-f", "-", stdin=sql, **options)

    def try_query(self, sql, **options):
        """The answer, or None if there is none."""
        try:
            return self.query(sql, **options)
        except DrillError:
            return None

    def clone(self, source, **settings):
        """Makes this node a standby of `source`, streaming under this node's name."""
        self.place.user.folder(self.data)
        conninfo = source.replication_url(self.name)
        self.tool("pg_basebackup", "--no-sync", "-D", self.data, "-R", "-X", "stream", "-c", "fast",
                  "-d", conninfo)  # fmt: skip
        self.write_settings(**settings)

    def replication_url(self, name):
        return f"host=127.0.0.1 port={self.port} user=postgres application_name={name}"

    def follow(self, source, **settings):
        """Starts as a standby of `source` with the data that is here."""
        signal_file = self.data / "standby.signal"
        signal_file.touch()
        self.place.user.own(signal_file)
        settings["primary_conninfo"] = source.replication_url(self.name)
        # pg_basebackup -R wrote the old one where it would win.
        auto = self.data / "postgresql.auto.conf"
        lines = auto.read_text().splitlines(keepends=True)
        auto.write_text("".join(l for l in lines if not l.startswith("primary_conninfo")))
        self.write_settings(**settings)
        self.start()

    def rewind(self, source):
        """Undoes what this stopped server wrote after the other one left it.

        The checkpoint first: before PostgreSQL 16, pg_rewind reads the other one's
        timeline from its last checkpoint. Without one since the promotion it finds
        both on one timeline, does nothing, and the standby never catches up.
        """
        source.query("CHECKPOINT", database="postgres")
        return self.tool(
            "pg_rewind", "--target-pgdata", self.data,
            "--source-server", f"{source.replication_url(self.name)} dbname=postgres",
        )  # fmt: skip

    def promote(self):
        """pg_ctl promote; returns once the server takes writes."""
        self.tool("pg_ctl", "promote", "-D", self.data, "-w", "-t", "60")

    def reload(self, **settings):
        self.write_settings(**settings)
        self.tool("pg_ctl", "reload", "-D", self.data)

    def stop(self, mode="fast"):
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        self.process.stop(number[mode], seconds=60)

    def kill(self):
        """As losing the machine."""
        kill_tree(self.process.pid)
        self.process.popen.wait()
        self.forget_shared_memory()

    def forget_shared_memory(self):
        """Removes the 56 bytes by which a killed server still claims its data.

        A machine that is lost takes them with it; this one would keep them.
        """
        lines = (self.data / "postmaster.pid").read_text().splitlines()
        if len(lines) > 6 and len(lines[6].split()) == 2:
            run(["ipcrm", "-m", lines[6].split()[1]], user=self.place.user, check=False)

    def pause(self):
        pause_tree(self.process.pid)

    def resume(self):
        resume_tree(self.process.pid)

    def paused(self):
        fields = stat_fields(self.process.pid)
        return bool(fields) and fields[0] == "T"

    def running(self):
        return self.process is not None and self.process.running()

    def wait_streaming(self, name, sync_state="sync", seconds=30):
        """Waits until a standby of this name is connected, caught up and counted on."""
        sql = f"SELECT state || ' ' || sync_state FROM pg_stat_replication WHERE application_name = '{name}'"
        wanted = f"streaming {sync_state}"
        self.wait_for(sql, wanted, seconds)

    def wait_for(self, sql, wanted, seconds=30):
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            answer = self.try_query(sql, database="postgres")
            if answer == wanted:
                return
            time.sleep(0.1)
        raise DrillError(f"PostgreSQL {self.name}: {sql} is {answer!r}, not {wanted!r}")
