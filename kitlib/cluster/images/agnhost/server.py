"""Three commands of agnhost: `netexec`, `serve-hostname` and `pause`.

Of netexec's HTTP server these paths are there: /, /clientip, /echo, /exit, /header, /healthz and /hostname. It has no
UDP server and runs no commands for its clients.
"""

from __future__ import annotations

import argparse
import http.server
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

HOST = os.environ.get("HOSTNAME", "localhost")
STARTED = time.monotonic()


def log(text: str) -> None:
    """Print a line in klog's format."""
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"
    print(f"I{stamp} {1:7d} log.go:245] {text}", file=sys.stderr, flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as netexec does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802  (http.server's name)
        """Answer by path."""
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        log(f"GET {self.path}")
        found = self.paths().get(url.path.lower(), self.now)(asked)
        body = found.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def paths(self) -> dict[str, Callable[[dict[str, str]], str]]:
        """Return what answers to which path."""
        return {
            "/hostname": lambda _: HOST,
            "/echo": lambda asked: asked.get("msg", ""),
            "/clientip": lambda _: f"{self.client_address[0]}:{self.client_address[1]}",
            "/header": lambda asked: self.headers.get(asked.get("key", ""), ""),
            "/healthz": lambda _: "",
            "/exit": lambda asked: os._exit(int(asked.get("code", "0") or 0)),
        }

    def now(self, _: dict[str, str]) -> str:
        """Return the time as Go prints it."""
        at = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e9):09d}"
        return f"NOW: {stamp} +0000 UTC m=+{time.monotonic() - STARTED:.9f}"

    def log_message(self, *_: Any) -> None:
        """Requests are logged in klog's format."""


class Hostname(Handler):
    """Answers every request with the host's name."""

    def paths(self) -> dict[str, Callable[[dict[str, str]], str]]:
        """Return nothing: all paths are alike."""
        return {}

    def now(self, _: dict[str, str]) -> str:
        """Return the host's name."""
        return HOST


def serve(handler: type[Handler], port: int) -> None:
    """Serve until SIGTERM."""
    address = (os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get(f"KIT_PORT_{port}", port)))
    try:
        server = http.server.ThreadingHTTPServer(address, handler)
    except OSError as error:
        sys.exit(f"listen tcp :{port}: bind: {(error.strerror or '').lower()}")
    log(f"Started HTTP server on port {port}")
    server.serve_forever()


def main() -> None:
    """Run the command that is asked for."""
    parser = argparse.ArgumentParser(prog="agnhost", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, port in (("netexec", 8080), ("serve-hostname", 9376)):
        commands.add_parser(name).add_argument("--http-port" if name == "netexec" else "--port", type=int, default=port)
    commands.add_parser("pause")
    asked, _ = parser.parse_known_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    if asked.command == "pause":
        print("Paused", flush=True)
        signal.pause()
    elif asked.command == "netexec":
        serve(Handler, asked.http_port)
    else:
        serve(Hostname, asked.port)


main()
