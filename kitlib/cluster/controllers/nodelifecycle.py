"""Node lifecycle: notices that a node is silent, and says so with conditions and taints.

Stands for `pkg/controller/nodelifecycle`. The rules: a node whose Lease was not renewed for
`node_monitor_grace_period` gets all conditions Unknown (`NodeStatusUnknown`); the Pods of a node that is not Ready are
not Ready either; taints follow the conditions: `not-ready` (Ready is False) or `unreachable` (Ready is Unknown),
both NoSchedule and NoExecute, pressure taints, and `unschedulable` for a cordoned node. Eviction is the business of
`tainteviction.py`. Hollow nodes have no kubelet and are left alone. Left out: zones and eviction rates.
"""

from __future__ import annotations

import asyncio

from kitlib.cluster.client import ignoring
from kitlib.cluster.clock import rfc3339
from kitlib.cluster.controllers.common import Context, node_index
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, condition, is_finished, is_hollow, is_ready, key_of
from kitlib.cluster.placement import taints_of

LEASES = "leases.coordination.k8s.io"
LEASE_NAMESPACE = "kube-node-lease"
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
PRESSURE = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
MANAGED = {NOT_READY, UNREACHABLE, UNSCHEDULABLE, *PRESSURE.values()}
WATCHED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


class NodeLifecycleController(Controller):
    name = "node-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=2)
        self._ctx = ctx
        self._nodes, self._pods = ctx.informers("nodes"), ctx.informers("pods")
        self._pods.add_index("node", node_index)
        self._seen: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._nodes.add_handler(self._node_changed)
        ctx.informers(LEASES).add_handler(self._lease_changed)

    def _node_changed(self, kind: str, _: Object | None, node: Object) -> None:
        name = node["metadata"]["name"]
        if kind == "DELETED":
            self._seen.pop(name, None)
            return
        if name not in self._seen:
            self._seen[name] = self._ctx.clock.monotonic()
            message = f"Node {name} event: Registered Node {name} in Controller"
            self._ctx.events.event(node, "Normal", "RegisteredNode", message)
        self.queue.add(key_of(node))

    def _lease_changed(self, kind: str, old: Object | None, lease: Object) -> None:
        """A renewal counts from when it is seen, so that the clocks of nodes do not matter."""
        renewed = old is None or _renewed_at(old) != _renewed_at(lease)
        if lease["metadata"]["namespace"] == LEASE_NAMESPACE and kind != "DELETED" and renewed:
            self._seen[lease["metadata"]["name"]] = self._ctx.clock.monotonic()

    async def reconcile(self, key: Key) -> None:
        """Judge one node, and come back when its grace period would be over."""
        node = self._nodes.get(*key)
        if node is None:
            return
        if not is_hollow(node):
            node = await self._judge(key, node)
        await self._taint(node)
        ready = condition(node, "Ready")
        if ready is not None and ready["status"] != "True":
            await self._mark_pods_not_ready(node)

    async def _judge(self, key: Key, node: Object) -> Object:
        settings, name = self._ctx.config.settings, node["metadata"]["name"]
        left = self._seen[name] + settings.node_monitor_grace_period - self._ctx.clock.monotonic()
        if left > 0:
            self.queue.add_after(key, max(left, settings.node_monitor_period))
            return node
        status = unknown_status(node, self._ctx.clock.now())
        if status == (node.get("status") or {}):
            return node
        return await self._ctx.client.update("nodes", {**node, "status": status}, subresource="status")

    async def _taint(self, node: Object) -> None:
        taints = wanted_taints(node, self._ctx.clock.now())
        if taints == taints_of(node):
            return
        metadata = {"resourceVersion": node["metadata"]["resourceVersion"]}
        patch = {"metadata": metadata, "spec": {"taints": taints or None}}
        await self._ctx.client.patch("nodes", node["metadata"]["name"], patch)

    async def _mark_pods_not_ready(self, node: Object) -> None:
        name = node["metadata"]["name"]
        pods = [pod for pod in self._pods.indexed("node", name) if is_ready(pod) and not is_finished(pod)]
        ready = condition(node, "Ready") or {}
        await asyncio.gather(*(self._mark_not_ready(pod) for pod in pods))
        if self._told.get(name) != ready.get("lastTransitionTime"):
            self._told[name] = ready.get("lastTransitionTime", "")
            self._ctx.events.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")

    async def _mark_not_ready(self, pod: Object) -> None:
        namespace, name = key_of(pod)
        conditions = [
            {**item, "status": "False", "lastTransitionTime": rfc3339(self._ctx.clock.now())}
            if item["type"] == "Ready"
            else item
            for item in pod["status"]["conditions"]
        ]
        metadata = {"resourceVersion": pod["metadata"]["resourceVersion"]}
        patch = {"metadata": metadata, "status": {"conditions": conditions}}
        with ignoring(404):
            await self._ctx.client.patch("pods", name, patch, namespace, subresource="status")
        self._ctx.events.event(pod, "Warning", "NodeNotReady", "Node is not ready")


def unknown_status(node: Object, now: float) -> Object:
    """Return the status of a node that has gone silent."""
    status = node.get("status") or {}
    conditions = list(status.get("conditions") or ())
    present = {item["type"] for item in conditions}
    changed = [
        item if item["type"] not in WATCHED or item["status"] == "Unknown" else _unknown(item, now)
        for item in conditions
    ]
    for kind in WATCHED:
        if kind not in present:
            never = {"reason": "NodeStatusNeverUpdated", "message": "Kubelet never posted node status."}
            stamps = {"lastHeartbeatTime": node["metadata"]["creationTimestamp"], "lastTransitionTime": rfc3339(now)}
            changed.append({"type": kind, "status": "Unknown", **never, **stamps})
    return {**status, "conditions": changed}


def _unknown(item: Object, now: float) -> Object:
    why = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
    return {**item, "status": "Unknown", **why, "lastTransitionTime": rfc3339(now)}


def wanted_taints(node: Object, now: float) -> list[Object]:
    """Return the node's taints: those of others as they are, those of this controller as the conditions say."""
    present = taints_of(node)
    wanted: list[tuple[str, str]] = []
    ready = condition(node, "Ready")
    if ready is None or ready["status"] == "False":
        wanted += [(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]
    elif ready["status"] == "Unknown":
        wanted += [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
    for kind, key in PRESSURE.items():
        if (condition(node, kind) or {}).get("status") == "True":
            wanted.append((key, "NoSchedule"))
    if (node.get("spec") or {}).get("unschedulable"):
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    kept = [taint for taint in present if taint["key"] not in MANAGED or (taint["key"], taint["effect"]) in wanted]
    known = {(taint["key"], taint["effect"]) for taint in kept}
    stamp = {"timeAdded": rfc3339(now)}
    return kept + [{"key": key, "effect": effect, **stamp} for key, effect in wanted if (key, effect) not in known]


def _renewed_at(lease: Object) -> str | None:
    return (lease.get("spec") or {}).get("renewTime")
