"""Endpoints: the old form of EndpointSlices, one object per Service under its name.

Stands for `pkg/controller/endpoint`. The rule: ready addresses and others are listed apart, grouped by ports. Still
written because `kubectl get endpoints` and older clients read it.
"""

from __future__ import annotations

from typing import Any

from kitlib.cluster.client import ignoring
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.controllers.servicepods import (
    Ports,
    ServiceController,
    host_name,
    is_managed,
    is_serving,
    labels_of,
    ports_for,
    target_reference,
)
from kitlib.cluster.objects import Key, Object, is_deleting, key_of

MANAGED_BY = "endpoints.kubernetes.io/managed-by"


class EndpointsController(ServiceController):
    name = "endpoint-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self._endpoints = ctx.informers("endpoints")
        self._endpoints.add_handler(self._endpoints_changed)

    def _endpoints_changed(self, kind: str, _: Object | None, item: Object) -> None:
        if kind == "DELETED":
            self.queue.add(key_of(item))

    async def reconcile(self, key: Key) -> None:
        """Write the Endpoints of a Service, or remove them with it."""
        service, present = self._services.get(*key), self._endpoints.get(*key)
        if service is None:
            if present is not None and MANAGED_BY in (present["metadata"].get("labels") or {}):
                await self._delete(key)
            return
        if is_deleting(service) or not is_managed(service):
            return
        labels = {**labels_of(service), MANAGED_BY: "endpoint-controller"}
        subsets = self._subsets(service)
        if present is None:
            metadata: Object = {"name": key[1], "namespace": key[0], "labels": labels}
            wanted = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
            await self._ctx.client.create("endpoints", wanted, key[0])
        elif (present.get("subsets") or []) != subsets or present["metadata"].get("labels") != labels:
            metadata = {**present["metadata"], "labels": labels}
            await self._ctx.client.update("endpoints", {**present, "metadata": metadata, "subsets": subsets})

    async def _delete(self, key: Key) -> None:
        with ignoring(404):
            await self._ctx.client.delete("endpoints", key[1], key[0])

    def _subsets(self, service: Object) -> list[Object]:
        groups: dict[Ports, Object] = {}
        for pod in self._pods_behind(service):
            ready, _ = is_serving(pod, service)
            ports = ports_for(service, pod)
            field = "addresses" if ready else "notReadyAddresses"
            if ready or not is_deleting(pod):
                groups.setdefault(ports, {}).setdefault(field, []).append(_address(pod, service))
        return [
            {**addresses, **({"ports": [_port(port) for port in ports]} if ports else {})}
            for ports, addresses in groups.items()
        ]


def _address(pod: Object, service: Object) -> Object:
    address: Object = {"ip": pod["status"]["podIP"], "targetRef": target_reference(pod)}
    if host_name(pod, service):
        address["hostname"] = host_name(pod, service)
    if pod["spec"].get("nodeName"):
        address["nodeName"] = pod["spec"]["nodeName"]
    return address


def _port(port: tuple[str, int, str, str]) -> Object:
    fields: dict[str, Any] = dict(zip(("name", "port", "protocol", "appProtocol"), port, strict=True))
    return {field: value for field, value in fields.items() if value}
