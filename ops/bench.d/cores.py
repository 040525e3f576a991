"""Which core the target gets, and which the client."""

import os
from dataclasses import dataclass
from pathlib import Path

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclass(frozen=True)
class Cores:
    """None is not pinned: there is only one."""

    target: int | None
    client: int | None

    @classmethod
    def choose(cls, allowed=None):
        """The first and the last core this process may use: as far apart as numbers
        tell, for neighbours are often two threads of one core."""
        allowed = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
        if len(allowed) < 2:
            return cls(None, None)
        return cls(allowed[0], allowed[-1])

    def describe(self):
        if self.client is None:
            return "one core for target and client, not pinned: rates are of both together"
        text = f"target on core {self.target}, client on core {self.client}"
        try:
            siblings = Path(SIBLINGS.format(self.client)).read_text(encoding="ascii").strip()
        except OSError:
            return text
        if self.target in parse_list(siblings):
            return text + ", two threads of one physical core: they slow each other"
        return text


def parse_list(text):
    """The numbers of a list such as 0-3,8."""
    numbers = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def pinned(core, command):
    """The command, bound to a core."""
    command = [str(part) for part in command]
    return command if core is None else ["taskset", "-c", str(core), *command]
