"""The addresses of Services: every connection to one is passed to a ready Pod behind it.

Stands for kube-proxy, in the manner of its first, user space mode: it listens on the address itself. ClusterIP,
NodePort (on 127.0.0.1 and on every node) and LoadBalancer; a connection that one Pod refuses is tried on
the next; an established connection stays where it is while its Pod terminates. Left out: `externalIPs`, traffic
policies and topology (a client has no node here), and the client's own address (Pods see 127.0.0.1).

Where an address can't be bound (one address for all on macOS, a port below 1024 without the right to it), the port
is mapped to a free one, which the Service's annotation `kit/port-map` tells.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import orjson

from kitlib.cluster.client import Client
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.informer import Controller, EventRecorder, Informers
from kitlib.cluster.objects import Key, Object, is_hollow, key_of
from kitlib.cluster.portmap import PORT_MAP, port_map
from kitlib.cluster.proxy.balancer import Balancer, endpoints_of
from kitlib.cluster.proxy.listener import Address, Budget, EndpointAddresses, Listener, ServicePort, listener_limit

RETRY_SECONDS = 10.0
LOAD_BALANCER_SUBNET = 127
"""Addresses of load balancers are 127.B.127.1 to .254."""

log = logging.getLogger(__name__)


class Proxy(Controller):
    """Listens on the addresses of all Services.

    Args:
        client: Where Services, EndpointSlices and Nodes are.
        config: The cluster.
    """

    name = "kube-proxy"

    def __init__(self, client: Client, config: ClusterConfig) -> None:
        """Prepare; `run` listens."""
        super().__init__(workers=1)
        self._config = config
        self._informers = Informers(client)
        self._client = self._informers.client(client)
        self._events = EventRecorder(client, self.name)
        self._services = self._informers("services")
        self._slices = self._informers("endpointslices.discovery.k8s.io")
        self._nodes = self._informers("nodes")
        self._ports: dict[Key, dict[str, ServicePort]] = {}
        self._refused: set[tuple[Key, Address]] = set()
        self._endpoints = EndpointAddresses(self._client, config)
        self._budget = Budget(listener_limit())
        self._starved: dict[Key, None] = {}

    async def run(self) -> None:
        """Serve until cancelled."""
        self._slices.add_index("service", _service_of)
        self._services.add_handler(lambda _, old, new: self.queue.add(key_of(new or old)))
        self._slices.add_handler(self._on_slice)
        self._nodes.add_handler(self._on_node)
        try:
            await self._informers.start()
            await super().run()
        finally:
            self._informers.stop()
            for ports in self._ports.values():
                for service_port in ports.values():
                    service_port.close()
            await self._events.close()

    def _on_slice(self, kind: str, old: Any, new: Any) -> None:
        for key in _service_keys(old, new):
            self.queue.add(key)

    def _on_node(self, kind: str, old: Any, new: Any) -> None:
        if kind == "MODIFIED" and _internal_ip(old) == _internal_ip(new):
            return
        for service in self._services.list():
            if service["spec"].get("type") in ("NodePort", "LoadBalancer"):
                self.queue.add(key_of(service))

    async def reconcile(self, key: Key) -> None:
        """Listen where the Service says, on behalf of the endpoints that it has now; let one that lacked room try."""
        self._starved.pop(key, None)
        await self._serve(key)
        if self._starved and self._budget.left():
            self.queue.add(next(iter(self._starved)))

    async def _serve(self, key: Key) -> None:
        service = self._services.get(*key)
        if service is None or service["spec"].get("type") == "ExternalName" or not _cluster_ip(service):
            for service_port in self._ports.pop(key, {}).values():
                service_port.close()
            self._refused = {item for item in self._refused if item[0] != key}
            return
        balancer_ip = await self._load_balancer_ip(service)
        ports = self._ports.setdefault(key, {})
        wanted = {_port_id(port): port for port in service["spec"].get("ports") or ()}
        for name in set(ports) - set(wanted):
            ports.pop(name).close()
        slices = self._slices.indexed("service", "/".join(key))
        for name, port in wanted.items():
            service_port = ports.setdefault(name, ServicePort(Balancer(), key[0]))
            service_port.balancer.endpoints = endpoints_of(slices, port.get("name") or "")
            service_port.balancer.affinity_seconds = _affinity(service["spec"])
            self._open(service, port, service_port, balancer_ip)
        await self._publish_port_map(service, ports.values())
        for service_port in ports.values():
            for address, listener in list(service_port.listeners.items()):
                try:
                    await listener.accept(service_port, self._endpoints)
                except OSError as error:
                    service_port.listeners.pop(address).close()
                    self._report(service, address, error)

    def _open(self, service: Object, port: Object, service_port: ServicePort, balancer_ip: str) -> None:
        """Make the open sockets of a Service port those that it should have."""
        listeners = service_port.listeners
        protocol = port.get("protocol") or "TCP"
        wanted = [(host, number, protocol) for host, number in self._addresses(service, port, balancer_ip)]
        for address in set(listeners) - set(wanted):
            listeners.pop(address).close()
        known = port_map(service)
        for address in wanted:
            if address not in listeners:
                listener = self._listen(service, address, known.get(str(address[1])))
                if listener is not None:
                    listeners[address] = listener

    def _addresses(self, service: Object, port: Object, balancer_ip: str) -> Iterable[tuple[str, int]]:
        spec = service["spec"]
        yield spec["clusterIP"], port["port"]
        if balancer_ip:
            yield balancer_ip, port["port"]
        if port.get("nodePort") and spec.get("type") in ("NodePort", "LoadBalancer"):
            hosts = {"127.0.0.1"}
            if self._config.loopback == "multi":
                hosts |= {_internal_ip(node) for node in self._nodes.list()}
            for host in sorted(hosts - {""}):
                yield host, port["nodePort"]

    def _listen(self, service: Object, address: Address, mapped: int | None) -> Listener | None:
        host, port, protocol = address
        if not self._budget.left():
            self._starve(service)
            return None
        single = self._config.loopback == "single" and host != "127.0.0.1"
        choices = [("127.0.0.1", mapped or 0), ("127.0.0.1", 0)] if single else [(host, port)]
        if not single and port < 1024:
            choices += [(host, mapped or 0), (host, 0)]
        error: OSError | None = None
        for where, number in choices:
            try:
                listener = Listener(where, number, protocol, self._budget)
            except OSError as refused:
                error = error or refused
                continue
            self._refused.discard((key_of(service), address))
            return listener
        self._report(service, address, error)
        return None

    def _starve(self, service: Object) -> None:
        """Tell once that a Service needs more sockets than are left; it is tried again when another one ends."""
        if key_of(service) in self._starved:
            return
        self._starved[key_of(service)] = None
        message = (
            f"kube-proxy of this cluster listens on at most {self._budget.limit} addresses, and all are taken: "
            "some ports of this Service are not served; delete Services or ports that nobody needs"
        )
        self._events.event({"apiVersion": "v1", "kind": "Service", **service}, "Warning", "FailedToBindPort", message)

    def _report(self, service: Object, address: Address, error: OSError | None) -> None:
        key = key_of(service)
        self.queue.add_after(key, RETRY_SECONDS)
        if (key, address) in self._refused:
            return
        self._refused.add((key, address))
        reason = error.strerror if error else ""
        message = f"can't listen on {address[0]}:{address[1]}/{address[2]}, skipping it: {reason}"
        log.warning("service %s/%s: %s", *key, message)
        about = {"apiVersion": "v1", "kind": "Service", **service}
        self._events.event(about, "Warning", "FailedToBindPort", message)

    async def _publish_port_map(self, service: Object, ports: Iterable[ServicePort]) -> None:
        opened = [item for service_port in ports for item in service_port.listeners.items()]
        mapped = {str(address[1]): listener.port for address, listener in opened if listener.port != address[1]}
        if mapped == port_map(service):
            return
        value = orjson.dumps(mapped).decode() if mapped else None
        patch = {"metadata": {"annotations": {PORT_MAP: value}}}
        await self._client.patch("services", service["metadata"]["name"], patch, service["metadata"]["namespace"])

    async def _load_balancer_ip(self, service: Object) -> str:
        """Return the address of a load balancer, given now if there is none yet; empty for other types."""
        current = _ingress(service)
        wanted = ""
        if service["spec"].get("type") == "LoadBalancer":
            taken = {_ingress(other) for other in self._services.list()}
            pool = (f"127.{self._config.block}.{LOAD_BALANCER_SUBNET}.{number}" for number in range(1, 255))
            wanted = current or next((address for address in pool if address not in taken), "")
        if wanted != current:
            ingress = [{"ip": wanted, "ipMode": "VIP"}] if wanted else None
            patch = {"status": {"loadBalancer": {"ingress": ingress}}}
            meta = service["metadata"]
            await self._client.patch("services", meta["name"], patch, meta["namespace"], subresource="status")
        return wanted


def _service_of(endpointslice: Object) -> list[str]:
    meta = endpointslice["metadata"]
    name = (meta.get("labels") or {}).get("kubernetes.io/service-name")
    return [f"{meta['namespace']}/{name}"] if name else []


def _service_keys(*slices: Object | None) -> set[Key]:
    names = {name for item in slices if item is not None for name in _service_of(item)}
    return {(name.split("/")[0], name.split("/")[1]) for name in names}


def _cluster_ip(service: Object) -> str:
    address = service["spec"].get("clusterIP") or ""
    return "" if address == "None" else str(address)


def _ingress(service: Object) -> str:
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [{}]
    return str(ingress[0].get("ip", ""))


def _internal_ip(node: Object) -> str:
    if is_hollow(node):
        return ""
    addresses = (node.get("status") or {}).get("addresses") or ()
    return next((str(item["address"]) for item in addresses if item["type"] == "InternalIP"), "")


def _port_id(port: Object) -> str:
    return f"{port.get('name') or ''}:{port['port']}/{port.get('protocol') or 'TCP'}"


def _affinity(spec: Object) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(config.get("timeoutSeconds") or 10800)
