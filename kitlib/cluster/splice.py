"""Two connections whose bytes flow into each other, and how to take a connection over from an HTTP server.

Stands for the connection-copying of kube-proxy's user space mode, of the API server's upgrade-aware proxy and
of the kubelet's streaming server. Bytes go from one transport to the other without a copy in between; a
connection that cannot take more stops the other from being read; the end of one direction is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Any, cast

from aiohttp import web

MAX_HEAD = 64 << 10
"""Longest head of an HTTP answer, in bytes."""
CLOSE_TIMEOUT = 10.0
"""How long a closed connection may take to send what it still holds, in seconds."""
CHECK_SECONDS = 3.0
KEEPALIVE_SECONDS = 15
_TCP_CLOSE_STATES = (7, 8)  # CLOSE, CLOSE_WAIT


def keep_tls_buffers_small() -> None:
    """Read TLS a record of 16 KiB at a time: asyncio gives each connection, most of them idle, 256 KiB to fill."""
    from asyncio import sslproto

    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = 16 << 10


class Side(asyncio.Protocol):
    """One of two spliced connections.

    Attributes:
        transport: This connection.
        peer: The other side; None until `join`.
        closed: Done when this connection is gone.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing before there is a peer to give it to."""
        self.transport = cast(asyncio.Transport, transport)
        # Python 3.10 begins to read after this call, whatever is said here: pause right after that.
        asyncio.get_running_loop().call_soon(self._pause_without_peer)

    def _pause_without_peer(self) -> None:
        if self.peer is None and self.transport is not None:
            self.transport.pause_reading()

    def join(self, peer: Side) -> None:
        """Let bytes flow between this side and `peer`; both must be connected."""
        self.peer, peer.peer = peer, self
        for side in (self, peer):
            if side.closed.done():
                side._other_gone(None)
            elif side.transport is not None:
                side.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        """Stop reading the peer: this connection takes no more for now."""
        if self.peer is not None and self.peer.transport is not None and not self.peer.closed.done():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read the peer again."""
        if self.peer is not None and self.peer.transport is not None and not self.peer.closed.done():
            self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        """Pass the end of this direction on; keep the other direction open where the transports can."""
        self._ended = True
        peer = self.peer
        if peer is None or peer.transport is None or peer._ended or not peer.transport.can_write_eof():
            if peer is not None and peer.transport is not None:
                close(peer.transport)
            return False
        peer.transport.write_eof()
        return bool(self.transport and self.transport.can_write_eof())

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the peer too: at once after an error, else when it has sent what it still holds."""
        if not self.closed.done():
            self.closed.set_result(None)
        self._other_gone(exc)

    def _other_gone(self, exc: Exception | None) -> None:
        peer = self.peer
        if peer is None or peer.transport is None:
            return
        if exc is None:
            close(peer.transport)
        else:
            reset(peer.transport)

    def close(self) -> None:
        """Close this connection at once."""
        if self.transport is not None:
            abort(self.transport)


def close(transport: asyncio.BaseTransport) -> None:
    """Close a connection once: closing a TLS connection again would cut its last bytes off."""
    if not transport.is_closing():
        transport.close()


def abort(transport: asyncio.Transport) -> None:
    """Close a connection at once, if it is not closed yet: then a TLS connection of Python 3.11.2 raises."""
    with contextlib.suppress(AttributeError):
        transport.abort()


def reset(transport: asyncio.Transport) -> None:
    """Close a connection so that its other end sees a reset, not an end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    abort(transport)


async def other_end_left(transport: asyncio.BaseTransport | None) -> None:
    """Return when the other end has closed the connection, also while nothing is read from it.

    A connection that is not read because its bytes have nowhere to go does not show its end; the kernel knows
    it (after minutes, if more bytes wait to be read than the kernel holds). Only Linux tells; elsewhere this
    never returns.
    """
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or not sys.platform.startswith("linux"):
        await asyncio.get_running_loop().create_future()
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
        while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _TCP_CLOSE_STATES:  # noqa: ASYNC110
            await asyncio.sleep(CHECK_SECONDS)


class AnswerHead(asyncio.Protocol):
    """Reads the head of an HTTP answer and then stops, so that the connection can be handed on.

    Attributes:
        head: Done with the head, blank line included.
    """

    def __init__(self) -> None:
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.head.add_done_callback(lambda head: head.cancelled() or head.exception())  # who waits may have left
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the connection."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Collect until the blank line."""
        self._data += data
        if self.head.done():
            return
        head, blank, rest = self._data.partition(b"\r\n\r\n")
        if blank and self._transport is not None:
            self._transport.pause_reading()
            self._data = rest
            self.head.set_result(bytes(head + blank))
        elif len(self._data) > MAX_HEAD:
            self.head.set_exception(ConnectionError("malformed HTTP response"))

    def rest(self) -> bytes:
        """Return what has come after the head."""
        return bytes(self._data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail when the head is not complete."""
        if not self.head.done():
            self.head.set_exception(exc or ConnectionError("EOF"))


class Hijacked(web.StreamResponse):
    """The answer of a handler that took its connection over: there is nothing more to send."""

    def __init__(self) -> None:
        """Make sure that the HTTP server does not use the connection again."""
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""


def take_over(request: web.Request, protocol: asyncio.Protocol, head: bytes) -> None:
    """Write `head` and give the request's connection to `protocol`.

    Raises:
        ConnectionResetError: The client is gone.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("client is gone")
    transport.write(head)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)


def give_back(request: web.Request, lost: bool) -> Hijacked:
    """End a connection that was taken over, so that the HTTP server forgets it.

    Args:
        request: The request whose connection it was.
        lost: Whether the protocol that took it over has seen `connection_lost`.

    Returns:
        The answer for the handler to return.
    """
    handler = cast(Any, request.protocol)
    transport = request.transport
    if lost or transport is None:
        handler.connection_lost(None)
    else:
        transport.set_protocol(handler)
        close(transport)
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, abort, transport)
    return Hijacked()
