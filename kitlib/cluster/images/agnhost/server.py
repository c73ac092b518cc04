"""Three commands of agnhost, `netexec`, `serve-hostname` and `pause`, and the servers that only say `hello`.

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


class Hostname(http.server.BaseHTTPRequestHandler):
    """Answers every request with the host's name, and logs in klog's format."""

    protocol_version = "HTTP/1.1"
    started, asked = "Started HTTP server on port {}", "GET {}"

    @staticmethod
    def log(text: str) -> None:
        """Print a line."""
        now = time.time()
        stamp = time.strftime("%m%d %H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"
        print(f"I{stamp} {1:7d} log.go:245] {text}", file=sys.stderr, flush=True)

    def do_GET(self) -> None:  # noqa: N802  (http.server's name)
        """Answer."""
        self.log(self.asked.format(self.path))
        body = self.text().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def text(self) -> str:
        """Return the answer."""
        return HOST

    def log_message(self, *_: Any) -> None:
        """Requests are logged already."""


class Netexec(Hostname):
    """Answers by path; with the time where nothing else is meant."""

    def text(self) -> str:
        """Return the answer."""
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        answers: dict[str, Callable[[], str]] = {
            "/hostname": lambda: HOST,
            "/echo": lambda: asked.get("msg", ""),
            "/clientip": lambda: f"{self.client_address[0]}:{self.client_address[1]}",
            "/header": lambda: self.headers.get(asked.get("key", ""), ""),
            "/healthz": lambda: "",
            "/exit": lambda: os._exit(int(asked.get("code", "0") or 0)),
        }
        return answers.get(url.path.lower(), _now)()


class Hello(Hostname):
    """Answers with the command's text, variables of the environment filled in, and logs as Go's log package does."""

    started, asked = "Server listening on port {}", "Serving request: {}"

    @staticmethod
    def log(text: str) -> None:
        """Print a line."""
        print(time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime()), text, file=sys.stderr, flush=True)

    def text(self) -> str:
        """Return the answer."""
        return os.path.expandvars(sys.argv[2])


def _now() -> str:
    """Return the time as Go prints it."""
    at = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e9):09d}"
    return f"NOW: {stamp} +0000 UTC m=+{time.monotonic() - STARTED:.9f}"


def serve(handler: type[Hostname], port: int) -> None:
    """Serve until a signal."""
    address = (os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get(f"KIT_PORT_{port}", port)))
    try:
        server = http.server.ThreadingHTTPServer(address, handler)
    except OSError as error:
        sys.exit(f"listen tcp :{port}: bind: {(error.strerror or '').lower()}")
    handler.log(handler.started.format(port))
    server.serve_forever()


def main() -> None:
    """Run the command that is asked for."""
    parser = argparse.ArgumentParser(prog="agnhost", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, port in (("netexec", 8080), ("serve-hostname", 9376)):
        commands.add_parser(name).add_argument("--http-port" if name == "netexec" else "--port", type=int, default=port)
    commands.add_parser("hello").add_argument("text")
    commands.add_parser("pause")
    asked, _ = parser.parse_known_args()
    if asked.command == "hello":  # the originals leave signals to the system
        serve(Hello, int(os.environ.get("PORT", 8080)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    if asked.command == "pause":
        print("Paused", flush=True)
        signal.pause()
    elif asked.command == "netexec":
        serve(Netexec, asked.http_port)
    else:
        serve(Hostname, asked.port)


main()
