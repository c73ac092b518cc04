"""Addresses of Pods: one of the node's own in 127.0.0.0/8, or ports of 127.0.0.1 where there is only that one.

Stands for the network plugin (CNI) and its address management.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from kitlib.cluster.config import NodeConfig

FIRST, LAST = 2, 254


class Addresses:
    """The addresses and ports of one node's Pods.

    Args:
        config: The node.
    """

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._used: set[str] = set()
        self._next = FIRST

    @property
    def shared(self) -> bool:
        """Whether all Pods share one address and ports are mapped."""
        return self._config.cluster.loopback == "single"

    def allocate(self, host_network: bool = False) -> str:
        """Return an address for a Pod.

        Raises:
            OSError: None is free.
        """
        if self.shared or host_network:
            return self._config.internal_ip
        for _ in range(FIRST, LAST + 1):
            address = f"127.{self._config.cluster.block}.{self._config.index}.{self._next}"
            self._next = FIRST + (self._next + 1 - FIRST) % (LAST + 1 - FIRST)
            if address not in self._used:
                self._used.add(address)
                return address
        raise OSError(errno.EADDRNOTAVAIL, "no IP addresses available in range set")

    def keep(self, address: str) -> None:
        """Note an address that a Pod already has."""
        self._used.add(address)

    def release(self, address: str) -> None:
        """Give an address back."""
        self._used.discard(address)

    def map_ports(self, address: str, ports: Iterable[int]) -> dict[int, int]:
        """Return free local ports for those that cannot be bound on the Pod's own address."""
        mapped = [port for port in dict.fromkeys(ports) if self.shared or not _bindable(address, port)]
        return {port: _free_port(address) for port in mapped}


def _free_port(address: str) -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port


def _bindable(address: str, port: int) -> bool:
    """Tell whether this user may bind a port; only those below 1024 are tried."""
    if port >= 1024:
        return True
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except PermissionError:
            return False
        except OSError:
            return True
    return True
