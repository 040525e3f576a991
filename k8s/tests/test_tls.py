"""Production's containers, run with their own commands, settings and URLs against a PostgreSQL with TLS.

Only the address, the database's name and the folder of the authorities are this machine's. Each works
with the right authorities, and none with others or under another name: verify-full is in force, not
only written down. The server is that of `engine dev`, given a certificate for the length of the test.
"""

import pathlib
import subprocess
import time
import urllib.parse

from facts_tls import environment_of
from live import BACKUP, ENGINE, SUPERUSER, Ledger, clean, run, sql
from objects import containers_of, load, without_hash, workloads

ROLES = {"engine-app": "engine_app", "engine-owner": "engine_owner", "engine-read": "engine_read"}
FOLDER = "/etc/engine/database-ca/"


def openssl(*arguments: str, cwd: pathlib.Path) -> None:
    run(["openssl", *arguments], cwd=cwd)


def to_server(name: str, content: str) -> None:
    """A file of the server's own, which nobody else may read: it refuses a key that others may."""
    lines = ",".join(f"$q${line}$q$" for line in content.splitlines())
    sql(f"COPY (SELECT unnest(ARRAY[{lines}])) TO PROGRAM 'umask 077; cat >{name}'", "postgres")


class Verified(Ledger):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.authorities = cls.folder / "authorities"
        cls.authorities.mkdir()
        for name in ("ours", "other"):
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem", cwd=cls.folder)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr", cwd=cls.folder)
        (cls.folder / "names").write_text("subjectAltName=DNS:localhost")
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ours.pem", "-CAkey", "ours.key", "-days", "2", "-extfile", "names", "-out", "server.pem", cwd=cls.folder)
        to_server("server.key", (cls.folder / "server.key").read_text())
        to_server("server.crt", (cls.folder / "server.pem").read_text())
        cls.addClassCleanup(lambda: (sql("ALTER SYSTEM RESET ssl", "postgres"), sql("SELECT pg_reload_conf()", "postgres")))
        sql("ALTER SYSTEM SET ssl = on", "postgres")
        sql("SELECT pg_reload_conf()", "postgres")
        until = time.monotonic() + 30
        while sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "postgres") != "t":
            if time.monotonic() > until:
                raise AssertionError("the server did not switch TLS on")
            time.sleep(0.1)

    def trust(self, name: str) -> None:
        (self.authorities / "ca.pem").write_bytes((self.folder / f"{name}.pem").read_bytes())

    def here(self, value: str, role: str, host: str) -> str:
        """A value of the rendering with this machine's server and folder in it."""
        value = value.replace(FOLDER, f"{self.authorities}/")
        if not value.startswith("postgres://"):
            return value
        url = urllib.parse.urlsplit(value)
        return url._replace(netloc=f"{role}@{host}:{urllib.parse.urlsplit(SUPERUSER).port}", path=f"/{self.database}").geturl()

    def containers(self, host="localhost"):
        """(what, its arguments, its environment) of every container that talks to the database."""
        objects = load("production-us-east-1")
        for it in workloads(objects):
            for one in containers_of(it):
                secret = next((source["secretRef"]["name"] for source in one.get("envFrom", []) if "secretRef" in source), None)
                secret = secret or next((env["valueFrom"]["secretKeyRef"]["name"] for env in one.get("env", []) if "valueFrom" in env), None)
                if not secret:
                    continue
                own = {name: self.here(value, ROLES[without_hash(secret)], host) for name, value in environment_of(one, objects).items()}
                # No Redis with TLS here; reads without it are PostgreSQL's.
                own.pop("ENGINE_REDIS_URL", None)
                if "PGHOST" in own:
                    own |= {"PGHOST": host, "PGPORT": str(urllib.parse.urlsplit(SUPERUSER).port), "PGUSER": ROLES[without_hash(secret)], "PGDATABASE": self.database}
                    own.pop("PGPASSWORD")
                yield one["name"], one.get("args", []), own

    def start(self, what: str, arguments: list[str], own: dict[str, str]) -> subprocess.CompletedProcess:
        if what == "dump":
            target = self.folder / f"dump-{len(list(self.folder.iterdir()))}"
            target.mkdir()
            return run(["bash", BACKUP, target], {**clean(), **own, "HOME": str(self.folder)}, check=False, timeout=120)
        nowhere = {"ENGINE_LISTEN": "127.0.0.1:0", "ENGINE_ADMIN_LISTEN": "127.0.0.1:0"} if what == "engine" else {}
        return run([ENGINE, *arguments], {**clean(), **own, **nowhere}, check=False, timeout=120)

    def test_each_container_reaches_a_server_that_its_authorities_vouch_for(self):
        self.trust("ours")
        seen = set()
        for what, arguments, own in self.containers():
            seen.add(what)
            with self.subTest(what=what):
                if what == "engine":
                    _, address = self.serve(own, self.database)
                    self.fill(address)
                    sessions = sql("SELECT DISTINCT ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE datname = current_database() AND usename = 'engine_app'", self.database)
                    self.assertEqual("t", sessions)
                else:
                    done = self.start(what, arguments, own)
                    self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({"engine", "migrate", "maintain", "verify", "dump"}, seen)

    def test_none_believes_other_authorities_another_name_or_no_file(self):
        for authorities, host in (("other", "localhost"), ("ours", "127.0.0.1"), (None, "localhost")):
            (self.authorities / "ca.pem").unlink(missing_ok=True)
            if authorities:
                self.trust(authorities)
            for what, arguments, own in self.containers(host):
                with self.subTest(authorities=authorities, host=host, what=what):
                    done = self.start(what, arguments, own)
                    self.assertNotEqual(0, done.returncode)
                    self.assertRegex(done.stdout + done.stderr, "(?i)certificate|ca.pem")


if __name__ == "__main__":
    import unittest

    unittest.main()
