"""Taint eviction: deletes Pods from nodes whose NoExecute taints they do not tolerate, or no longer.

Stands for `pkg/controller/tainteviction`. The rule: a Pod may stay for the shortest `tolerationSeconds` among the
tolerations that it needs, counted from when the taint was added; without the tolerations, not at all. The Pod is
only marked for deletion: it stays Terminating until its kubelet, or a forced deletion, removes it.
"""

from __future__ import annotations

from kitlib.cluster.client import ignoring
from kitlib.cluster.clock import parse_time, rfc3339
from kitlib.cluster.controllers.common import Context, node_index, with_condition
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, is_deleting, is_finished, key_of
from kitlib.cluster.placement import covers, taints_of


class TaintEvictionController(Controller):
    name = "taint-eviction-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=2)
        self._ctx = ctx
        self._nodes, self._pods = ctx.informers("nodes"), ctx.informers("pods")
        self._pods.add_index("node", node_index)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    def _node_changed(self, kind: str, old: Object | None, node: Object) -> None:
        if kind != "DELETED" and no_execute_taints(node) and (old is None or old.get("spec") != node.get("spec")):
            for pod in self._pods.indexed("node", node["metadata"]["name"]):
                self.queue.add(key_of(pod))

    def _pod_changed(self, kind: str, old: Object | None, pod: Object) -> None:
        node = pod["spec"].get("nodeName")
        newly = (
            old is None
            or not old["spec"].get("nodeName")
            or old["spec"].get("tolerations") != pod["spec"].get("tolerations")
        )
        if kind != "DELETED" and node and newly:
            self.queue.add(key_of(pod))

    async def reconcile(self, key: Key) -> None:
        """Evict one Pod when its time is over."""
        pod = self._pods.get(*key)
        node = self._nodes.get("", pod["spec"].get("nodeName") or "") if pod else None
        if pod is None or node is None or is_deleting(pod) or is_finished(pod):
            return
        due = eviction_time(no_execute_taints(node), pod["spec"].get("tolerations") or [])
        if due is None:
            return
        left = due - self._ctx.clock.now()
        if left > 0:
            self.queue.add_after(key, left)
        else:
            await self._evict(pod)

    async def _evict(self, pod: Object) -> None:
        namespace, name = key_of(pod)
        text = f"Marking for deletion Pod {namespace}/{name}"
        self._ctx.events.event(pod, "Normal", "TaintManagerEviction", text)
        now = self._ctx.clock.now()
        message = "Taint manager: deleting due to NoExecute taint"
        conditions = with_condition(
            (pod.get("status") or {}).get("conditions") or (),
            "DisruptionTarget",
            "True",
            "DeletionByTaintManager",
            message,
            now,
            lastProbeTime=rfc3339(now),
        )
        uid = pod["metadata"]["uid"]
        metadata = {"uid": uid, "resourceVersion": pod["metadata"]["resourceVersion"]}
        patch = {"metadata": metadata, "status": {"conditions": conditions}}
        with ignoring(404):
            await self._ctx.client.patch("pods", name, patch, namespace, subresource="status")
            await self._ctx.client.delete("pods", name, namespace, uid=uid)


def no_execute_taints(node: Object) -> list[Object]:
    """Return the node's taints with effect NoExecute."""
    return [taint for taint in taints_of(node) if taint["effect"] == "NoExecute"]


def eviction_time(taints: list[Object], tolerations: list[Object]) -> float | None:
    """Return when a Pod has to leave, in seconds since the epoch; 0 for at once, None for never."""
    times: list[float] = []
    for taint in taints:
        matching = [toleration for toleration in tolerations if covers(toleration, taint)]
        if not matching:
            return 0.0
        seconds = [item["tolerationSeconds"] for item in matching if item.get("tolerationSeconds") is not None]
        if seconds:
            added = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else 0.0
            times.append(added + max(0, min(seconds)))
    return min(times, default=None)
