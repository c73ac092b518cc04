"""What a node checks before it takes a Pod that was bound to it.

Stands for the kubelet's admit handlers: number of Pods, CPU and memory (`OutOf...`), and devices.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from kitlib.cluster import quantity
from kitlib.cluster.kubelet.devices import RESOURCE
from kitlib.cluster.objects import Object

if TYPE_CHECKING:
    from kitlib.cluster.kubelet.node import Node, PodFacts

MAX_PODS = 110


class Rejected(Exception):  # noqa: N818
    """The node does not take a Pod.

    Attributes:
        reason: The Pod's `status.reason`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def requests(pod: Object, resource: str) -> Decimal:
    """Return what the scheduler counts for a Pod: the sum of its containers, or a larger init container."""
    spec = pod["spec"]
    running = sum((_request(c, resource) for c in spec["containers"]), Decimal(0))
    return max([running, *(_request(c, resource) for c in spec.get("initContainers") or [])])


def _request(container: Object, resource: str) -> Decimal:
    resources = container.get("resources") or {}
    value = (resources.get("requests") or {}).get(resource, (resources.get("limits") or {}).get(resource))
    return quantity.parse(value) if value is not None else Decimal(0)


def admit(node: Node, facts: PodFacts, uid: str) -> None:
    """Take a Pod and give its containers their devices.

    Raises:
        Rejected: Something does not suffice.
    """
    others = [pod for pod in node.active_pods() if pod["metadata"]["uid"] != uid]
    if len(others) >= MAX_PODS:
        _out_of("pods", 1, len(others), MAX_PODS)
    for resource, capacity, scale in (("cpu", node.config.cpus, 1000), ("memory", node.config.memory_bytes, 1)):
        wanted = requests(facts.pod, resource)
        used = sum((requests(pod, resource) for pod in others), Decimal(0))
        if wanted and used + wanted > capacity:
            _out_of(resource, int(wanted * scale), int(used * scale), int(capacity * scale))
    _give_devices(node, facts, uid)


def _out_of(resource: str, requested: int, used: int, capacity: int) -> None:
    raise Rejected(
        f"OutOf{resource}",
        f"Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}",
    )


def _give_devices(node: Node, facts: PodFacts, uid: str) -> None:
    spec = facts.pod["spec"]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        wanted = int(_request(container, RESOURCE))
        given = node.devices.allocate(f"{uid}/{container['name']}", wanted) if wanted else []
        if given is None:
            available = node.devices.count - node.devices.held()
            raise Rejected(
                "UnexpectedAdmissionError",
                f"Allocate failed due to requested number of devices unavailable for {RESOURCE}. "
                f"Requested: {wanted}, Available: {available}, which is unexpected",
            )
        facts.gpus[container["name"]] = given
