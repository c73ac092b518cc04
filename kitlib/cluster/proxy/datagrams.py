"""UDP for Services: each client gets a socket to one endpoint, until nothing has come for a while.

Stands for the UDP half of kube-proxy's user space mode (`--udp-timeout`, 250 ms there by default, longer here).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

IDLE_SECONDS = 10.0
MAX_CLIENTS = 1000

Find = Callable[[str], Awaitable["tuple[str, int] | None"]]


class DatagramFront(asyncio.DatagramProtocol):
    """The clients' side: one socket for all of them.

    Args:
        find: Returns the endpoint's address for a client's address, or None.
    """

    def __init__(self, find: Find) -> None:
        self._find = find
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: dict[Any, asyncio.Task[_DatagramBack | None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the socket for answers."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Pass a client's datagram on."""
        task = self._clients.get(addr)
        if task is None:
            if len(self._clients) >= MAX_CLIENTS:
                return
            task = self._clients[addr] = asyncio.ensure_future(self._open(addr))
        task.add_done_callback(lambda done: _send(done, data))

    async def _open(self, addr: Any) -> _DatagramBack | None:
        try:
            where = await self._find(addr[0])
            if where is not None:
                make = lambda: _DatagramBack(self, addr)  # noqa: E731
                return (await asyncio.get_running_loop().create_datagram_endpoint(make, remote_addr=where))[1]
        except Exception:
            pass  # datagrams may be lost
        self._clients.pop(addr, None)
        return None

    def answer(self, data: bytes, addr: Any) -> None:
        """Send an endpoint's datagram to its client."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, addr)

    def forget(self, addr: Any) -> None:
        """Drop a client that has been silent."""
        self._clients.pop(addr, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close all sockets to endpoints."""
        for task in list(self._clients.values()):
            task.add_done_callback(_close)


def _send(task: asyncio.Task[_DatagramBack | None], data: bytes) -> None:
    back = None if task.cancelled() else task.result()
    if back is not None:
        back.send(data)


def _close(task: asyncio.Task[_DatagramBack | None]) -> None:
    back = None if task.cancelled() else task.result()
    if back is not None:
        back.close()


class _DatagramBack(asyncio.DatagramProtocol):
    """The endpoint's side for one client."""

    def __init__(self, front: DatagramFront, client: Any) -> None:
        self._front, self._client = front, client
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._restart_timer()

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.close)

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data)
            self._restart_timer()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._front.answer(data, self._client)
        self._restart_timer()

    def error_received(self, exc: Exception) -> None:
        self.close()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._front.forget(self._client)
        if self._transport is not None:
            self._transport.close()
