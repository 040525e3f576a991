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
import urllib.parse
import urllib.request
import uuid

from objects import ROOT, containers_of, load, named, of_kind, template_of

ENGINE = os.environ["K8S_ENGINE"]
LOADTEST = os.environ["K8S_LOADTEST"]
SUPERUSER = os.environ["ENGINE_TEST_DATABASE_URL"]
BACKUP = ROOT / "k8s/chart/files/backup.sh"


def as_role(role: str, database: str) -> str:
    url = urllib.parse.urlsplit(SUPERUSER)
    return url._replace(netloc=f"{role}@{url.hostname}:{url.port}", path=f"/{database}").geturl()


def libpq(role: str, database: str) -> dict[str, str]:
    url = urllib.parse.urlsplit(SUPERUSER)
    return {**clean(), "PGHOST": url.hostname, "PGPORT": str(url.port), "PGUSER": role, "PGDATABASE": database}


def clean() -> dict[str, str]:
    """This environment without what belongs to the engine that `engine dev` started."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("ENGINE_", "PG", "DATABASE_", "REDIS_"))}


def run(command, env=None, check=True, **rest):
    done = subprocess.run([str(it) for it in command], env=env or clean(), capture_output=True, text=True, **rest)
    if check and done.returncode:
        raise AssertionError(f"{command[:3]} exited {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def superuser_of() -> str:
    return urllib.parse.urlsplit(SUPERUSER).username or "postgres"


def sql(text: str, database: str, role: str | None = None) -> str:
    return run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text], libpq(role or superuser_of(), database)).stdout.strip()


class Ledger(unittest.TestCase):
    """A database set up as local's Job does it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="k8s-live."))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.databases = []
        cls.addClassCleanup(lambda: [sql(f"DROP DATABASE IF EXISTS {it} WITH (FORCE)", "postgres") for it in cls.databases])
        cls.database = cls.new_database()
        cls.set_up(cls.database)

    @classmethod
    def new_database(cls) -> str:
        name = f"k8s_{uuid.uuid4().hex[:12]}"
        sql(f"CREATE DATABASE {name}", "postgres")
        cls.databases.append(name)
        return name

    @classmethod
    def set_up(cls, database: str):
        """The containers of local's setup Job, in their order, with its own files and arguments."""
        objects = load("local")
        job = next(it for it in of_kind(objects, "Job") if it["metadata"]["name"].startswith("engine-setup"))
        files = named(objects, "ConfigMap", "engine-setup")["data"]
        for name, content in files.items():
            (cls.folder / name).write_text(content)
        _, migrate, roles = containers_of(job)
        run([ENGINE, *migrate["args"]], {**clean(), "ENGINE_DATABASE_URL": as_role(superuser_of(), database)})
        command = [it.replace("/sql/", f"{cls.folder}/") for it in roles["command"]]
        passwords = {f"{key.upper()}_PASSWORD": value for key, value in named(objects, "Secret", "engine-passwords")["stringData"].items()}
        run(command, {**libpq(superuser_of(), database), **passwords})

    def serve(self, settings: dict[str, str], database: str):
        """An engine with a rendering's settings on free ports; its API's address."""
        ports = {"ENGINE_LISTEN": "127.0.0.1:0", "ENGINE_ADMIN_LISTEN": "127.0.0.1:0"}
        log = self.folder / f"{uuid.uuid4().hex}.log"
        with log.open("w") as out:
            engine = subprocess.Popen(
                [ENGINE, "serve"], env={**clean(), **settings, **ports, "ENGINE_DATABASE_URL": as_role("engine_app", database)}, stderr=out, stdout=out
            )
        self.addCleanup(lambda: engine.poll() is None and (engine.kill(), engine.wait()))
        until = time.monotonic() + 60
        while time.monotonic() < until and engine.poll() is None:
            for found in re.finditer(r"127\.0\.0\.1:(\d+)", log.read_text()):
                address = f"http://{found[0]}"
                try:
                    if json.load(urllib.request.urlopen(f"{address}/health", timeout=2))["status"] == "ready":
                        return engine, address
                except (OSError, ValueError, KeyError):
                    continue
            time.sleep(0.2)
        raise AssertionError(f"the engine did not get ready:\n{log.read_text()[-3000:]}")

    def post(self, address: str, path: str, body) -> dict:
        request = urllib.request.Request(
            address + path, json.dumps(body).encode(), {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex} if path == "/transaction" else {"Content-Type": "application/json"}
        )
        return json.load(urllib.request.urlopen(request, timeout=20))

    def fill(self, address: str):
        self.post(address, "/accounts", [{"account_id": 0, "currency": "USD", "min_balance": None}, {"account_id": 1, "currency": "USD"}])
        for _ in range(25):
            self.post(address, "/transaction", {"from": 0, "to": 1, "amount": "10.25"})

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
        self.assertEqual(25, manifest["rows"]["transfers"])
        self.assertEqual({"accounts": 2, "sum_minor": "0", "sum_positive_minor": "25625"}, manifest["balances"]["USD"])
        run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder)
        fresh = self.new_database()
        run(["pg_restore", "--exit-on-error", "--jobs=2", "--dbname", fresh, folder / "dump"], libpq(superuser_of(), fresh))
        run([ENGINE, "verify"], {**clean(), "ENGINE_DATABASE_URL": as_role("engine_read", fresh)})
        self.assertEqual("25", sql("SELECT count(*) FROM transfers", fresh))
        self.assertEqual("25625", sql("SELECT balance FROM accounts WHERE id = 1", fresh))
        # A flipped byte is found before it is restored.
        victim = max((folder / "dump").iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
        self.assertNotEqual(0, run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False).returncode)

    def test_a_backup_that_fails_leaves_nothing_that_looks_whole(self):
        target = self.folder / "failed"
        target.mkdir()
        (target / "2020-01-01T00-00-00Z.part").mkdir()
        for role, database in (("engine_app", self.database), ("engine_owner", "no_such_database")):
            with self.subTest(role=role):
                done = run(["bash", BACKUP, target], libpq(role, database), check=False, timeout=60)
                self.assertNotEqual(0, done.returncode)
                self.assertIn("nothing was kept", done.stderr)
                self.assertEqual([], list(target.iterdir()))

    def test_old_backups_go_after_the_new_one_is_whole(self):
        target = self.folder / "kept"
        target.mkdir()
        for name, days in (("old", 8), ("recent", 6)):
            (target / name).mkdir()
            os.utime(target / name, (time.time() - days * 86400,) * 2)
        run(["bash", BACKUP, target], {**libpq("engine_owner", self.database), "BACKUP_KEEP_DAYS": "7"})
        names = {it.name for it in target.iterdir()}
        self.assertTrue({"recent"} < names and "old" not in names, names)


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
        if "serve-worker" not in run([LOADTEST, "--help"]).stdout:
            self.skipTest("this loadtest cannot be shared over several machines yet")
        for it in of_kind(objects, "StatefulSet", "Job"):
            command, *rest = containers_of(it)[0]["args"]
            known = run([LOADTEST, command, "--help"]).stdout
            for flag in filter(lambda one: one.startswith("--"), rest):
                with self.subTest(command=command, flag=flag):
                    self.assertRegex(known, rf"(?m)^\s+(-\w, )?{flag}\b")


class LoadTest(unittest.TestCase):
    """The load test's containers with their own arguments, on loopback, against the engine of `engine dev`."""

    def test_runs_as_its_job_does(self):
        if "serve-worker" not in run([LOADTEST, "--help"]).stdout:
            self.skipTest("this loadtest cannot be shared over several machines yet")
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
