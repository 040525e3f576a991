"""Answers /health: 200, or 503 while the file FLAG exists; with a number in it, after so many answers more.

    health.py PORT FLAG
"""

import pathlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def ill(flag):
    if not flag.exists():
        return False
    left = int(flag.read_text() or 0)
    flag.write_text(str(max(left - 1, 0)))
    return left == 0


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if ill(pathlib.Path(sys.argv[2])) else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
