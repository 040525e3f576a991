"""Dumps of managed databases, whose files cannot be had: pg_dump and a manifest.

Owns: a folder per dump, with `manifest.json` beside the dump itself: a checksum of
every file, the rows of every table, and per currency how many accounts there
are, their sum and a digest of all balances, all of one snapshot.
Never: leaves a dump that looks whole and is not: the folder gets its name last.
"""

import datetime
import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path

from tools import KEEP_DAYS, REPOSITORY, BackupError, connection, need, query, run, say

VERSION = 1
MANIFEST = "manifest.json"
DUMP = "dump"
TABLES = ("accounts", "transfers", "commits", "reversals", "rejections", "idempotency_keys",
          "key_periods", "currencies")  # fmt: skip
ROLES = ("engine_owner", "engine_app", "engine_read")
CHUNK_BYTES = 1 << 20

COUNTS = "\nUNION ALL ".join(f"SELECT '{t}', count(*) FROM {t}" for t in TABLES) + ";"
# The digest does not depend on the order of rows, so it takes no memory and no sort.
BALANCES = """
SELECT c.code, count(*), coalesce(sum(a.balance), 0),
       coalesce(sum(hashtextextended(concat_ws(':', a.id, a.balance, a.version), 0)::numeric), 0)
  FROM accounts a JOIN currencies c ON c.id = a.currency_id GROUP BY c.code ORDER BY c.code;
"""


def facts(lines):
    """Rows of COUNTS and BALANCES as the manifest holds them."""
    rows = [line.split("\t") for line in lines if line]
    tables = {row[0]: int(row[1]) for row in rows if len(row) == 2}
    balances = {
        row[0]: {"accounts": int(row[1]), "sum": row[2], "digest": row[3]}
        for row in rows
        if len(row) == 4
    }
    return {"tables": tables, "balances": balances}


def checksum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def checksums(folder):
    """Every file below a folder, by its path in it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): checksum(p) for p in files}


class Snapshot:
    """A transaction whose view of the ledger pg_dump and the manifest share."""

    def __init__(self, env):
        psql = need("psql", "postgresql-client")
        command = [psql, "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        self.psql = subprocess.Popen(
            [str(part) for part in command], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.psql.stdin.close()
        self.psql.stdout.close()
        self.psql.wait()

    def ask(self, sql):
        """The lines of the answer."""
        end = "-- end of answer --"
        try:
            self.psql.stdin.write(f"{sql}\nSELECT '{end}';\n")
            self.psql.stdin.flush()
        except BrokenPipeError:
            raise BackupError("the connection to the database broke; no backup was kept") from None
        lines = []
        for line in self.psql.stdout:
            if line.rstrip("\n") == end:
                return lines
            lines.append(line.rstrip("\n"))
        raise BackupError("the database refused to be read (see above); no backup was kept")


def backup(options):
    """One dump, its manifest, and the removal of what is older than the retention."""
    if options.repository.startswith("s3://"):
        raise BackupError("a logical backup goes to a folder; afterwards: aws s3 sync FOLDER s3://BUCKET/PREFIX")
    repository = Path(options.repository).resolve()
    repository.mkdir(mode=0o700, parents=True, exist_ok=True)
    env = connection(options.database_url)
    pg_dump = need("pg_dump", "postgresql-client")
    now = datetime.datetime.now(datetime.timezone.utc)
    final = repository / f"ledger-{now:%Y%m%dT%H%M%SZ}"
    unfinished = repository / f".{final.name}.unfinished"
    unfinished.mkdir(mode=0o700)
    try:
        with Snapshot(env) as snapshot:
            begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();"
            name = snapshot.ask(begin)[0]
            taken = snapshot.ask("SELECT to_char(now() AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"');")[0]
            say(f"dumping the ledger as it was at {taken}")
            run([pg_dump, "--format=directory", f"--jobs={options.jobs}", f"--snapshot={name}",
                 f"--file={unfinished / DUMP}"], env=env)  # fmt: skip
            found = facts(snapshot.ask(COUNTS) + snapshot.ask(BALANCES))
        manifest = {"version": VERSION, "taken_at": taken, **found, "files": checksums(unfinished / DUMP)}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        unfinished.rename(final)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    for old in expired(repository, time.time()):
        shutil.rmtree(old)
        say(f"removed {old.name}: older than {KEEP_DAYS} days")
    print(json.dumps({"backup": str(final), "taken_at": manifest["taken_at"], **found}))


def expired(repository, now):
    """Finished dumps older than the retention; the newest is never one of them."""
    whole = sorted(p.parent for p in repository.glob(f"ledger-*/{MANIFEST}"))
    limit = now - KEEP_DAYS * 86400
    return [p for p in whole[:-1] if (p / MANIFEST).stat().st_mtime < limit]


def read_manifest(folder):
    """The manifest of a dump whose files are as they were written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise BackupError(f"{folder} holds no backup: {error}") from None
    if manifest.get("version") != VERSION:
        raise BackupError(f"{folder}: manifest version {manifest.get('version')}, not {VERSION}")
    found = checksums(folder / DUMP)
    bad = sorted(n for n in {**found, **manifest["files"]} if found.get(n) != manifest["files"].get(n))
    if bad:
        raise BackupError(f"{folder}: damaged: {', '.join(bad[:5])}. Nothing was restored; take an older backup")
    return manifest


def restore(options):
    """Fills an empty database from a dump and compares it with the manifest."""
    folder = options.logical.resolve()
    manifest = read_manifest(folder)
    env = connection(options.database_url)
    if query(env, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") != "0":
        raise BackupError("the database is not empty: CREATE DATABASE a new one. Nothing was restored")
    make_roles(env)
    pg_restore = need("pg_restore", "postgresql-client")
    run([pg_restore, "--exit-on-error", f"--jobs={options.jobs}", f"--dbname={env['PGDATABASE']}",
         folder / DUMP], env=env)  # fmt: skip
    query(env, "ANALYZE")
    found = facts(query(env, COUNTS + BALANCES).splitlines())
    wrong = [name for name in ("tables", "balances") if found[name] != manifest[name]]
    if wrong:
        raise BackupError(f"what was restored differs from the manifest in its {' and '.join(wrong)}: {found}")
    say(f"rows and balances are those of {manifest['taken_at']}")
    return found


def make_roles(env):
    """The ledger's roles, which belong to the server and are in no dump of a database."""
    # On an empty database the file makes the roles, and then ends with an error.
    text = (REPOSITORY / "sql" / "roles.sql").read_text()
    command = [need("psql", "postgresql-client"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    output = run(command, env=env, stdin=text, check=False)
    listed = ", ".join(f"'{name}'" for name in ROLES)
    if query(env, f"SELECT count(*) FROM pg_roles WHERE rolname IN ({listed})") != str(len(ROLES)):
        raise BackupError(f"the roles of sql/roles.sql could not be made:\n{output.strip()[-500:]}")
