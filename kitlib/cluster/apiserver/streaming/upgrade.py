"""Requests that leave HTTP: forwarded to a kubelet or a Pod, whose connection is then joined with the client's.

Stands for the upgrade half of `k8s.io/apimachinery/pkg/util/proxy.UpgradeAwareHandler`. Websocket and SPDY frames
pass through unread; the far end terminates them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import web

from kitlib.cluster.splice import CLOSE_TIMEOUT, AnswerHead, Side, abort, give_back, other_end_left, take_over

ANSWER_TIMEOUT = 30.0
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


@dataclass(frozen=True)
class Backend:
    """Where a request is forwarded to.

    Attributes:
        host: Address.
        port: Port.
        ssl: TLS context, or None for plain HTTP.
        authorization: Value of the Authorization header, if any.
    """

    host: str
    port: int
    ssl: ssl.SSLContext | None = None
    authorization: str = ""

    @property
    def netloc(self) -> str:
        """Host and port, as in a URL."""
        return f"{self.host}:{self.port}"

    @property
    def base(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.ssl else 'http'}://{self.netloc}"


def is_upgrade(request: web.Request) -> bool:
    """Tell whether the client asks to leave HTTP."""
    tokens = request.headers.get("Connection", "").lower()
    return "upgrade" in {token.strip() for token in tokens.split(",")} and "Upgrade" in request.headers


def forwarded_headers(request: web.Request, backend: Backend) -> list[tuple[str, str]]:
    """Return the client's headers without its credentials and without those that concern one connection."""
    named = {token.strip().lower() for token in request.headers.get("Connection", "").split(",")}
    dropped = _HOP_BY_HOP | named | {"authorization", "host", "content-length"}
    kept = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped]
    if backend.authorization:
        kept.append(("Authorization", backend.authorization))
    return kept


async def forward_upgrade(
    request: web.Request, backend: Backend, path: str, more_headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send the client's request to the backend and join the two connections.

    Args:
        request: The client's request.
        backend: Where it goes.
        path: Path and query there, encoded.
        more_headers: Headers to add.

    Returns:
        The answer for the handler to return when both connections are closed.

    Raises:
        OSError: The backend can't be reached or does not answer as HTTP.
    """
    headers = [*forwarded_headers(request, backend), *(more_headers or {}).items()]
    headers += [("Host", backend.netloc), ("Connection", "Upgrade"), ("Upgrade", request.headers["Upgrade"])]
    if request.method not in ("GET", "HEAD"):
        headers.append(("Content-Length", "0"))
    transport, answer = await asyncio.get_running_loop().create_connection(
        AnswerHead, backend.host, backend.port, ssl=backend.ssl
    )
    try:
        transport.write(_head(f"{request.method} {path} HTTP/1.1", headers))
        head = await asyncio.wait_for(answer.head, ANSWER_TIMEOUT)
        client, far = Side(), Side()
        take_over(request, client, _answer_head(head) + answer.rest())
    except BaseException:
        abort(transport)
        raise
    transport.set_protocol(far)
    far.connection_made(transport)
    return await _splice(request, client, far)


async def _splice(request: web.Request, client: Side, far: Side) -> web.StreamResponse:
    if far.transport is not None and far.transport.is_closing():
        far.connection_lost(None)
    client.join(far)
    left = asyncio.ensure_future(other_end_left(request.transport))
    try:
        await asyncio.wait({client.closed, far.closed, left}, return_when=asyncio.FIRST_COMPLETED)
        if not left.done():
            await asyncio.wait({client.closed, far.closed}, timeout=CLOSE_TIMEOUT)
    finally:
        left.cancel()
        far.close()
        answer = give_back(request, client.closed.done())
    return answer


def _head(first: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def _answer_head(head: bytes) -> bytes:
    """Return the head for the client; one that refuses to upgrade also says that the connection ends with it."""
    lines = head.split(b"\r\n")
    if lines[0].split(b" ")[1:2] == [b"101"]:
        return head
    kept = [line for line in lines[:-2] if line.split(b":")[0].lower() not in (b"connection", b"keep-alive")]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])
