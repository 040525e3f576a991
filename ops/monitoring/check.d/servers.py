"""Prometheus, Alertmanager and the exporters as processes of a test, on free ports.

Owns: the transformation of ops/monitoring's configuration for a test: real ports for targets,
seconds for minutes. There is no second copy of any rule.
"""

import http.server
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from rules import HERE, rule_files

# The tests' minute: a window of five is then ten seconds, which a few scrapes fill.
SECONDS_OF_A_MINUTE = 2
WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX = 10, 60
FOR_SECONDS = 2
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shorter(seconds):
    """A window of the rules as the test has it."""
    return max(WINDOW_SECONDS_MIN, min(WINDOW_SECONDS_MAX, round(seconds * SECONDS_OF_A_MINUTE / 60)))


def hurried(rule):
    """A rule with short windows and a short `for`; thresholds and everything else as they are."""
    def window(found):
        return f"[{shorter(int(found[1]) * UNITS[found[2]])}s]"
    changed = {**rule, "expr": re.sub(r"\[(\d+)([smhd])\]", window, rule["expr"])}
    if "for" in rule:
        changed["for"] = f"{FOR_SECONDS}s"
    return changed


def get(url, timeout=10):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read().decode()


def wait_for(what, attempt, seconds, every=0.25):
    """The first true answer of attempt(); AssertionError if there is none in time."""
    give_up = time.monotonic() + seconds
    last = None
    while time.monotonic() < give_up:
        try:
            last = attempt()
        except (OSError, ValueError) as error:
            last = None
            reason = error
        else:
            reason = None
        if last:
            return last
        time.sleep(every)
    raise AssertionError(f"not within {seconds} s: {what}" + (f" ({reason})" if reason else ""))


class Prometheus:
    """The real server with ops/monitoring/prometheus.yml."""

    def __init__(self, place, port, hurry):
        self.place, self.port, self.hurry = place, port, hurry
        self.url = f"http://127.0.0.1:{port}"
        self.folder = place.work / "prometheus"
        (self.folder / "rules/host").mkdir(parents=True)
        (self.folder / "targets").mkdir()
        self.process = None

    def configure(self, targets):
        """targets: {file's name: [(address, {label: value})]}"""
        config = yaml.safe_load((HERE / "prometheus.yml").read_text())
        if self.hurry:
            config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
            # It tries for a second before it says that the server is away.
            next(job for job in config["scrape_configs"] if job["job_name"] == "postgres").update(scrape_interval="3s", scrape_timeout="3s")
        for job in [*config["scrape_configs"], *config["alerting"]["alertmanagers"]]:
            for files in job["file_sd_configs"]:
                # A changed file is noticed by the kernel; this is for a missed notice.
                files["refresh_interval"] = "5s"
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        for path in rule_files():
            content = yaml.safe_load(path.read_text())
            if self.hurry:
                for group in content["groups"]:
                    group["rules"] = [hurried(rule) for rule in group["rules"]]
            (self.folder / path.relative_to(HERE)).write_text(yaml.safe_dump(content))
        for name in (path.stem for path in (HERE / "targets/host").iterdir()):
            self.target(name, *targets.get(name, []))

    def target(self, name, *addresses):
        path = self.folder / "targets" / f"{name}.yaml"
        entries = [{"targets": [address], "labels": labels} for address, labels in addresses]
        new = path.with_suffix(".new")
        new.write_text(yaml.safe_dump(entries))
        new.replace(path)

    def start(self):
        command = ["prometheus", f"--config.file={self.folder / 'prometheus.yml'}", f"--storage.tsdb.path={self.folder / 'data'}",
                   f"--web.listen-address=127.0.0.1:{self.port}", "--query.lookback-delta=10s"]  # fmt: skip
        self.process = self.place.processes.start("prometheus", command)
        wait_for("Prometheus is ready", lambda: self.process.running() and get(self.url + "/-/ready"), 30)

    def api(self, path, **parameters):
        try:
            answer = json.loads(get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        if answer["status"] != "success":
            raise AssertionError(f"{path} {parameters}: {answer['error']}")
        return answer["data"]

    def query(self, query):
        return self.api("query", query=query)["result"]

    def firing(self):
        """The labels and annotations of each alert that fires."""
        return [each for each in self.api("alerts")["alerts"] if each["state"] == "firing"]

    def fires(self, name):
        return [each for each in self.firing() if each["labels"]["alertname"] == name]

    def rules(self):
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]


class Sink:
    """Where messages go instead of PagerDuty, Slack and the heartbeat service; and made-up pages."""

    def __init__(self):
        self.received, self.pages = [], {}
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                sink.received.append((self.path, body.decode(errors="replace")))
                self.send_response(202 if "enqueue" in self.path else 200)
                self.end_headers()
                self.wfile.write(b"ok")

            def do_GET(self):
                text = sink.pages.get(self.path)
                self.send_response(200 if text is not None else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()


def start_alertmanager(place, port, sink):
    """The real one with ops/monitoring/alertmanager.yml; its receivers are the sink."""
    folder = place.work / "alertmanager"
    (folder / "secrets").mkdir(parents=True)
    (folder / "secrets/pagerduty-key").write_text("key")
    (folder / "secrets/slack-url").write_text(f"http://127.0.0.1:{sink.port}/slack")
    text = (HERE / "alertmanager.yml").read_text()
    config = yaml.safe_load(text.replace("/etc/prometheus/secrets", str(folder / "secrets")))
    config["global"] = {"pagerduty_url": f"http://127.0.0.1:{sink.port}/v2/enqueue"}
    for receiver in config["receivers"]:
        for hook in receiver.get("webhook_configs", []):
            hook["url"] = f"http://127.0.0.1:{sink.port}/heartbeat"
    for route in [config["route"], *config["route"]["routes"]]:
        route.update(group_wait="1s", group_interval="1s")
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus-alertmanager", f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]  # fmt: skip
    process = place.processes.start("alertmanager", command)
    wait_for("Alertmanager is ready", lambda: process.running() and get(f"http://127.0.0.1:{port}/-/ready"), 30)


def start_exporters(place, ports, database, redis_port, textfiles, trusted):
    """Of PostgreSQL, Redis, the node and TLS end points, in this order of ports; `trusted`: a certificate."""
    postgres, redis, node, blackbox = ports
    commands = {
        "postgres-exporter": (["prometheus-postgres-exporter", f"--web.listen-address=127.0.0.1:{postgres}"], {"DATA_SOURCE_NAME": database}),
        "redis-exporter": (["prometheus-redis-exporter", f"-redis.addr=redis://127.0.0.1:{redis_port}", f"-web.listen-address=127.0.0.1:{redis}"], {}),
        "node-exporter": (["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{node}", f"--collector.textfile.directory={textfiles}"], {}),
        "blackbox-exporter": (["prometheus-blackbox-exporter", f"--config.file={HERE / 'blackbox.yml'}", f"--web.listen-address=127.0.0.1:{blackbox}"], {"SSL_CERT_FILE": str(trusted)}),
    }  # fmt: skip
    for name, (command, environment) in commands.items():
        place.processes.start(name, command, env={**place.server_env(), **environment})
    for name, port in zip(commands, ports):
        wait_for(f"{name} answers", lambda port=port: get(f"http://127.0.0.1:{port}/metrics"), 20)
