"""The sides that speak SQL themselves, and the databases of all sides.

Everything goes through psql and pgbench. Connection settings travel in the
environment, so that no password stands on a command line.
"""

import os
import re
import subprocess
import time
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The engine's largest batch: nobody else could commit more at once.
CEILING_ROWS = 8192


class BenchError(Exception):
    """The bench cannot go on; says what failed."""


def run(command, **options):
    """Runs a command to its end; its output, or BenchError with its last lines."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise BenchError(f"{Path(str(command[0])).name} exited {done.returncode}:\n{tail}")
    return done.stdout


def parse_pgbench(text):
    """Transactions per second; BenchError if any transaction failed."""
    rate = re.search(r"^tps = ([0-9.]+) \(without initial connection time\)", text, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", text, re.MULTILINE)
    if rate is None or failed is None:
        raise BenchError(f"pgbench printed no rate:\n{text}")
    if int(failed.group(1)) > 0:
        raise BenchError(f"pgbench: {failed.group(1)} transactions failed")
    return float(rate.group(1))


class Database:
    """One database of the private server."""

    def __init__(self, server_url, name):
        self.name = name
        self.parts = urllib.parse.urlsplit(server_url)

    def url(self):
        return urllib.parse.urlunsplit(self.parts._replace(path="/" + self.name))

    def env(self):
        unquote = urllib.parse.unquote
        env = dict(os.environ, PGDATABASE=self.name, PGHOST=self.parts.hostname or "127.0.0.1")
        if self.parts.port:
            env["PGPORT"] = str(self.parts.port)
        if self.parts.username:
            env["PGUSER"] = unquote(self.parts.username)
        if self.parts.password:
            env["PGPASSWORD"] = unquote(self.parts.password)
        return env

    def psql(self, *arguments, variables=None):
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        for name, value in (variables or {}).items():
            command += ["-v", f"{name}={value}"]
        return run(command + list(arguments), env=self.env()).strip()

    def query(self, sql):
        return self.psql("-c", sql)

    def file(self, name, **variables):
        return self.psql("-f", HERE / name, variables=variables)

    def create(self, engine):
        """Makes the database anew and brings it to the engine's schema."""
        server = Database(self.parts.geturl(), "postgres")
        server.query(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
        server.query(f"CREATE DATABASE {self.name}")
        run([engine, "migrate"], env=dict(os.environ, ENGINE_DATABASE_URL=self.url()))

    def checkpoint(self):
        """Each side starts from the same place: full-page images are due again."""
        self.query("CHECKPOINT")

    def pgbench(self, script, clients, seconds, **variables):
        command = ["pgbench", "-n", "-M", "prepared", "-f", HERE / script]
        command += ["-c", clients, "-j", min(clients, os.cpu_count() or 1), "-T", seconds]
        for name, value in variables.items():
            command += ["-D", f"{name}={value}"]
        return parse_pgbench(run(command, env=self.env()))


class SqlSides:
    """naive, proc and ceiling, each in a database of its own."""

    def __init__(self, server_url, engine, work, accounts, batches):
        self.work = work
        self.accounts = accounts
        self.batches = batches
        self.engine = engine
        self.written = Database(server_url, "bench_sql")
        self.ceiling_db = Database(server_url, "bench_ceiling")
        self.ready = set()

    def prepare_written(self):
        if "written" not in self.ready:
            self.written.create(self.engine)
            self.written.file("accounts.sql", accounts=self.accounts)
            self.written.file("proc.sql")
            self.ready.add("written")

    def naive(self, clients, hot_percent, warm_up, seconds):
        self.prepare_written()
        variables = {"accounts": self.accounts, "hot_percent": hot_percent}
        self.written.checkpoint()
        self.written.pgbench("naive.pgbench.sql", clients, warm_up, **variables)
        return self.written.pgbench("naive.pgbench.sql", clients, seconds, **variables)

    def proc(self, clients, warm_up, seconds):
        self.prepare_written()
        self.written.checkpoint()
        self.written.pgbench("proc.pgbench.sql", clients, warm_up, accounts=self.accounts)
        return self.written.pgbench("proc.pgbench.sql", clients, seconds, accounts=self.accounts)

    def prepare_ceiling(self):
        if "ceiling" in self.ready:
            return
        database = self.ceiling_db
        database.create(self.engine)
        database.file("accounts.sql", accounts=self.accounts)
        first_ms = int(time.time() * 1000)
        database.file(
            "ceiling.sql",
            accounts=self.accounts,
            batches=self.batches,
            rows=CEILING_ROWS,
            first_ms=first_ms,
        )
        for batch in range(self.batches):
            database.psql("-c", copy_out(batch, self.rows_file(batch)))
        self.ready.add("ceiling")

    def rows_file(self, batch):
        return self.work / f"ceiling-{batch}.rows"

    def ceiling(self):
        """Rows per second over one connection, after a tenth of the batches."""
        self.prepare_ceiling()
        database = self.ceiling_db
        warm = max(1, self.batches // 10)
        database.query("TRUNCATE transfers")
        self.load_batches(range(warm))
        database.checkpoint()
        begin = time.monotonic()
        self.load_batches(range(warm, self.batches))
        return (self.batches - warm) * CEILING_ROWS / (time.monotonic() - begin)

    def load_batches(self, batches):
        script = self.work / "ceiling.sql"
        script.write_text("".join(load_batch(b, self.rows_file(b)) for b in batches))
        self.ceiling_db.psql("-f", script)


COLUMNS = (
    "debit_account_id, credit_account_id, amount, debit_balance, credit_balance, "
    "debit_version, credit_version, commit_id, position, currency_id, id, "
    "debit_previous_id, credit_previous_id"
)


def copy_out(batch, path):
    """The meta-command that writes one batch, as wide as the engine's rows."""
    return (
        "\\copy (SELECT debit, credit, 100::bigint, 100000000000000, 100000000000000, "
        "1::bigint, 1::bigint, 1::bigint, position, 840::smallint, id, id, id "
        f"FROM bench.ceiling_rows WHERE batch = {batch} ORDER BY position) "
        f"TO '{path}' WITH (FORMAT binary)"
    )


def load_batch(batch, path):
    """One commit of the ceiling side, as a psql script."""
    return (
        "BEGIN;\n"
        f"\\copy transfers ({COLUMNS}) FROM '{path}' WITH (FORMAT binary)\n"
        "UPDATE accounts a SET balance = a.balance + d.delta, version = a.version + d.postings, "
        "head_id = d.head_id, updated_at = now() "
        f"FROM bench.ceiling_accounts d WHERE d.batch = {batch} AND a.id = d.account_id;\n"
        "COMMIT;\n"
    )
