"""A door in front of a cluster, so that the kit meets it as it meets any other: by a kubeconfig alone.

`Door` listens with TLS, asks for a token of its own and passes requests on to an API server. It may let its one user
into a single namespace only, as a shared cluster does, and can be told to misbehave as a network does: watches that
break off, 429 with Retry-After, 5xx, slow answers, from a seeded random number generator. One connection carries one
request, so a request is its head and then bytes in both directions; upgrades (exec, port-forward) need nothing more.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import ipaddress
import json
import random
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

USER, TOKEN = "student", "only-this-door-knows-it"
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "clean",
           "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.25", "compiler": "gc",
           "platform": "linux/amd64"}  # fmt: skip
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Request:
    """The head of a request.

    Attributes:
        method: Such as `GET`.
        path: Without the query.
        query: What follows the question mark.
        headers: Lines after the first, names in lower case.
        target: Path and query as they came.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    target: str

    @property
    def watches(self) -> bool:
        return "watch=true" in self.query or "watch=1" in self.query

    @property
    def by_kubectl(self) -> bool:
        return self.headers.get("user-agent", "").startswith("kubectl")

    def resource(self) -> tuple[str, str, str, str] | None:
        """Return (API group, namespace, resource, name); None for a path that is no resource's."""
        root, *parts = [part for part in self.path.split("/") if part] or [""]
        group, rest = ("", parts[1:]) if root == "api" else ("".join(parts[:1]), parts[2:])
        if root not in ("api", "apis") or not rest:
            return None
        namespace = rest[1] if rest[0] == "namespaces" and len(rest) > 1 else ""
        kind, *name = rest[2:] if namespace and len(rest) > 2 else rest
        return group, namespace, kind, name[0] if name else ""


@dataclass
class Faults:
    """How badly the network behaves: chances between 0 and 1 for each request.

    Attributes:
        throttled: Answered 429 with Retry-After.
        broken: Answered 503 with Retry-After to kubectl, which waits for nothing else, and 500, 502 or 504 to others
            that only read.
        slow: Kept waiting for up to half a second.
        dropped: Watches that end within two seconds: half of them regularly, half in the middle of a line.
    """

    throttled: float = 0.0
    broken: float = 0.0
    slow: float = 0.0
    dropped: float = 0.0


Refuse = Callable[[Request], "tuple[int, str, str] | None"]


class Door:
    """The door; `with Door(...) as door:` opens it in a thread.

    Attributes:
        only: The one namespace that its user may enter; None: all of the cluster.
        faults: How badly the network behaves at the moment.
        refuse: Asked first for each request; returns (status, reason, message) to answer with that.
        lose: Asked for each request that is passed on; True loses the answer of what was done.
        open: Whether it answers at all; closed, connections are cut.
        asked: How often each (method, resource) was passed on.
        made: How often each fault was made.
    """

    def __init__(self, upstream: dict[str, Any], only: str | None = None, seed: int = 1) -> None:
        """Prepare a door in front of the cluster of an administrator's kubeconfig."""
        self.only, self.faults, self.open = only, Faults(), True
        self.refuse: Refuse = lambda _: None
        self.lose: Callable[[Request], bool] = lambda _: False
        self.asked: Counter[tuple[str, str]] = Counter()
        self.made: Counter[str] = Counter()
        self.token = TOKEN
        self._random = random.Random(seed)
        cluster, user = upstream["clusters"][0]["cluster"], upstream["users"][0]["user"]
        self._upstream, self._admin = urlsplit(cluster["server"]), user["token"]
        self._trust = ssl.create_default_context(cadata=_authority(cluster))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    # --- opening and closing

    def __enter__(self) -> Door:
        """Open the door at a free port."""
        self._certificate, context = _certificate()
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context, limit=2**20))
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; whoever is inside is cut off."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _end(self) -> None:
        self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def close(self) -> None:
        """Cut every connection and answer nobody until `open` is set again."""
        self.open = False
        self._do(self._cut())

    def kubeconfig(self, path: Path, name: str = "school", token: str | None = None) -> Path:
        """Write a kubeconfig as a school would hand it out, and return its path."""
        data = base64.b64encode(self._certificate).decode()
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority-data": data}
        context = {"cluster": "c", "user": "u", **({"namespace": self.only} if self.only else {})}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": "c", "cluster": cluster}], "contexts": [{"name": name, "context": context}],
            "users": [{"name": "u", "user": {"token": token or self.token}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    # --- one connection, one request

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort() if not writer.is_closing() else None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = _parse(await reader.readuntil(b"\r\n\r\n"))
        if not self.open:
            return
        answer = self._refusal(request) or await self._fault(request)
        if answer:
            return await _send(writer, *answer)
        if request.path.rstrip("/") == "/version":
            return await _send(writer, 200, VERSION)
        if request.path.endswith("/selfsubjectaccessreviews"):
            body = json.loads(await reader.readexactly(int(request.headers["content-length"])))
            return await _send(writer, 201, self._review(body))
        await self._pass_on(request, reader, writer)

    async def _pass_on(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked[request.method, (request.resource() or ("", "", request.path, ""))[2]] += 1
        inner, outer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port, ssl=self._trust)
        try:
            outer.write(_head(request, self._admin))
            if self.lose(request):
                forth = asyncio.ensure_future(_copy(reader, outer))
                while await inner.read(65536):
                    pass
                forth.cancel()
                return
            ways = [asyncio.ensure_future(_copy(reader, outer)), asyncio.ensure_future(_copy(inner, writer))]
            limit = self._watch_ends_after(request)
            done, _ = await asyncio.wait(ways[1:] if limit or not _upgrades(request) else ways, timeout=limit,
                                         return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            for way in ways:
                way.cancel()
            if not done and self._random.random() < 0.5:
                writer.write(b"0\r\n\r\n")  # the end of a chunked body: as a load balancer that is restarted
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(writer.drain(), 5)
            writer.close()
        finally:
            outer.transport.abort()

    def _watch_ends_after(self, request: Request) -> float | None:
        if not request.watches or self._random.random() >= self.faults.dropped:
            return None
        self.made["dropped"] += 1
        return 0.3 + self._random.random() * 1.7

    # --- rules

    def _refusal(self, request: Request) -> tuple[Any, ...] | None:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        asked_for = self.refuse(request)
        if asked_for:
            return _status(*asked_for)
        found = request.resource()
        if found is None or self._may(*found[:3], request.method == "GET"):
            return None
        verb = VERBS.get(request.method) or ("watch" if request.watches else "get" if found[3] else "list")
        where = f'in the namespace "{found[1]}"' if found[1] else "at the cluster scope"
        said = f'User "{USER}" cannot {verb} resource "{found[2]}" in API group "{found[0]}" {where}'
        return _status(403, "Forbidden", f"{found[2]} is forbidden: {said}")

    def _may(self, group: str, namespace: str, resource: str, reading: bool = True) -> bool:
        if self.only is None or group == "authorization.k8s.io":
            return True
        if resource in ("namespaces", "resourcequotas", "limitranges") and not reading:
            return False
        return namespace == self.only

    def _review(self, body: dict[str, Any]) -> dict[str, Any]:
        wish = body["spec"].get("resourceAttributes") or {}
        reading = wish.get("verb") in ("get", "list", "watch")
        allowed = self._may(wish.get("group", ""), wish.get("namespace", ""), wish.get("resource", ""), reading)
        if wish.get("resource") in ("nodes", "namespaces", "storageclasses") and self.only is not None:
            allowed = wish.get("resource") == "namespaces" and wish.get("verb") == "get"
        return {**body, "status": {"allowed": allowed}}

    async def _fault(self, request: Request) -> tuple[Any, ...] | None:
        chance, faults = self._random.random(), self.faults
        if self._random.random() < faults.slow:
            self.made["slow"] += 1
            await asyncio.sleep(self._random.random() * 0.5)
        if _upgrades(request):
            return None
        if chance < faults.throttled:
            self.made["throttled"] += 1
            return _status(429, "TooManyRequests", "too many requests, please try again later", 1)
        if chance < faults.throttled + faults.broken and (request.by_kubectl or request.method == "GET"):
            self.made["broken"] += 1
            code = 503 if request.by_kubectl else self._random.choice((500, 502, 503, 504))
            return _status(code, "ServiceUnavailable", "a fault of the network", 1 if request.by_kubectl else None)
        return None


def _upgrades(request: Request) -> bool:
    return "upgrade" in request.headers.get("connection", "").lower()


def _parse(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    path, _, query = target.partition("?")
    return Request(method, path, query, headers, target)


def _head(request: Request, token: str) -> bytes:
    headers = {**request.headers, "authorization": f"Bearer {token}"}
    if not _upgrades(request):
        headers["connection"] = "close"
    lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()


def _status(code: int, reason: str, message: str, retry_after: int | None = None) -> tuple[int, dict[str, Any], Any]:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "code": code}  # fmt: skip
    return code, body, retry_after


async def _send(writer: asyncio.StreamWriter, code: int, body: dict[str, Any], retry_after: int | None = None) -> None:
    data = json.dumps(body).encode()
    retry = f"Retry-After: {retry_after}\r\n" if retry_after is not None else ""
    head = f"HTTP/1.1 {code} -\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{retry}"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + data)
    await writer.drain()
    writer.close()


def _authority(cluster: dict[str, Any]) -> str:
    if "certificate-authority-data" in cluster:
        return base64.b64decode(cluster["certificate-authority-data"]).decode()
    return Path(cluster["certificate-authority"]).read_text()


def _certificate() -> tuple[bytes, ssl.SSLContext]:
    """Return a self-signed certificate for 127.0.0.1 (PEM) and a server's TLS context with it."""
    import tempfile

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "school")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1)).add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(secret + pem)
        file.flush()
        context.load_cert_chain(file.name)
    return pem, context
