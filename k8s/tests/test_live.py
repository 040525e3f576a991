"""What the manifests run, run for real: against the PostgreSQL and the engine of `engine dev`.

The set-up of local's Job (migration, roles, passwords), the settings of every ConfigMap,
maintain and verify with the roles their jobs have, and the backup with a restore. What
needs a cluster is not here: see k8s/README.md.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from live import BACKUP, ENGINE, LOADTEST, Ledger, as_role, clean, libpq, run, sql, superuser_of
from objects import ROOT, containers_of, load, named, of_kind, template_of


class Work(Ledger):
    def test_set_up_twice_serves_maintains_and_verifies(self):
        self.set_up(self.database)
        settings = named(load("local"), "ConfigMap", "engine-settings")["data"]
        engine, address = self.serve(settings, self.database)
        self.fill(address)
        engine.send_signal(signal.SIGTERM)
        self.assertEqual(0, engine.wait(timeout=40))
        roles = {"engine-owner": "engine_owner", "engine-read": "engine_read"}
        for name in ("engine-maintain", "engine-verify"):
            job = containers_of(named(load("local"), "CronJob", name))[0]
            env = {it["name"]: it["value"] for it in job["env"] if "value" in it}
            secret = next(it["valueFrom"]["secretKeyRef"]["name"] for it in job["env"] if "valueFrom" in it)
            with self.subTest(name=name):
                run([ENGINE, *job["args"]], {**clean(), **env, "ENGINE_DATABASE_URL": as_role(roles[secret], self.database)})
        # A later migration is the owner's.
        run([ENGINE, "migrate"], {**clean(), "ENGINE_DATABASE_URL": as_role("engine_owner", self.database)})

    def test_a_backup_restores_to_the_same_ledger(self):
        database = self.new_database()
        self.set_up(database)
        engine, address = self.serve({}, database)
        self.fill(address)
        target = self.folder / "backups"
        target.mkdir()
        # As the job: the owner, not a superuser. Money moves between the dump and the sums,
        # which must not see it.
        shim = self.folder / "shim"
        shim.mkdir()
        body = json.dumps({"from": 0, "to": 1, "amount": 1})
        (shim / "pg_dump").write_text(
            f"#!/bin/sh\n{shutil.which('pg_dump')} \"$@\" || exit\n"
            f"curl -fsS {address}/transaction -H 'Content-Type: application/json' -d '{body}' >{shim}/moved\n"
        )
        (shim / "pg_dump").chmod(0o755)
        env = {**libpq("engine_owner", database), "BACKUP_JOBS": "2", "PATH": f"{shim}:{os.environ['PATH']}"}
        done = run(["bash", BACKUP, target], env)
        self.assertIn("completed", (shim / "moved").read_text())
        engine.kill()
        (folder,) = target.iterdir()
        self.assertIn(str(folder), done.stdout)
        manifest = json.loads((folder / "manifest.json").read_text())
        self.assertEqual(25, manifest["tables"]["transfers"])
        # Restored by the tool that restores every other backup; it compares rows and balances, and verifies.
        fresh = self.new_database()
        self.assertEqual(0, self.restore(folder, fresh).returncode)
        self.assertEqual("25", sql("SELECT count(*) FROM transfers", fresh))
        self.assertEqual("25625", sql("SELECT balance FROM accounts WHERE id = 1", fresh))
        # A flipped byte is found before it is restored, and so is a sum that is another's.
        victim = max((folder / "dump").iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
        self.assertIn("damaged", self.restore(folder, self.new_database()).stderr)
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
        manifest["balances"]["USD"]["digest"] += "0"
        (folder / "manifest.json").write_text(json.dumps(manifest))
        self.assertIn("differs from the manifest", self.restore(folder, self.new_database()).stderr)

    def restore(self, folder: pathlib.Path, database: str) -> subprocess.CompletedProcess:
        return run([ROOT / "ops/restore", "--logical", folder, "--database-url", as_role(superuser_of(), database), "--engine", ENGINE], check=False, timeout=120)

    def test_a_backup_that_fails_leaves_nothing_that_looks_whole(self):
        target = self.folder / "failed"
        target.mkdir()
        (target / ".ledger-20200101T000000Z.unfinished").mkdir()
        for role, database in (("engine_app", self.database), ("engine_owner", "no_such_database")):
            with self.subTest(role=role):
                done = run(["bash", BACKUP, target], libpq(role, database), check=False, timeout=60)
                self.assertNotEqual(0, done.returncode)
                self.assertIn("nothing was kept", done.stderr)
                self.assertEqual([], list(target.iterdir()))

    def test_old_backups_go_after_the_new_one_is_whole(self):
        target = self.folder / "kept"
        target.mkdir()
        for name, days in (("ledger-old", 8), ("ledger-recent", 6), ("lost+found", 99)):
            (target / name).mkdir()
            os.utime(target / name, (time.time() - days * 86400,) * 2)
        run(["bash", BACKUP, target], {**libpq("engine_owner", self.database), "BACKUP_KEEP_DAYS": "7"})
        names = {it.name for it in target.iterdir()}
        self.assertTrue({"ledger-recent", "lost+found"} < names and "ledger-old" not in names, names)


class Upload(unittest.TestCase):
    """The upload container's script, with an `aws` that writes down what it is asked."""

    def test_sends_what_is_whole_and_its_manifest_last(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="k8s-upload."))
        self.addCleanup(shutil.rmtree, folder)
        for name in ("backup/ledger-a/dump", "backup/ledger-b/dump", "backup/.ledger-c.unfinished/dump", "backup/lost+found", "bin"):
            (folder / name).mkdir(parents=True)
        aws = folder / "bin/aws"
        aws.write_text(f'#!/bin/sh\necho "$2 $*" >>{folder}/calls\n[ ! -e {folder}/fails ]\n')
        aws.chmod(0o755)
        upload = containers_of(named(load("production-us-east-1"), "CronJob", "engine-backup"))[-1]
        self.assertEqual("upload", upload["name"])
        command = [it.replace("cd /backup", f"cd {folder}/backup") for it in upload["command"]]
        env = {**clean(), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        run(command, env)
        calls = (folder / "calls").read_text().splitlines()
        self.assertEqual(["sync", "cp", "sync", "cp"], [it.split()[0] for it in calls])
        for call, part in zip(calls, ("manifest.json ledger-a s3://", "ledger-a/manifest.json", "manifest.json ledger-b s3://", "ledger-b/manifest.json"), strict=True):
            self.assertIn(part, call)
        (folder / "fails").touch()
        self.assertNotEqual(0, run(command, env, check=False).returncode)


class Settings(unittest.TestCase):
    """Every setting of every rendering is one the engine knows, with a value it takes."""

    NAMES = ["local", "staging", "production-us-east-1", "production-us-west-2"]

    def known(self, command: str) -> set[str]:
        return set(re.findall(r"\[env: (ENGINE_[A-Z_]+)", run([ENGINE, command, "--help"]).stdout))

    def start(self, settings: dict[str, str]) -> subprocess.CompletedProcess:
        # Nobody listens on port 1: a valid configuration exits 69, an invalid one 64.
        nowhere = {"ENGINE_DATABASE_URL": "postgres://u@127.0.0.1:1/d", "ENGINE_LISTEN": "127.0.0.1:0", "ENGINE_ADMIN_LISTEN": "127.0.0.1:0"}
        return run([ENGINE, "serve"], {**clean(), **settings, **nowhere}, check=False, timeout=60)

    def test_are_known_and_valid(self):
        for name in self.NAMES:
            settings = named(load(name), "ConfigMap", "engine-settings")["data"]
            with self.subTest(name=name):
                self.assertEqual(set(), set(settings) - self.known("serve"))
                done = self.start(settings)
                self.assertEqual(69, done.returncode, done.stderr)

    def test_that_are_wrong_are_noticed(self):
        self.assertEqual(64, self.start({"ENGINE_SHUTDOWN_GRACE": "30"}).returncode)
        self.assertEqual(64, self.start({"ENGINE_IDEMPOTENCY_RETENTION": "1h"}).returncode)
        self.assertNotIn("ENGINE_IO_THREAD", self.known("serve"))

    def test_of_jobs_are_known_to_their_command(self):
        for name in self.NAMES:
            for it in load(name):
                for one in containers_of(it) if template_of(it) else []:
                    command = (one.get("args") or [""])[0]
                    if command in ("migrate", "maintain", "verify"):
                        # The log's form is every command's, whether its help says so or not.
                        own = {env["name"] for env in one["env"]} - {"ENGINE_LOG_FORMAT", "ENGINE_IDEMPOTENCY_RETENTION"}
                        with self.subTest(name=name, command=command):
                            self.assertEqual(set(), own - self.known(command))

    def test_of_the_load_test_are_flags_of_the_generator(self):
        objects = load("loadtest-staging")
        for it in of_kind(objects, "StatefulSet", "Job"):
            command, *rest = containers_of(it)[0]["args"]
            known = run([LOADTEST, command, "--help"]).stdout
            for flag in filter(lambda one: one.startswith("--"), rest):
                with self.subTest(command=command, flag=flag):
                    self.assertRegex(known, rf"(?m)^\s+(-\w, )?{flag}\b")


class LoadTest(unittest.TestCase):
    """The load test's containers with their own arguments, on loopback, against the engine of `engine dev`."""

    def test_runs_as_its_job_does(self):
        objects = load("loadtest-staging")
        folder = pathlib.Path(tempfile.mkdtemp(prefix="k8s-load."))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "token").write_text("a-token-of-some-length")
        here = lambda argument: argument.replace("/run/secrets/loadtest", str(folder))
        workers = []
        template = containers_of(named(objects, "StatefulSet", "engine-loadtest-worker"))[0]["args"]
        for index in range(2):
            log = folder / f"worker-{index}.log"
            with log.open("w") as out:
                arguments = [re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", here(it)) for it in template]
                worker = subprocess.Popen([LOADTEST, *arguments], env=clean(), stdout=out, stderr=out)
            self.addCleanup(lambda worker=worker: (worker.kill(), worker.wait()))
            until = time.monotonic() + 30
            while not (found := re.search(r"127\.0\.0\.1:\d+", log.read_text())):
                self.assertTrue(worker.poll() is None and time.monotonic() < until, log.read_text())
                time.sleep(0.1)
            workers.append(found[0])
        command = [here(it) for it in containers_of(named(objects, "Job", "engine-loadtest"))[0]["args"]]
        # Where, for how long and on what accounts; the speed of this machine is no matter.
        for flag, value in (("--host", os.environ["ENGINE_URL"]), ("--workers", ",".join(workers)), ("--run-time", "2s")):
            command[command.index(flag) + 1] = value
        command[command.index("p99<250ms")] = "p99<60s"
        done = run([LOADTEST, *command, "--accounts", "1..=10"], timeout=120, check=False)
        self.assertEqual(0, done.returncode, done.stdout[-3000:] + done.stderr[-3000:])
        # A threshold that cannot be met fails the Job.
        command[command.index("p99<60s")] = "rate>100000000/s"
        self.assertEqual(1, run([LOADTEST, *command, "--accounts", "1..=10"], timeout=120, check=False).returncode)


if __name__ == "__main__":
    unittest.main()
