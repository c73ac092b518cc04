"""Which Pods stand behind a Service, and under which ports: what `endpointslice.py` and `endpoints.py` share."""

from __future__ import annotations

from abc import ABC
from typing import Any

from kitlib.cluster.controllers.common import Context
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Object, is_deleting, is_finished, is_ready, is_sidecar, key_of

Ports = tuple[tuple[str, int, str, str], ...]
"""Name, number, protocol and application protocol of each port."""

HEADLESS = "service.kubernetes.io/headless"


class ServiceController(Controller, ABC):
    """A controller with one key per Service, queued when the Service or a Pod behind it changes."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._services = ctx.informers("services")
        self._pods = ctx.informers("pods")
        self._services.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, kind: str, old: Object | None, pod: Object) -> None:
        if kind == "MODIFIED" and old is not None and _view(old) == _view(pod):
            return
        for service in self._services.list(pod["metadata"]["namespace"]):
            if any(_selects(service, each) for each in (old, pod) if each is not None):
                self.add_dependent(key_of(service))

    def _pods_behind(self, service: Object) -> list[Object]:
        """Return the Pods with an address that the Service selects, by name."""
        selector = {"matchLabels": service["spec"]["selector"]}
        pods = self._pods.select(service["metadata"]["namespace"], selector)
        self.sizes[key_of(service)] = len(pods)
        return sorted(filter(_has_address, pods), key=lambda pod: str(pod["metadata"]["name"]))


def is_managed(service: Object) -> bool:
    """Tell whether endpoints follow from the Service's selector."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"


def labels_of(service: Object) -> dict[str, str]:
    """Return the labels that endpoints take over from their Service."""
    labels = dict(service["metadata"].get("labels") or {})
    labels.pop(HEADLESS, None)
    return {**labels, HEADLESS: ""} if service["spec"].get("clusterIP") == "None" else labels


def is_serving(pod: Object, service: Object) -> tuple[bool, bool]:
    """Return `(ready, serving)`: a Pod being deleted is not ready, though it may still serve."""
    anyway = bool(service["spec"].get("publishNotReadyAddresses"))
    serving = anyway or is_ready(pod)
    return anyway or (serving and not is_deleting(pod)), serving


def host_name(pod: Object, service: Object) -> str:
    """Return the name that DNS gives the Pod within a headless Service, empty when none."""
    spec = pod["spec"]
    return str(spec.get("hostname", "")) if spec.get("subdomain") == service["metadata"]["name"] else ""


def ports_for(service: Object, pod: Object) -> Ports:
    """Return the Service's ports as this Pod has them; named target ports are looked up in its containers."""
    found = []
    for port in service["spec"].get("ports") or ():
        number = _target(port, pod)
        if number is not None:
            name, protocol = port.get("name", ""), port.get("protocol", "TCP")
            found.append((name, number, protocol, port.get("appProtocol", "")))
    return tuple(found)


def _target(port: Object, pod: Object) -> int | None:
    target: Any = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    sidecars = [item for item in pod["spec"].get("initContainers") or () if is_sidecar(item)]
    for container in [*pod["spec"]["containers"], *sidecars]:
        for item in container.get("ports") or ():
            if item.get("name") == target and item.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(item["containerPort"])
    return None


def target_reference(pod: Object) -> Object:
    """Return the `targetRef` of an endpoint."""
    metadata = pod["metadata"]
    return {"kind": "Pod", **{field: metadata[field] for field in ("namespace", "name", "uid")}}


def _has_address(pod: Object) -> bool:
    return bool((pod.get("status") or {}).get("podIP")) and not is_finished(pod)


def _selects(service: Object, pod: Object) -> bool:
    selector = service["spec"].get("selector")
    return bool(selector) and selector.items() <= (pod["metadata"].get("labels") or {}).items()


def _view(pod: Object) -> tuple[Any, ...]:
    status, metadata = pod.get("status") or {}, pod["metadata"]
    return status.get("podIP"), is_ready(pod), is_finished(pod), is_deleting(pod), metadata.get("labels")
