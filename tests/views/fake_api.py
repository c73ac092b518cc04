"""A tiny API server: lists and watches of the objects it is told, to break at will."""

from __future__ import annotations

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlparse

from kubernetes import client


class FakeAPI:
    """Serves `objects[path]`; `send` streams an event to every open watch of a path."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.version, self.requests, self.refused = 100, list[tuple[str, str, dict[str, list[str]]]](), set[str]()
        self.watches: dict[str, list[queue.Queue[bytes | None]]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    def __enter__(self) -> FakeAPI:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.break_watches()

    @property
    def api_client(self) -> Any:
        configuration = client.Configuration(host=f"http://127.0.0.1:{self._server.server_address[1]}")
        return client.ApiClient(configuration)

    def send(self, path: str, kind: str, item: dict[str, Any]) -> None:
        """Stream an event to every watch of a path."""
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.gather(path, json.dumps({"type": kind, "object": item}).encode() + b"\n")

    def gone(self, path: str) -> None:
        """Tell every watch of a path that its resourceVersion is too old."""
        status = {"kind": "Status", "metadata": {}, "code": 410, "reason": "Expired", "message": "too old"}
        self.gather(path, json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")

    def gather(self, path: str, line: bytes) -> None:
        for stream in self.watches.get(path, []):
            stream.put(line)

    def break_watches(self) -> None:
        """End every open watch, as a restart of the server does."""
        for streams in self.watches.values():
            while streams:
                streams.pop().put(None)


def _handler(api: FakeAPI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

        def do_DELETE(self) -> None:  # noqa: N802
            api.requests.append(("DELETE", self.path, {}))
            self._json({"kind": "Pod", "metadata": {"name": "gone", "uid": "gone"}})

        def do_GET(self) -> None:  # noqa: N802
            url = urlparse(self.path)
            query = parse_qs(url.query)
            api.requests.append(("GET", url.path, query))
            if url.path == "/version/":
                return self._json(dict.fromkeys(VERSION, "") | {"gitVersion": "v1.36.2", "major": "1", "minor": "36"})
            if url.path in api.refused:
                return self._json({"kind": "Status", "code": 403, "message": "forbidden for you"}, 403)
            if query.get("watch") == ["true"] or query.get("watch") == ["True"]:
                return self._watch(url.path)
            metadata = {"resourceVersion": str(api.version)}
            return self._json({"metadata": metadata, "items": api.objects.get(url.path, [])})

        def _json(self, value: Any, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _watch(self, path: str) -> None:
            stream: queue.Queue[bytes | None] = queue.Queue()
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            api.watches.setdefault(path, []).append(stream)
            while (line := stream.get()) is not None:
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
            self.close_connection = True

    return Handler


VERSION = (
    "buildDate",
    "compiler",
    "gitCommit",
    "gitTreeState",
    "gitVersion",
    "goVersion",
    "major",
    "minor",
    "platform",
)
