"""The same loss, hands-free: Patroni with etcd promotes, nobody else does.

Owns: three Patroni members and one etcd. In production etcd has three members on
three machines; one serves here, for it is not what fails.
Bound: Patroni notices a lost leader when its lease in etcd ends (`ttl`, 20 s, the
least it takes), so that is the greater part of the time until recovery.
"""

import json
import time

from drill import drill
from faults import DrillError
from machine import free_ports, program
from postgres import SETTINGS, Node
from processes import kill_tree
from services import call
from stage import make_ledger

TTL_S = 20
LOOP_WAIT_S = 2
RETRY_TIMEOUT_S = 3
MEMBERS = "abc"
START_SECONDS_MAX = 90
# The lease, two rounds of Patroni's loop, promotion, and the new standby's start.
RTO_HANDS_FREE_S = TTL_S + 20
NEEDS = (("patroni", "patroni"), ("etcd", "etcd-server"))


class Member(Node):
    """A PostgreSQL that Patroni starts, stops and promotes."""

    def __init__(self, place, name, ports, etcd_port):
        super().__init__(place, name, ports[0])
        # Patroni makes the data directory itself, so it needs one to make it in.
        self.data = place.user.folder(place.work / f"member-{name}") / "data"
        self.rest_port = ports[1]
        self.etcd_port = etcd_port
        self.patroni = program("patroni", package="patroni")

    def configuration(self):
        """Patroni's, which is YAML; JSON is YAML, and has fewer surprises."""
        return {
            "scope": "drill",
            "name": self.name,
            "restapi": address(self.rest_port),
            "etcd3": {"host": f"127.0.0.1:{self.etcd_port}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": LOOP_WAIT_S,
                    "retry_timeout": RETRY_TIMEOUT_S,
                    # Only the synchronous standby may be promoted, and without
                    # one nothing is acknowledged.
                    "synchronous_mode": True,
                    "synchronous_mode_strict": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": parameters()},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}, "data-checksums"],
            },
            "postgresql": {
                **address(self.port),
                "data_dir": str(self.data),
                "bin_dir": str(self.place.postgres),
                "pgpass": str(self.place.sockets / f"pgpass-{self.name}"),
                "pg_hba": [
                    "local all all trust",
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                ],
                "authentication": {
                    "superuser": {"username": "postgres"},
                    "replication": {"username": "postgres"},
                },
                "parameters": {"unix_socket_directories": str(self.place.sockets)},
            },
            "watchdog": {"mode": "off"},
        }

    def start(self, wait=True):
        path = self.place.work / f"patroni-{self.name}.yml"
        path.write_text(json.dumps(self.configuration(), indent=1))
        self.process = self.place.processes.start(
            f"patroni-{self.name}", [self.patroni, path],
            user=self.place.user, env=self.place.server_env(),
        )  # fmt: skip
        if wait:
            self.wait_ready(START_SECONDS_MAX)

    def is_leader(self):
        """Whether Patroni says that this one holds the lease and takes writes."""
        try:
            return call(self.rest_port, "GET", "/primary", timeout=5)[0] == 200
        except OSError:
            return False

    def note_server(self):
        """Writes the server down, which is not a child of Patroni."""
        self.place.processes.note_pid(self.server_pid(), f"postgres-{self.name}")

    def server_pid(self):
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def kill(self):
        """As losing the machine: first who would start the server again."""
        server = self.server_pid()
        kill_tree(self.process.pid)
        kill_tree(server)
        self.process.popen.wait()
        self.forget_shared_memory()


def address(port):
    return {"listen": f"127.0.0.1:{port}", "connect_address": f"127.0.0.1:{port}"}


def parameters():
    """Ours, but for what Patroni sets itself."""
    own = {"listen_addresses", "unix_socket_permissions", "wal_log_hints"}
    return {name: value for name, value in SETTINGS.items() if name not in own}


def start_etcd(place):
    """One member; returns its port."""
    client, peer = free_ports(2)
    etcd = program("etcd", package="etcd-server")
    url = f"http://127.0.0.1:{peer}"
    command = [etcd, "--name", "drill", "--data-dir", place.user.folder(place.work / "etcd") / "data"]
    command += ["--listen-client-urls", f"http://127.0.0.1:{client}"]
    command += ["--advertise-client-urls", f"http://127.0.0.1:{client}"]
    command += ["--listen-peer-urls", url, "--initial-advertise-peer-urls", url]
    command += ["--initial-cluster", f"drill={url}", "--logger", "zap"]
    process = place.processes.start("etcd", command, user=place.user, env=place.server_env())
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up:
        if not process.running():
            raise DrillError(f"etcd ended:\n{process.log_tail()}")
        try:
            if call(client, "GET", "/health", timeout=5)[0] == 200:
                return client
        except OSError:
            pass
        time.sleep(0.1)
    raise DrillError(f"etcd is not up:\n{process.log_tail()}")


def wait_leader(members, seconds):
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        for member in members:
            if member.is_leader():
                return member
        time.sleep(0.1)
    raise DrillError(f"Patroni made nobody the leader within {seconds} s")


def build_cluster(stage):
    """etcd, three members, and the ledger on the leader."""
    place = stage.place
    etcd_port = start_etcd(place)
    ports = free_ports(2 * len(MEMBERS))
    members = [
        Member(place, name, ports[2 * i : 2 * i + 2], etcd_port) for i, name in enumerate(MEMBERS)
    ]
    stage.nodes = {member.name: member for member in members}
    members[0].start()
    leader = wait_leader(members[:1], START_SECONDS_MAX)
    leader.note_server()
    for member in members[1:]:
        member.start(wait=False)
    for member in members[1:]:
        member.wait_ready(START_SECONDS_MAX)
        member.note_server()
    one = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')"
    leader.wait_for(one, "1", START_SECONDS_MAX)
    # Not before: in strict mode nothing commits without a standby.
    make_ledger(place, leader)
    stage.primary = leader
    return leader


@drill("patroni-failover", "the primary's machine is gone; Patroni and etcd do the rest", NEEDS)
def patroni_failover(stage):
    """Three members in strict synchronous mode. SIGKILL to Patroni and PostgreSQL of the
    leader; when its lease ends, Patroni promotes the synchronous standby and makes
    the third member synchronous. Nothing is scripted after the kill."""
    stage.say("  building: etcd, three Patroni members, Redis with replica, two engines, balancer")
    leader = build_cluster(stage)
    stage.build_redis()
    stage.build_engines()
    stage.open_accounts()
    stage.start_load()
    fault = stage.fault(f"SIGKILL to Patroni and PostgreSQL of the leader, {leader.name}")
    leader.kill()
    others = [node for node in stage.nodes.values() if node is not leader]
    stage.primary = wait_leader(others, RTO_HANDS_FREE_S)
    elected = stage.mark(f"Patroni promoted {stage.primary.name}", kind="repair")
    at = stage.recovered(elected)
    stage.figures["rto_s"] = round(at - fault, 3)
    stage.promise(
        f"first acknowledged transfer at most {RTO_HANDS_FREE_S} s after the loss, hands-free",
        at - fault <= RTO_HANDS_FREE_S,
        f"{at - fault:.1f} s, of which {elected - fault:.1f} s until the promotion",
    )
    stage.go_on(4)
    stage.mark(f"the machine of {leader.name} is back: its Patroni starts", kind="repair")
    leader.start(wait=False)
    rejoined(stage, leader)
    stage.settle()


def rejoined(stage, member):
    """Waits until the lost member streams from the new leader."""
    sql = f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{member.name}' AND state = 'streaming'"
    try:
        stage.primary.wait_for(sql, "1", 45)
        member.note_server()
        stage.mark(f"{member.name} streams from {stage.primary.name}", kind="repair")
        back = True
    except DrillError:
        back = False
    stage.promise("the lost member rejoins by itself", back, "it streams" if back else "it does not")
