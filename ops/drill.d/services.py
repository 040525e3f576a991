"""Engines, Redis and the load balancer of a drill.

The balancer is HAProxy set up the way a cloud's is: it asks /health, sends a
request whose connection fails to the other engine, and if no engine is healthy asks
them all the same (fail open), so that clients see the engine's own answer.
"""

import http.client
import json
import os
import signal
import time

from faults import DrillError
from machine import run

START_SECONDS_MAX = 60
CALL_SECONDS_MAX = 30


def call(port, method, path, body=None, headers=None, timeout=CALL_SECONDS_MAX):
    """Status and parsed body of one request."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        data = None if body is None else json.dumps(body)
        headers = dict(headers or {})
        if body is not None:
            headers["Content-Type"] = "application/json"
        link.request(method, path, body=data, headers=headers)
        answer = link.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")
    finally:
        link.close()


class Engine:
    """One `engine serve`."""

    def __init__(self, place, name, port, admin_port, environment):
        self.place = place
        self.name = name
        self.port = port
        self.admin_port = admin_port
        self.environment = environment
        self.process = None

    def start(self, wait=True, **changes):
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("ENGINE_", "PG"))
        } | self.environment | changes
        command = [self.place.program("engine"), "serve", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--admin-listen", f"127.0.0.1:{self.admin_port}"]
        self.process = self.place.processes.start(f"engine-{self.name}", command, env=environment)
        if wait:
            self.wait_ready()

    def ready(self):
        """What /readyz says; None if nobody answers."""
        try:
            return call(self.admin_port, "GET", "/readyz", timeout=5)
        except (OSError, http.client.HTTPException):
            return None

    def wait_ready(self, seconds=START_SECONDS_MAX):
        give_up = time.monotonic() + seconds
        answer = None
        while time.monotonic() < give_up:
            if not self.process.running():
                raise DrillError(f"engine {self.name} ended:\n{self.process.log_tail()}")
            answer = self.ready()
            if answer is not None and answer[0] == 200:
                return
            time.sleep(0.05)
        raise DrillError(f"engine {self.name} is not ready after {seconds} s: {answer}")

    def metric(self, name, labels=""):
        """The sum over all labels, or those that contain some, of one metric; None if
        the engine has no such."""
        status, text = call(self.admin_port, "GET", "/metrics")
        if status != 200:
            raise DrillError(f"/metrics of engine {self.name} answered {status}")
        values = [
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith((name + " ", name + "{")) and labels in line
        ]
        return sum(values) if values else None

    def call(self, method, path, body=None, headers=None):
        return call(self.port, method, path, body, headers)

    def expect(self, method, path, body, statuses=(200, 201)):
        status, answer = self.call(method, path, body)
        if status not in statuses:
            raise DrillError(f"{method} {path} answered {status}: {str(answer)[:300]}")
        return answer

    def stop(self):
        """SIGTERM, as a deployment does; the exit code."""
        return self.process.stop(signal.SIGTERM, seconds=45)


class Redis:
    """One Redis server that keeps its data in a folder of its own."""

    def __init__(self, place, name, port):
        self.place = place
        self.name = name
        self.port = port
        self.folder = place.user.folder(place.work / f"redis-{name}")
        self.process = None

    def start(self, replica_of=None):
        command = [self.place.redis, "--port", self.port, "--bind", "127.0.0.1", "--dir", self.folder]
        # Snapshots only when a drill asks for one.
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        command += ["--repl-diskless-sync-delay", "0", "--logfile", ""]
        if replica_of is not None:
            command += ["--replicaof", "127.0.0.1", replica_of.port]
        self.process = self.place.processes.start(
            f"redis-{self.name}", command, user=self.place.user, env=self.place.server_env()
        )
        give_up = time.monotonic() + START_SECONDS_MAX
        while self.ask("PING", check=False).strip() != "PONG":
            if time.monotonic() > give_up or not self.process.running():
                raise DrillError(f"Redis {self.name} is not up:\n{self.process.log_tail()}")
            time.sleep(0.05)

    def ask(self, *command, check=True):
        tool = [self.place.redis_cli, "-h", "127.0.0.1", "-p", self.port, *command]
        return run(tool, seconds=10, check=check)


REPEATS = """\
    # An engine that dies takes what was just sent to it along: that is sent again,
    # which is safe for a request that carries a key.
    retry-on conn-failure empty-response
    http-request disable-l7-retry unless { req.hdr(Idempotency-Key) -m found } || METH_GET
"""


def balancer_text(port, engines, redis_port=None, redis_servers=(), repeats=True):
    """The configuration of HAProxy."""
    def servers(check):
        return "".join(f"    server {e.name} 127.0.0.1:{e.port} {check}\n" for e in engines)
    text = f"""\
global
    maxconn 4000
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout queue 5s
    timeout check 1s
    retries 3
    option redispatch 1
frontend api
    bind 127.0.0.1:{port}
    use_backend any if {{ nbsrv(engines) eq 0 }}
    default_backend engines
backend engines
    balance roundrobin
    option httpchk GET /health
    default-server inter 200ms fastinter 100ms downinter 100ms fall 2 rise 1
{REPEATS if repeats else ""}{servers("check")}
backend any
    balance roundrobin
{servers("")}"""
    if redis_port is not None:
        text += f"""
listen redis
    mode tcp
    bind 127.0.0.1:{redis_port}
    timeout client 1h
    timeout server 1h
    option tcp-check
    tcp-check send PING\\r\\n
    tcp-check expect string +PONG
    tcp-check send info\\ replication\\r\\n
    tcp-check expect string role:master
    default-server inter 200ms fastinter 100ms downinter 100ms fall 2 rise 1 on-marked-down shutdown-sessions
"""
        text += "".join(
            f"    server {r.name} 127.0.0.1:{r.port} check\n" for r in redis_servers
        )
    return text


class Balancer:
    """HAProxy before the engines, and before the Redis servers if wanted."""

    def __init__(self, place, port, repeats=True):
        self.place = place
        self.port = port
        self.repeats = repeats
        self.process = None

    def start(self, engines, redis_port=None, redis_servers=()):
        path = self.place.work / "haproxy.cfg"
        path.write_text(
            balancer_text(self.port, engines, redis_port, redis_servers, self.repeats)
        )
        run([self.place.haproxy, "-c", "-f", path])
        # -db: in the foreground, one process.
        self.process = self.place.processes.start(
            "haproxy", [self.place.haproxy, "-db", "-f", path], user=self.place.user
        )
        give_up = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < give_up:
            if not self.process.running():
                raise DrillError(f"HAProxy ended:\n{self.process.log_tail()}")
            try:
                if call(self.port, "GET", "/health", timeout=5)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        raise DrillError(f"HAProxy does not reach an engine:\n{self.process.log_tail()}")
