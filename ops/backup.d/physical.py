"""Base backups and the continuous archive of the write-ahead log, by pgBackRest.

Owns: pgBackRest's configuration file and the settings of the server's archiving.
Never: keeps an S3 key on a command line, or changes a configuration that is there.
Bound: with `archive_timeout` no more than that time of commits is missing from the
archive while it works; `pg_stat_archiver` tells when it does not.
"""

import json
import os
import tempfile
import time
from pathlib import Path

from tools import (
    KEEP_DAYS, STANZA, BackupError, Owner, connection, need, parse_time, query, run, say,
)  # fmt: skip

ARCHIVE_TIMEOUT_S = 60
# A full one once a week, what changed since on the other days.
FULL_EVERY_DAYS = 7
RECOVERY_SECONDS_MAX = 6 * 3600
START_SECONDS_MAX = 60


def repository_lines(repository, endpoint=None, region=None):
    """pgBackRest's settings of a repository: a folder, or s3://BUCKET/PREFIX."""
    if not repository.startswith("s3://"):
        return [f"repo1-path={Path(repository).resolve()}"]
    bucket, _, prefix = repository.removeprefix("s3://").partition("/")
    if not bucket or not region:
        raise BackupError("an S3 repository is s3://BUCKET/PREFIX, and needs --s3-region")
    return [
        "repo1-type=s3",
        f"repo1-path=/{prefix}",
        f"repo1-s3-bucket={bucket}",
        f"repo1-s3-endpoint={endpoint or f's3.{region}.amazonaws.com'}",
        f"repo1-s3-region={region}",
        # The role of the machine. For a key of its own: repo1-s3-key-type=shared,
        # repo1-s3-key and repo1-s3-key-secret in this file.
        "repo1-s3-key-type=auto",
    ]


def configuration(server, repository, logs):
    """The text of pgBackRest's configuration."""
    lines = [
        "# Written by ops/backup --setup.",
        "[global]",
        *repository,
        f"# Every moment of the last {KEEP_DAYS} days can be restored.",
        "repo1-retention-full-type=time",
        f"repo1-retention-full={KEEP_DAYS}",
        "# A backup begins at once, not at the next checkpoint.",
        "start-fast=y",
        "compress-type=zst",
        "process-max=2",
    ]
    if logs is not None:
        lines += [f"log-path={logs}", f"lock-path={logs}"]
    lines += [
        "",
        f"[{STANZA}]",
        f"pg1-path={server['data_directory']}",
        f"pg1-port={server['port']}",
        f"pg1-socket-path={server['socket']}",
        f"pg1-user={server['user']}",
        f"pg1-database={server['database']}",
    ]
    return "\n".join(lines) + "\n"


def ask_server(env):
    """Where the server keeps its data and its socket; needs a superuser."""
    names = ("data_directory", "port", "unix_socket_directories", "archive_mode")
    sql = f"SELECT current_user, current_database(), {', '.join(f'current_setting($${n}$$)' for n in names)}"
    user, database, data, port, sockets, archive = query(env, sql).split("\t")
    return {
        "user": user, "database": database, "data_directory": data, "port": port,
        "socket": sockets.split(",")[0].strip().strip('"'), "archive_mode": archive,
    }  # fmt: skip


def setup(options):
    """Configuration, archiving, stanza, and a check that a segment arrives."""
    program = need("pgbackrest", "pgbackrest")
    env = connection(options.database_url)
    server = ask_server(env)
    owner = Owner(Path(server["data_directory"]).stat().st_uid)
    config = options.config.resolve()
    if config.exists():
        say(f"{config} is there: left as it is")
    else:
        lines = repository_lines(options.repository, options.s3_endpoint, options.s3_region)
        if not options.repository.startswith("s3://"):
            folder = Path(options.repository)
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            owner.own(folder)
        config.write_text(configuration(server, lines, options.log_dir))
        config.chmod(0o600)
        owner.own(config)
        say(f"wrote {config}")
    base = [program, f"--config={config}", f"--stanza={STANZA}"]
    # Before the server is told to archive: without its stanza it would fail, and an alert would ring.
    run([*base, "stanza-create"], owner)
    command = f"{program} --config={config} --stanza={STANZA} archive-push %p"
    for name, value in (
        ("archive_mode", "on"),
        ("archive_command", command.replace("'", "''")),
        ("archive_timeout", f"{ARCHIVE_TIMEOUT_S}s"),
    ):
        query(env, f"ALTER SYSTEM SET {name} = '{value}'")
    query(env, "SELECT pg_reload_conf()")
    if server["archive_mode"] == "off":
        raise BackupError(
            "archiving is set up, but archive_mode takes a restart of PostgreSQL. "
            "Restart it, then run this again"
        )
    run([*base, "check"], owner)
    say("a segment of the write-ahead log reached the repository; next: ops/backup, then daily by cron or a timer")


def owner_of(config):
    """Who makes the backups: the owner of the configuration, who owns the server's files."""
    if not config.is_file():
        raise BackupError(f"{config} is not there; first: ops/backup --setup --help")
    return Owner(config.stat().st_uid)


def known(config, owner):
    """pgBackRest's own list of backups."""
    program = need("pgbackrest", "pgbackrest")
    text = run([program, f"--config={config}", f"--stanza={STANZA}", "--output=json", "info"], owner)
    return json.loads(text)[0].get("backup", [])


def kind_of_today(backups, now):
    """`full` if the last one is a week old or there is none, else `diff`."""
    fulls = [b["timestamp"]["stop"] for b in backups if b["type"] == "full" and not b.get("error")]
    # Half a day of grace, so that a daily run that is a minute early counts.
    if not fulls or now - max(fulls) > (FULL_EVERY_DAYS - 0.5) * 86400:
        return "full"
    return "diff"


def backup(options):
    """One backup, and what is older than the retention goes."""
    config = options.config.resolve()
    owner = owner_of(config)
    kind = options.type
    if kind == "auto":
        kind = kind_of_today(known(config, owner), time.time())
    program = need("pgbackrest", "pgbackrest")
    base = [program, f"--config={config}", f"--stanza={STANZA}"]
    run([*base, f"--type={kind}", "--log-level-console=info", "backup"], owner, stream=True)
    run([*base, "--log-level-console=warn", "verify"], owner, stream=True)
    latest = known(config, owner)[-1]
    print(json.dumps({"label": latest["label"], "type": latest["type"],
                      "bytes": latest["info"]["size"]}))  # fmt: skip


def restore(options):
    """A fresh cluster at a moment, started, recovered; returns how to reach it."""
    config = options.config.resolve()
    owner = owner_of(config)
    data = options.data_dir.resolve()
    if data.exists() and any(data.iterdir()):
        raise BackupError(f"{data} is not empty: give a new folder. Nothing was restored")
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    data.chmod(0o700)
    owner.own(data)
    program = need("pgbackrest", "pgbackrest")
    command = [program, f"--config={config}", f"--stanza={STANZA}", f"--pg1-path={data}"]
    # Archiving stays off: two servers must not write one archive.
    command += ["--archive-mode=off", "--log-level-console=info"]
    if options.to != "latest":
        command += ["--type=time", f"--target={parse_time(options.to)}", "--target-action=promote"]
    run([*command, "restore"], owner, stream=True)
    sockets = options.socket_dir
    if sockets is None:
        sockets = Path(tempfile.mkdtemp(prefix="restore.", dir="/tmp"))
        owner.own(sockets)
    adapt(data, owner, options.port, sockets)
    start(data, owner, options.to)
    return {"owner": owner, "sockets": sockets, "port": options.port, "data": data}


def adapt(data, owner, port, sockets):
    """What must differ from the server that was backed up."""
    for name, text in (
        ("postgresql.conf", "# The original was outside of the data directory (as on Debian).\n"),
        ("pg_hba.conf", "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\n"),
    ):
        if not (data / name).exists():
            (data / name).write_text(text)
            owner.own(data / name)
            say(f"{name} was not part of the backup: wrote a plain one; compare it with the original's")
    with open(data / "postgresql.auto.conf", "a", encoding="utf-8") as auto:
        auto.write(
            f"# ops/restore: beside the original, without a standby yet.\nport = {port}\n"
            f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{sockets}'\n"
            "synchronous_standby_names = ''\n"
        )


def server_programs(data):
    major = (data / "PG_VERSION").read_text().strip()
    folder = Path(f"/usr/lib/postgresql/{major}/bin")
    return folder if folder.is_dir() else need("pg_ctl", f"postgresql-{major}").resolve().parent


def takes_writes(data):
    """The server's own word in its lock file: `starting`, `standby`, then `ready`."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[7].strip() == "ready"


def start(data, owner, to):
    """Starts the restored server and waits until it takes writes."""
    log = data / "restore.log"
    pg_ctl = server_programs(data) / "pg_ctl"
    env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
    # Not waiting: replaying the log may take longer than pg_ctl's own limit.
    run([pg_ctl, "start", "-W", "-D", data, "-l", log], owner, env=env)
    began = time.monotonic()
    while time.monotonic() - began < RECOVERY_SECONDS_MAX:
        if takes_writes(data):
            return
        status = run([pg_ctl, "status", "-D", data], owner, env=env, check=False)
        if "no server" in status and time.monotonic() - began > 2:
            tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-6:])
            late = "" if to == "latest" else (
                "\nIf the target was not reached, that moment is not in the archive: "
                "try an earlier one, or --to latest"
            )  # fmt: skip
            raise BackupError(f"the restored server ended during recovery:\n{tail}{late}")
        time.sleep(0.2)
    raise BackupError(f"recovery took longer than {RECOVERY_SECONDS_MAX} s; the server goes on, see {log}")
