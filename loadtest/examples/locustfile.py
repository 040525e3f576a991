"""The engine's API for Locust, for teams that stay with it.

    locust -f locustfile.py --host http://127.0.0.1:5000
    locust -f locustfile.py --host http://127.0.0.1:5000 --headless \\
        --users 100 --spawn-rate 20 --run-time 1m --first-account 1 --last-account 1000

Users send transfers and, less often, read balances, look a transfer up, page
through an account's history and repeat an earlier key. Every option below can also
be set by its environment variable, for example LOCUST_LAST_ACCOUNT. Only transfers,
without a pause, as `ops/bench loadtest` runs it: --tags transfer --wait-max 0.

A Locust process uses one core, however many the machine has: add --processes -1.
LOCUST_CLIENT=requests takes Locust's usual client, HttpUser, which is several times
slower than FastHttpUser but knows proxies and custom adapters.
The accounts must exist and hold money: `ops/run` opens 1 to 1000.
"""

import json
import os
import random
import uuid
from collections import deque

from locust import FastHttpUser, HttpUser, between, constant_throughput, events, tag, task

# Transfers that a user remembers, to look up or to send again.
RECENT_MAX = 16


@events.init_command_line_parser.add_listener
def add_options(parser):
    add = parser.add_argument
    add("--first-account", type=int, default=1, env_var="LOCUST_FIRST_ACCOUNT", help="lowest id")
    add("--last-account", type=int, default=1000, env_var="LOCUST_LAST_ACCOUNT", help="highest id")
    # Text, as it goes into the request: a float does not hold 0.10 exactly.
    add("--amount", default="1", env_var="LOCUST_AMOUNT", help="of each transfer, as decimal text")
    add(
        "--wait-min",
        type=float,
        default=0.1,
        env_var="LOCUST_WAIT_MIN",
        help="seconds that a user pauses after an answer, at least",
    )
    add(
        "--wait-max",
        type=float,
        default=0.3,
        env_var="LOCUST_WAIT_MAX",
        help="at most; 0 is no pause at all",
    )
    add(
        "--user-rate",
        type=float,
        default=0.0,
        env_var="LOCUST_USER_RATE",
        help="tasks per second of each user, instead of a pause. Users times this is the "
        "rate, unless the target is slower: then it falls, and no latency shows that",
    )


@events.init.add_listener
def check_options(environment, **_):
    options = environment.parsed_options
    if options.last_account <= options.first_account:
        raise SystemExit("--last-account: a transfer needs two accounts, so one above the first")
    if options.user_rate < 0 or options.wait_min < 0 or options.wait_max < 0:
        raise SystemExit("--wait-min, --wait-max and --user-rate: expected 0 or more")


Client = HttpUser if os.environ.get("LOCUST_CLIENT") == "requests" else FastHttpUser


class Customer(Client):
    """One user with one connection."""

    def on_start(self):
        options = self.environment.parsed_options
        self.accounts = range(options.first_account, options.last_account + 1)
        self.amount = options.amount
        if options.user_rate > 0:
            self.pace = constant_throughput(options.user_rate)
        else:
            self.pace = between(min(options.wait_min, options.wait_max), options.wait_max)
        # Keys, transfers and answers; the answers are parsed when they are needed.
        self.recent = deque(maxlen=RECENT_MAX)
        # Neither two users nor two runs share it, so that no key comes twice.
        self.key_prefix = uuid.uuid4().hex
        self.keys_made = 0

    def wait_time(self):
        return self.pace(self)

    @tag("transfer")
    @task(10)
    def transfer(self):
        """Money from one account to another, each with a key of its own."""
        source, target = random.sample(self.accounts, 2)
        transfer = {"from": source, "to": target, "amount": self.amount}
        self.keys_made += 1
        key = f"{self.key_prefix}-{self.keys_made}"
        response = self.client.post(
            "/transaction",
            json=transfer,
            headers={"Idempotency-Key": key},
            name="POST /transaction",
        )
        # Locust counts 4xx, 5xx and broken connections as failures by itself.
        if response.status_code == 200:
            self.recent.append((key, transfer, response.content))

    @tag("balance")
    @task(5)
    def balance(self):
        account = random.choice(self.accounts)
        # One row in the statistics, not one for each account.
        self.client.get(f"/balance/{account}", name="GET /balance/[id]")

    @tag("history")
    @task(1)
    def history(self):
        account = random.choice(self.accounts)
        path = f"/transactions?account={account}&limit=20"
        self.client.get(path, name="GET /transactions?account=[id]")

    @tag("look-up")
    @task(1)
    def look_up(self):
        """A transfer that this user was told of."""
        if self.recent:
            _, _, answer = random.choice(self.recent)
            txn_id = json.loads(answer)["txn_id"]
            self.client.get(f"/transactions/{txn_id}", name="GET /transactions/[id]")

    @tag("repeat")
    @task(1)
    def repeat(self):
        """An earlier transfer again, with its key: no money may move, and the answer
        is the first one."""
        if not self.recent:
            return
        key, transfer, answer = random.choice(self.recent)
        with self.client.post(
            "/transaction",
            json=transfer,
            headers={"Idempotency-Key": key},
            name="POST /transaction (repeated key)",
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
            elif json.loads(response.content)["txn_id"] != json.loads(answer)["txn_id"]:
                response.failure("a repeated key made a second transfer")
