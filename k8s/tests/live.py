"""What the live tests stand on: a ledger on the PostgreSQL of `engine dev`, set up as local's Job does it."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.parse
import urllib.request
import uuid

from objects import ROOT, containers_of, load, named, of_kind

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
                [ENGINE, "serve"], env={**clean(), "ENGINE_DATABASE_URL": as_role("engine_app", database), **settings, **ports}, stderr=out, stdout=out
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
