"""EndpointSlice: the addresses behind each Service, at most a hundred to a slice.

Stands for `pkg/controller/endpointslice`. The rule: each Pod that a Service selects and that has an address is an
endpoint; it is `ready` while it is ready and not being deleted. Pods whose named ports have different numbers go to
different slices. A Service without any endpoint keeps one empty slice.
"""

from __future__ import annotations

from typing import Any

from kitlib.cluster.client import ignoring
from kitlib.cluster.clock import rfc3339
from kitlib.cluster.controllers.common import Context, owner_reference
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

SLICES = "endpointslices.discovery.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
SLICE_SIZE = 100


class EndpointSliceController(ServiceController):
    name = "endpointslice-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self._slices = ctx.informers(SLICES)
        self._slices.add_handler(self._slice_changed)

    def _slice_changed(self, kind: str, _: Object | None, item: Object) -> None:
        labels = item["metadata"].get("labels") or {}
        if kind == "DELETED" and labels.get(MANAGED_BY) == MANAGER:
            self.queue.add((item["metadata"]["namespace"], labels.get(SERVICE_NAME, "")))

    async def reconcile(self, key: Key) -> None:
        """Write the slices that should be, reuse those that are, delete those too many."""
        service = self._services.get(*key)
        if service is None or is_deleting(service) or not is_managed(service):
            return
        wanted = self._wanted(service)
        for item in self._present(service):
            ports = _ports_of(item)
            if wanted.get(ports):
                await self._update(service, item, ports, wanted[ports].pop(0))
            elif not any(wanted.values()):
                await self._delete(item)
            else:
                ports = next(ports for ports, chunks in wanted.items() if chunks)
                await self._update(service, item, ports, wanted[ports].pop(0))
        for ports, chunks in wanted.items():
            for endpoints in chunks:
                await self._create(service, ports, endpoints)

    def _present(self, service: Object) -> list[Object]:
        namespace, name = key_of(service)
        selector = {"matchLabels": {SERVICE_NAME: name, MANAGED_BY: MANAGER}}
        found = [item for item in self._slices.select(namespace, selector) if not is_deleting(item)]
        return sorted(found, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))

    def _wanted(self, service: Object) -> dict[Ports, list[list[Object]]]:
        groups: dict[Ports, list[Object]] = {}
        for pod in self._pods_behind(service):
            groups.setdefault(ports_for(service, pod), []).append(_endpoint(pod, service))
        if not groups:
            return {(): [[]]}
        return {
            ports: [endpoints[start : start + SLICE_SIZE] for start in range(0, len(endpoints), SLICE_SIZE)]
            for ports, endpoints in groups.items()
        }

    def _slice(self, service: Object, ports: Ports, endpoints: list[Object]) -> Object:
        labels = {**labels_of(service), SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: MANAGER}
        metadata = {
            "generateName": f"{service['metadata']['name']}-",
            "namespace": service["metadata"]["namespace"],
            "labels": labels,
            "annotations": {TRIGGER: rfc3339(self._ctx.clock.now())},
            "ownerReferences": [owner_reference(service)],
        }
        kind: Object = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
        return {**kind, "addressType": "IPv4", "endpoints": endpoints, "ports": [_port(port) for port in ports]}

    async def _create(self, service: Object, ports: Ports, endpoints: list[Object]) -> None:
        wanted = self._slice(service, ports, endpoints)
        await self._ctx.client.create(SLICES, wanted, service["metadata"]["namespace"])

    async def _update(self, service: Object, item: Object, ports: Ports, endpoints: list[Object]) -> None:
        wanted = self._slice(service, ports, endpoints)
        same = all((item.get(field) or []) == wanted[field] for field in ("endpoints", "ports"))
        if same and item["metadata"].get("labels") == wanted["metadata"]["labels"]:
            return
        metadata = {**item["metadata"], "labels": wanted["metadata"]["labels"]}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **wanted["metadata"]["annotations"]}
        await self._ctx.client.update(SLICES, {**item, **wanted, "metadata": metadata})

    async def _delete(self, item: Object) -> None:
        namespace, name = key_of(item)
        with ignoring(404):
            await self._ctx.client.delete(SLICES, name, namespace, uid=item["metadata"]["uid"])


def _endpoint(pod: Object, service: Object) -> Object:
    ready, serving = is_serving(pod, service)
    endpoint: dict[str, Any] = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": serving, "terminating": is_deleting(pod)},
        "targetRef": target_reference(pod),
    }
    if host_name(pod, service):
        endpoint["hostname"] = host_name(pod, service)
    if pod["spec"].get("nodeName"):
        endpoint["nodeName"] = pod["spec"]["nodeName"]
    return endpoint


def _port(port: tuple[str, int, str, str]) -> Object:
    fields = dict(zip(("name", "port", "protocol", "appProtocol"), port, strict=True))
    return {field: value for field, value in fields.items() if value or field == "name"}


def _ports_of(item: Object) -> Ports:
    ports = item.get("ports") or ()
    return tuple((p.get("name") or "", p["port"], p.get("protocol", "TCP"), p.get("appProtocol") or "") for p in ports)
