"""Addresses and node ports of Services.

Stands for the ClusterIP and NodePort allocators of kube-apiserver. What is taken is read from the Services
themselves, so nothing can leak. Left out: IPv6, load balancers, `healthCheckNodePort`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from kitlib.cluster.apiserver.errors import Cause
from kitlib.cluster.objects import Object

NODE_PORTS = range(30000, 32768)


def service_network(block: int) -> IPv4Network:
    """Return the cluster's Service addresses, 127.B.128.0/17; its first one is that of `kubernetes`."""
    return IPv4Network(f"127.{block}.128.0/17")


def allocate(service: Object, others: Iterable[Object], network: IPv4Network) -> list[Cause]:
    """Give a Service the addresses and ports that it needs and does not name.

    Args:
        service: A new or changed Service with its defaults; changed in place.
        others: All other Services.
        network: Range of Service addresses.

    Returns:
        What is wrong with the address or ports that it does name.
    """
    spec = service.setdefault("spec", {})
    taken = list(others)
    if spec.get("type") == "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(field, None)
        return []
    causes = _allocate_address(spec, taken, network)
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        causes += _allocate_ports(spec, taken)
    return causes


def keep_allocated(new: Object, old: Object) -> None:
    """Carry address and node ports over to an update that leaves them out; drop what its new type has not."""
    spec, before = new.setdefault("spec", {}), old.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return
    if not spec.get("clusterIP") and before.get("clusterIP"):
        spec["clusterIP"], spec["clusterIPs"] = before["clusterIP"], before.get("clusterIPs", [])
    if spec.get("type") == "ClusterIP" and spec.get("externalTrafficPolicy") == before.get("externalTrafficPolicy"):
        spec.pop("externalTrafficPolicy", None)
    ports = {_port_key(port): port.get("nodePort") for port in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        known = ports.get(_port_key(port))
        if spec.get("type") not in ("NodePort", "LoadBalancer"):
            if known and port.get("nodePort") == known:
                del port["nodePort"]
        elif not port.get("nodePort") and known:
            port["nodePort"] = known


def _port_key(port: Object) -> tuple[Any, str]:
    return port.get("port"), port.get("protocol") or "TCP"


def _allocate_address(spec: Object, others: list[Object], network: IPv4Network) -> list[Cause]:
    taken = {each["spec"].get("clusterIP") for each in others}
    address = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
    causes: list[Cause] = []
    if not address:
        address = _free_address(taken, network)
    elif address != "None":
        why = _refusal(address, taken, network)
        if why:
            message = f'Invalid value: ["{address}"]: failed to allocate IP {address}: {why}'
            causes.append({"reason": "FieldValueInvalid", "message": message, "field": "spec.clusterIPs"})
    spec["clusterIP"], spec["clusterIPs"] = address, [address]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    return causes


def _refusal(address: str, taken: set[str | None], network: IPv4Network) -> str:
    try:
        inside = IPv4Address(address) in network
    except ValueError:
        inside = False
    if not inside:
        return f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {network}"
    return "provided IP is already allocated" if address in taken else ""


def _free_address(taken: set[str | None], network: IPv4Network) -> str:
    while True:
        address = str(network[random.randrange(10, network.num_addresses - 1)])
        if address not in taken:
            return address


def _allocate_ports(spec: Object, others: list[Object]) -> list[Cause]:
    taken = {port["nodePort"] for each in others for port in each["spec"].get("ports") or () if port.get("nodePort")}
    causes: list[Cause] = []
    free = random.sample(NODE_PORTS, len(NODE_PORTS))
    for index, port in enumerate(spec.get("ports") or ()):
        asked = port.get("nodePort")
        if not asked:
            while free and free[-1] in taken:
                free.pop()
            if not free:
                why, field = "failed to allocate a nodePort: range is full", f"spec.ports[{index}].nodePort"
                return [{"reason": "FieldValueInvalid", "message": f"Invalid value: 0: {why}", "field": field}]
            port["nodePort"] = asked = free.pop()
        elif asked not in NODE_PORTS or asked in taken:
            why = "provided port is already allocated"
            if asked not in NODE_PORTS:
                why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
            field = f"spec.ports[{index}].nodePort"
            causes.append({"reason": "FieldValueInvalid", "message": f"Invalid value: {asked}: {why}", "field": field})
        taken.add(asked)
    return causes
