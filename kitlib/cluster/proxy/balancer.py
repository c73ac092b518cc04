"""Which endpoint a new connection to a Service goes to.

Stands for kube-proxy's `LoadBalancerRR` (user space mode). A terminating endpoint gets no new connection unless no
other one is left (`ProxyTerminatingEndpoints`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from kitlib.cluster.objects import Object


class Endpoint(NamedTuple):
    """One address behind a Service port.

    Attributes:
        address: IP address.
        port: Port.
        pod: Name of the Pod, or empty.
        uid: The Pod's uid.
    """

    address: str
    port: int
    pod: str = ""
    uid: str = ""


def endpoints_of(slices: Iterable[Object], port_name: str) -> list[Endpoint]:
    """Return the endpoints of a Service port that take connections.

    Args:
        slices: The Service's EndpointSlices.
        port_name: Name of the port; empty for a Service's only one.
    """
    ready, terminating = [], []
    for item in slices:
        ports = [port["port"] for port in _ports(item) if (port.get("name") or "") == port_name]
        for endpoint in (item.get("endpoints") or ()) if ports else ():
            conditions = endpoint.get("conditions") or {}
            reference = endpoint.get("targetRef") or {}
            found = Endpoint(endpoint["addresses"][0], ports[0], reference.get("name", ""), reference.get("uid", ""))
            if conditions.get("ready") is not False:
                ready.append(found)
            elif conditions.get("serving") and conditions.get("terminating"):
                terminating.append(found)
    return sorted(set(ready or terminating))


def _ports(item: Object) -> list[Object]:
    """Return the ports of an EndpointSlice; one without a number means all of them, which nobody can listen on."""
    return [port for port in item.get("ports") or () if 0 < (port.get("port") or 0) < 1 << 16]


class Balancer:
    """Round robin over the endpoints of one Service port, with session affinity by client address.

    Attributes:
        endpoints: Those that take connections now.
        affinity_seconds: How long a client stays with its endpoint after its last connection; 0 for not at all.
    """

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.affinity_seconds = 0
        self._next = 0
        self._clients: dict[str, tuple[Endpoint, float]] = {}

    def candidates(self, client: str) -> list[Endpoint]:
        """Return all endpoints in the order in which to try them for a new connection of this client."""
        if not self.endpoints:
            return []
        self._next = (self._next + 1) % len(self.endpoints)
        order = self.endpoints[self._next :] + self.endpoints[: self._next]
        kept, until = self._clients.get(client, (None, 0.0))
        if self.affinity_seconds and kept in order and time.monotonic() < until:
            order.remove(kept)
            order.insert(0, kept)
        return order

    def connected(self, client: str, endpoint: Endpoint) -> None:
        """Remember where a client is connected, for its next connection."""
        if not self.affinity_seconds:
            self._clients.clear()
            return
        now = time.monotonic()
        if len(self._clients) > 1000:
            self._clients = {name: kept for name, kept in self._clients.items() if kept[1] > now}
        self._clients[client] = (endpoint, now + self.affinity_seconds)
