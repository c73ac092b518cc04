"""A web server that answers every request with its argument, in which variables of the environment are filled in."""

from __future__ import annotations

import http.server
import os
import sys
import time
from typing import Any


def log(text: str) -> None:
    """Print a line with the time, as Go's log package does."""
    print(time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime()), text, file=sys.stderr, flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the text."""

    protocol_version = "HTTP/1.1"
    body = os.path.expandvars(sys.argv[1]).encode()

    def do_GET(self) -> None:  # noqa: N802  (http.server's name)
        """Answer."""
        log(f"Serving request: {self.path}")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Requests are logged in Go's format."""


def main() -> None:
    """Listen and serve."""
    port = int(os.environ.get("PORT", 8080))
    address = (os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get(f"KIT_PORT_{port}", port)))
    try:
        server = http.server.ThreadingHTTPServer(address, Handler)
    except OSError as error:
        sys.exit(f"listen tcp :{port}: bind: {(error.strerror or '').lower()}")
    log(f"Server listening on port {port}")
    server.serve_forever()


main()
