"""What a client sees meanwhile, to the millisecond.

Owns: two small clients beside the load generator, on one thread. The *canary*
sends a transfer every 100 ms through the load balancer, whatever became of the
last one: when transfers are acknowledged again is read from it. The *witness* of an
engine is the only user of an account: it moves money into it, reads its balance
back from the same engine, which must show exactly that, and from the other one,
which may be behind by the cache's time to live and no more.
Never: uses the load's accounts, or sends a key twice for two transfers.
Bound: one connection per request; CANARY_SECONDS_MAX of them are open at once.
"""

import asyncio
import json
import threading
import time

CANARY_INTERVAL_S = 0.1
# A little longer than the engine's deadline (10 s), which answers first.
CANARY_SECONDS_MAX = 12
WITNESS_INTERVAL_S = 0.1
CALL_SECONDS_MAX = 12


async def request(port, method, path, body=None, headers=()):
    """Status and body of one request; OSError or ValueError if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    head, _, text = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not status:
        raise ConnectionError("no answer")
    return int(status[0]), parse(head, text)


def parse(head, text):
    """The JSON of a body; an error if the connection broke inside of it."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and len(text) != int(value):
            raise ConnectionError("half an answer")
    try:
        return json.loads(text)
    except ValueError:
        return {}


class Balance:
    """What a witness has a right to see of its account.

    Only acknowledged transfers raise it, each by one, so a balance below what was
    acknowledged before the question is stale, and one above is made up.
    """

    def __init__(self):
        self.acknowledged = []

    def acknowledge(self, now):
        self.acknowledged.append(now)

    @property
    def count(self):
        return len(self.acknowledged)

    def known_before(self, moment):
        """How many were acknowledged by then."""
        return sum(1 for at in self.acknowledged if at <= moment)


class Watch(threading.Thread):
    """Runs canary and witnesses until `finish`."""

    def __init__(self, run_id, canary_port, witness_ports, accounts, cache_ttl_s):
        super().__init__(daemon=True, name="watch")
        self.run_id = run_id
        self.canary_port = canary_port
        self.witness_ports = witness_ports
        self.accounts = accounts
        self.cache_ttl_s = cache_ttl_s
        self.canaries = []
        self.witnessed = []
        self.stale = []
        self.reads = {"own": 0, "other": 0, "cached": 0, "failed": 0}
        self.ending = threading.Event()
        self.failure = None

    def run(self):
        try:
            asyncio.run(self.watch())
        except Exception as error:  # the drill must hear of it: see finish
            self.failure = error

    async def watch(self):
        tasks = [asyncio.create_task(self.canary_loop())]
        for index in range(len(self.witness_ports)):
            tasks.append(asyncio.create_task(self.witness_loop(index)))
        await asyncio.gather(*tasks)

    def finish(self):
        self.ending.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    async def canary_loop(self):
        tasks, number, due = [], 0, time.monotonic()
        while not self.ending.is_set():
            tasks.append(asyncio.create_task(self.canary(number)))
            number += 1
            due += CANARY_INTERVAL_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)

    async def canary(self, number):
        row = {"sent": time.monotonic(), "answered": None, "status": 0, "code": "", "txn_id": None}
        body = {"from": self.accounts["funding"], "to": self.accounts["canary"], "amount": "0.01"}
        key = [("Idempotency-Key", f"canary-{self.run_id}-{number}")]
        try:
            asked = request(self.canary_port, "POST", "/transaction", body, key)
            row["status"], answer = await asyncio.wait_for(asked, CANARY_SECONDS_MAX)
            row["code"] = answer.get("code", "")
            row["txn_id"] = answer.get("txn_id")
        except asyncio.TimeoutError:
            row["code"] = "no answer in time"
        except (OSError, ValueError):
            row["code"] = "connection broke"
        row["answered"] = time.monotonic()
        self.canaries.append(row)

    async def witness_loop(self, index):
        balance, number = Balance(), 0
        account = self.accounts["witnesses"][index]
        while not self.ending.is_set():
            if await self.move(index, account, number):
                balance.acknowledge(time.monotonic())
                number += 1
                for reader in range(len(self.witness_ports)):
                    await self.look(index, reader, account, balance)
            await asyncio.sleep(WITNESS_INTERVAL_S)

    async def move(self, index, account, number):
        """Moves one cent; true once it is acknowledged. The same key until then."""
        port = self.witness_ports[index]
        body = {"from": self.accounts["funding"], "to": account, "amount": "0.01"}
        key = [("Idempotency-Key", f"witness-{self.run_id}-{index}-{number}")]
        try:
            asked = request(port, "POST", "/transaction", body, key)
            status, answer = await asyncio.wait_for(asked, CALL_SECONDS_MAX)
        except (OSError, ValueError, asyncio.TimeoutError):
            return False
        if status == 200:
            self.witnessed.append(answer.get("txn_id"))
        return status == 200

    async def look(self, index, reader, account, balance):
        """Reads the balance on one engine and judges it."""
        own = reader == index
        asked_at = time.monotonic()
        try:
            asked = request(self.witness_ports[reader], "GET", f"/balance/{account}")
            status, answer = await asyncio.wait_for(asked, CALL_SECONDS_MAX)
        except (OSError, ValueError, asyncio.TimeoutError):
            status, answer = 0, {}
        if status != 200:
            self.reads["failed"] += 1
            return
        self.reads["own" if own else "other"] += 1
        self.reads["cached"] += answer.get("cached") is True
        shown = int(answer["balance_minor"])
        least = balance.count if own else balance.known_before(asked_at - self.cache_ttl_s)
        if not least <= shown <= balance.count:
            self.stale.append({
                "at": asked_at, "writer": index, "reader": reader, "shown": shown,
                "least": least, "most": balance.count, "cached": answer.get("cached"),
            })  # fmt: skip
