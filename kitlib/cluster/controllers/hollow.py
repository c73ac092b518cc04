"""Hollow nodes: Pods bound to nodes without a process are marked as running.

Stands for KWOK. The rule: a Pod on a node with the label `kit/hollow=true` becomes Running and Ready, with an Event
that says that nothing runs, and goes at once when it is deleted. It gets no address, so no Service sends it anything.
"""

from __future__ import annotations

from kitlib.cluster.client import ignoring
from kitlib.cluster.clock import rfc3339
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, is_deleting, is_finished, is_hollow, key_of, phase


class HollowController(Controller):
    name = "hollow-node"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._nodes, self._pods = ctx.informers("nodes"), ctx.informers("pods")
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, kind: str, _: Object | None, pod: Object) -> None:
        unsettled = phase(pod) == "Pending" or is_deleting(pod)
        if kind != "DELETED" and unsettled and pod["spec"].get("nodeName"):
            self.queue.add(key_of(pod))

    async def reconcile(self, key: Key) -> None:
        """Mark a Pod as running, or complete its deletion."""
        pod = self._pods.get(*key)
        node = self._nodes.get("", pod["spec"].get("nodeName") or "") if pod else None
        if pod is None or node is None or not is_hollow(node):
            return
        namespace, name = key
        with ignoring(404):
            if is_deleting(pod):
                uid = pod["metadata"]["uid"]
                await self._ctx.client.delete("pods", name, namespace, grace_period_seconds=0, uid=uid)
            elif not is_finished(pod):
                await self._run(pod, node["metadata"]["name"])

    async def _run(self, pod: Object, node: str) -> None:
        now = rfc3339(self._ctx.clock.now())
        types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        conditions = [
            {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now} for kind in types
        ]
        statuses = [_container_status(container, now) for container in pod["spec"]["containers"]]
        status = {**(pod.get("status") or {}), "phase": "Running", "startTime": now}
        status.update(conditions=conditions, containerStatuses=statuses)
        await self._ctx.client.update("pods", {**pod, "status": status}, subresource="status")
        text = f"Node {node} is hollow: nothing runs, the Pod is only marked as running"
        self._ctx.events.event(pod, "Normal", "Hollow", text)


def _container_status(container: Object, now: str) -> Object:
    name, image = container["name"], container["image"]
    fixed = {"ready": True, "started": True, "restartCount": 0, "lastState": {}}
    return {"name": name, "image": image, "imageID": "", **fixed, "state": {"running": {"startedAt": now}}}
