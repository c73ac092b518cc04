"""The sockets on which Services are listened to, and the connections that they accept.

Stands for the `proxySocket` of kube-proxy's user space mode.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from kitlib.cluster.client import ApiError, Client
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.portmap import port_map
from kitlib.cluster.proxy.balancer import Balancer, Endpoint
from kitlib.cluster.proxy.datagrams import DatagramFront
from kitlib.cluster.splice import Side, reset

CONNECT_TIMEOUT = 5.0
BACKLOG = 512
MAX_LISTENERS = 4096
"""Addresses listened on at once, unless the process may open too few files: each is a socket here."""
Address = tuple[str, int, str]
"""IP, port and protocol, as the Service publishes them."""


@dataclass
class ServicePort:
    """One port of a Service.

    Attributes:
        balancer: Its endpoints.
        namespace: The Service's.
        listeners: The open sockets by published address.
    """

    balancer: Balancer
    namespace: str
    listeners: dict[Address, Listener] = field(default_factory=dict)

    def close(self) -> None:
        """Stop listening; established connections go on."""
        for listener in self.listeners.values():
            listener.close()
        self.listeners.clear()


class Budget:
    """How many sockets all listeners together may hold.

    Args:
        limit: That many.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def left(self) -> bool:
        """Tell whether one more may be opened."""
        return self.used < self.limit


def listener_limit() -> int:
    """Return how many listeners may be open: half of the files that the process may, the rest is for connections."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_LISTENERS if files == resource.RLIM_INFINITY else min(MAX_LISTENERS, files // 2)


class EndpointAddresses:
    """Where endpoints really listen: a Pod's port may be mapped to another one.

    Args:
        client: Where Pods are.
        config: The cluster.
    """

    def __init__(self, client: Client, config: ClusterConfig) -> None:
        self._client, self._config = client, config
        self._port_maps: dict[str, Mapping[str, int]] = {}

    async def of(self, namespace: str, endpoint: Endpoint) -> tuple[str, int]:
        """Return the address to connect to for an endpoint."""
        may_be_mapped = self._config.loopback == "single" or endpoint.port < 1024
        if not endpoint.pod or not may_be_mapped:
            return endpoint.address, endpoint.port
        if endpoint.uid not in self._port_maps:
            if len(self._port_maps) > 1000:
                self._port_maps.clear()
            pod = await self._client.get("pods", endpoint.pod, namespace)
            self._port_maps[endpoint.uid] = port_map(pod)
        return endpoint.address, self._port_maps[endpoint.uid].get(str(endpoint.port), endpoint.port)

    def forget(self, endpoint: Endpoint) -> None:
        """Ask for an endpoint's mapped ports again next time."""
        self._port_maps.pop(endpoint.uid, None)


async def _next_address(service_port: ServicePort, addresses: EndpointAddresses, client: str) -> tuple[str, int] | None:
    """Return where the datagrams of a client go, None without an endpoint."""
    for endpoint in service_port.balancer.candidates(client)[:1]:
        service_port.balancer.connected(client, endpoint)
        return await addresses.of(service_port.namespace, endpoint)
    return None


class Listener:
    """A bound socket that accepts connections only while there is an endpoint: without, they are refused.

    Attributes:
        port: The port that is really bound.
    """

    def __init__(self, host: str, port: int, protocol: str, budget: Budget) -> None:
        """Bind; until closed, count in the budget.

        Raises:
            OSError: The address can't be bound.
        """
        self._host, self._protocol = host, protocol
        self._socket = self._bind(port)
        self.port: int = self._socket.getsockname()[1]
        self._budget = budget
        budget.used += 1
        self._server: asyncio.AbstractServer | asyncio.BaseTransport | None = None

    def _bind(self, port: int) -> socket.socket:
        kind = socket.SOCK_DGRAM if self._protocol == "UDP" else socket.SOCK_STREAM
        sock = socket.socket(socket.AF_INET, kind)
        try:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self._host, port))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    async def accept(self, service_port: ServicePort, addresses: EndpointAddresses) -> None:
        """Accept connections when the Service port has endpoints, else refuse them."""
        wanted = bool(service_port.balancer.endpoints) or self._protocol == "UDP"
        if wanted == (self._server is not None):
            return
        if not wanted:
            self._close_server()
            self._socket = self._bind(self.port)
            return
        loop = asyncio.get_running_loop()
        if self._protocol == "UDP":
            self._server, _ = await loop.create_datagram_endpoint(
                lambda: DatagramFront(partial(_next_address, service_port, addresses)), sock=self._socket
            )
        else:
            self._server = await loop.create_server(
                lambda: Front(service_port, addresses), sock=self._socket, backlog=BACKLOG
            )

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def close(self) -> None:
        """Stop listening and free the address."""
        self._close_server()
        self._socket.close()
        self._budget.used -= 1


class Front(Side):
    """A client's connection to a Service."""

    def __init__(self, service_port: ServicePort, addresses: EndpointAddresses) -> None:
        super().__init__()
        self._port, self._addresses = service_port, addresses
        self._candidates: Iterator[Endpoint] = iter(())
        self._connecting: asyncio.Task[None] | None = None
        self._may_retry = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find an endpoint; nothing is read before."""
        super().connection_made(transport)
        self._client = (transport.get_extra_info("peername") or ("",))[0]
        self._candidates = iter(self._port.balancer.candidates(self._client))
        self._connecting = asyncio.ensure_future(self._connect())

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; from the first on, the endpoint is decided."""
        self._may_retry = False
        super().data_received(data)

    async def _connect(self) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        for endpoint in self._candidates:
            try:
                host, port = await self._addresses.of(self._port.namespace, endpoint)
                _, far = await asyncio.wait_for(loop.create_connection(lambda: Back(self), host, port), CONNECT_TIMEOUT)
            except (OSError, asyncio.TimeoutError, ApiError):
                self._addresses.forget(endpoint)
                continue
            self._port.balancer.connected(self._client, endpoint)
            self.join(far)
            return
        reset(self.transport)

    def retry(self) -> bool:
        """Try the next endpoint instead, once, if the client has not said anything yet; tell whether it is tried."""
        if not self._may_retry or self.closed.done() or self.transport is None or self.transport.is_closing():
            return False
        self._may_retry = False
        self.peer = None
        self.transport.pause_reading()
        self._connecting = asyncio.ensure_future(self._connect())
        return True


class Back(Side):
    """The connection to an endpoint.

    A Pod that is asked to end closes connections on which it has not been asked anything: such a
    client is as well served by another Pod, and need not notice.
    """

    def __init__(self, front: Front) -> None:
        super().__init__()
        self._front = front
        self._untouched = True

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._untouched = False
        super().data_received(data)

    def eof_received(self) -> bool:
        """See `Side.eof_received`."""
        return False if self._hand_over() else super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `Side.connection_lost`."""
        self._hand_over()
        super().connection_lost(exc)

    def _hand_over(self) -> bool:
        if not self._untouched or self.peer is None or not self._front.retry():
            return False
        self.peer = None
        return True
