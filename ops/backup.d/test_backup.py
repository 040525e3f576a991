"""Tests of backup and restore: python3 -m unittest discover ops/backup.d

What needs a server is in the drill backup-restore; here stand the decisions.
"""

import json
import os
import tempfile
import unittest
from pathlib import Path

import backup
import logical
import physical
import tools
from tools import BackupError

DAY = 86400
SERVER = {"data_directory": "/data", "port": "5432", "socket": "/run", "user": "postgres", "database": "ledger"}


class Times(unittest.TestCase):
    def test_a_moment_needs_a_zone_and_becomes_utc(self):
        self.assertEqual(tools.parse_time("2026-01-31T12:00:00Z"), "2026-01-31 12:00:00.000000+00")
        self.assertEqual(tools.parse_time("2026-01-31 13:30:00.5+01:00"), "2026-01-31 12:30:00.500000+00")
        for bad in ("2026-01-31T12:00:00", "yesterday", "2026-02-31T12:00:00Z", "12Z"):
            with self.assertRaises(BackupError, msg=bad):
                tools.parse_time(bad)


class Connections(unittest.TestCase):
    def test_a_url_becomes_variables_and_its_password_stays_off_the_command_line(self):
        env = tools.connection("postgres://me:p%40ss@db:6000/ledger?sslmode=require")
        found = {name: value for name, value in env.items() if name.startswith("PG")}
        self.assertEqual(found, {
            "PGDATABASE": "ledger", "PGHOST": "db", "PGPORT": "6000", "PGUSER": "me",
            "PGPASSWORD": "p@ss", "PGSSLMODE": "require",
        })  # fmt: skip

    def test_a_socket_folder_may_stand_for_the_host(self):
        self.assertEqual(tools.connection("postgres://me@%2Frun%2Fpg/ledger")["PGHOST"], "/run/pg")

    def test_what_names_no_database_is_refused(self):
        for bad in ("postgres://host", "http://host/ledger", "ledger"):
            with self.assertRaises(BackupError, msg=bad):
                tools.connection(bad)


class Physical(unittest.TestCase):
    def test_a_full_backup_is_due_when_the_last_one_is_a_week_old(self):
        def backups(*rows):
            return [{"type": kind, "timestamp": {"stop": at}} for kind, at in rows]

        now = 100 * DAY
        for rows, expected in (
            ([], "full"),
            ([("diff", now)], "full"),
            ([("full", now - DAY)], "diff"),
            ([("full", now - 6.4 * DAY)], "diff"),
            ([("full", now - 6.6 * DAY), ("diff", now - DAY)], "full"),
            ([("full", now - 30 * DAY), ("full", now - DAY)], "diff"),
        ):
            self.assertEqual(physical.kind_of_today(backups(*rows), now), expected, rows)

    def test_a_full_backup_that_failed_does_not_count(self):
        failed = [{"type": "full", "timestamp": {"stop": 1}, "error": True}]
        self.assertEqual(physical.kind_of_today(failed, 2), "full")

    def test_the_configuration_keeps_seven_days(self):
        text = physical.configuration(SERVER, physical.repository_lines("/backup"), None)
        self.assertIn("repo1-retention-full-type=time\nrepo1-retention-full=7\n", text)
        self.assertIn("repo1-path=/backup\n", text)
        self.assertIn("[ledger]\npg1-path=/data\n", text)

    def test_s3_needs_a_bucket_and_a_region_and_no_key(self):
        lines = physical.repository_lines("s3://bucket/some/prefix", None, "eu-central-1")
        self.assertIn("repo1-path=/some/prefix", lines)
        self.assertIn("repo1-s3-endpoint=s3.eu-central-1.amazonaws.com", lines)
        self.assertIn("repo1-s3-key-type=auto", lines)
        for place, region in (("s3://bucket/x", None), ("s3:///x", "eu-central-1")):
            with self.assertRaises(BackupError):
                physical.repository_lines(place, None, region)

    def test_only_ready_means_that_recovery_is_over(self):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder)
            self.assertFalse(physical.takes_writes(data))
            for word, expected in (("starting", False), ("standby ", False), ("ready   ", True)):
                (data / "postmaster.pid").write_text("1\n/d\n0\n5432\n/s\nh\n1 2\n" + word + "\n")
                self.assertEqual(physical.takes_writes(data), expected, word)


class Logical(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.repository = Path(folder.name)

    def dump(self, name="ledger-20260101T000000Z", age_days=0.0):
        made = self.repository / name
        (made / logical.DUMP).mkdir(parents=True)
        (made / logical.DUMP / "toc.dat").write_bytes(b"one")
        (made / logical.DUMP / "3001.dat.gz").write_bytes(b"two")
        manifest = {"version": 1, "files": logical.checksums(made / logical.DUMP)}
        (made / logical.MANIFEST).write_text(json.dumps(manifest))
        at = 1_800_000_000 - age_days * DAY
        os.utime(made / logical.MANIFEST, (at, at))
        return made

    def test_a_whole_dump_is_accepted(self):
        self.assertEqual(len(logical.read_manifest(self.dump())["files"]), 2)

    def test_each_damage_is_refused_by_name(self):
        def change(path):
            path.write_bytes(b"twO")

        def add(path):
            path.with_name("more").write_bytes(b"")

        for number, (damage, named) in enumerate(
            ((change, "3001.dat.gz"), (Path.unlink, "3001.dat.gz"), (add, "more"))
        ):
            made = self.dump(f"ledger-{number}")
            damage(made / logical.DUMP / "3001.dat.gz")
            with self.assertRaisesRegex(BackupError, f"damaged: {named}"):
                logical.read_manifest(made)

    def test_a_dump_without_manifest_or_of_another_version_is_none(self):
        made = self.dump()
        (made / logical.MANIFEST).write_text('{"version": 2}')
        for _ in range(2):
            with self.assertRaises(BackupError):
                logical.read_manifest(made)
            (made / logical.MANIFEST).unlink(missing_ok=True)

    def test_what_is_older_than_seven_days_goes_but_never_the_newest(self):
        now = 1_800_000_000
        old, kept = self.dump("ledger-1", 7.1), self.dump("ledger-2", 6.9)
        unfinished = self.repository / ".ledger-0.unfinished"
        unfinished.mkdir()
        self.assertEqual(logical.expired(self.repository, now), [old])
        self.assertEqual(logical.expired(self.repository, now + 30 * DAY), [old])
        self.assertTrue(kept.is_dir())

    def test_rows_become_the_manifest_s_facts(self):
        found = logical.facts(["accounts\t3", "transfers\t2", "", "EUR\t3\t0\t-17"])
        self.assertEqual(found["tables"], {"accounts": 3, "transfers": 2})
        self.assertEqual(found["balances"], {"EUR": {"accounts": 3, "sum": "0", "digest": "-17"}})

    def test_every_table_of_the_ledger_is_counted(self):
        schema = "".join(p.read_text() for p in sorted((tools.REPOSITORY / "sql" / "migrations").glob("*.sql")))
        made = {line.split()[2] for line in schema.splitlines() if line.startswith("CREATE TABLE ")}
        parents = {name.rstrip("(") for name in made}
        self.assertEqual(parents, set(logical.TABLES))


class Choice(unittest.TestCase):
    def test_what_is_missing_is_said(self):
        for bad in (["--setup"], ["--logical", "--repository", "/x"], ["--nonsense"]):
            with self.assertRaises(SystemExit) as raised, open(os.devnull, "w") as null:
                real, backup.sys.stderr = backup.sys.stderr, null
                try:
                    backup.parse(bad)
                finally:
                    backup.sys.stderr = real
            self.assertEqual(raised.exception.code, 64)


if __name__ == "__main__":
    unittest.main()
