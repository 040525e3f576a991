"""What a drill and a soak are to whoever runs them: arguments, words, signals."""

import argparse
import signal
import sys

EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69


class Parser(argparse.ArgumentParser):
    """Exits like the other commands of this repository."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def say(text):
    print(text, file=sys.stderr, flush=True)


def unwind_when_told_to_end():
    """From here on a signal unwinds through every `with`, so that nothing is left running."""
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, _unwind)


def _unwind(number, _frame):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)
