"""Pod garbage collector: removes Pods that no kubelet will ever remove.

Stands for `pkg/controller/podgc`. The rules: a Pod bound to a Node object that no longer exists is marked Failed and
deleted; a Pod being deleted that was never bound goes at once; of finished Pods at most `TERMINATED_LIMIT` are kept,
the oldest go first.
"""

from __future__ import annotations

from kitlib.cluster.client import ApiError, ignoring
from kitlib.cluster.clock import rfc3339
from kitlib.cluster.controllers.common import Context, node_index, with_condition
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, is_deleting, is_finished, key_of

TERMINATED_LIMIT = 12500
QUARANTINE_SECONDS = 1.0
"""How long a Node must be missing before its Pods go; Kubernetes waits 40 s."""


class PodGCController(Controller):
    name = "pod-garbage-collector"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=2)
        self._ctx = ctx
        self._nodes = ctx.informers("nodes")
        self._pods = ctx.informers("pods")
        self._pods.add_index("node", node_index)
        self._pods.add_handler(self._pod_changed)
        self._nodes.add_handler(self._node_changed)
        self._finished = 0

    def _pod_changed(self, kind: str, old: Object | None, pod: Object) -> None:
        before = old is not None and is_finished(old)
        after = kind != "DELETED" and is_finished(pod)
        self._finished += after - before
        if self._finished > TERMINATED_LIMIT:
            self.queue.add("terminated")
        node = pod["spec"].get("nodeName", "")
        if kind != "DELETED" and (self._nodes.get("", node) is None if node else is_deleting(pod)):
            self.queue.add_after(key_of(pod), QUARANTINE_SECONDS if node else 0)

    def _node_changed(self, kind: str, _: Object | None, node: Object) -> None:
        if kind == "DELETED":
            for pod in self._pods.indexed("node", node["metadata"]["name"]):
                self.queue.add_after(key_of(pod), QUARANTINE_SECONDS)

    async def reconcile(self, key: Key | str) -> None:
        """Remove one Pod if nobody else will, or the oldest finished ones."""
        if isinstance(key, str):
            await self._trim()
            return
        pod = self._pods.get(*key)
        if pod is None:
            return
        node = pod["spec"].get("nodeName", "")
        if node and self._nodes.get("", node) is None and await self._node_is_gone(node):
            await self._mark_failed(pod, "PodGC: node no longer exists")
            await self._remove(pod)
        elif not node and is_deleting(pod):
            await self._mark_failed(pod, "")
            await self._remove(pod)

    async def _node_is_gone(self, name: str) -> bool:
        try:
            await self._ctx.client.get("nodes", name)
        except ApiError as error:
            if error.code == 404:
                return True
            raise
        return False

    async def _mark_failed(self, pod: Object, message: str) -> None:
        """Give the Pod an end, so that a Job can count it."""
        if is_finished(pod):
            return
        namespace, name = key_of(pod)
        status: Object = {"phase": "Failed"}
        if message:
            now = self._ctx.clock.now()
            conditions = (pod.get("status") or {}).get("conditions") or ()
            state = ("DisruptionTarget", "True", "DeletionByPodGC", message)
            status["conditions"] = with_condition(conditions, *state, now, lastProbeTime=rfc3339(now))
        await self._ctx.client.patch("pods", name, {"status": status}, namespace, subresource="status")

    async def _remove(self, pod: Object) -> None:
        namespace, name = key_of(pod)
        uid = pod["metadata"]["uid"]
        with ignoring(404):
            await self._ctx.client.delete("pods", name, namespace, grace_period_seconds=0, uid=uid)

    async def _trim(self) -> None:
        finished = [pod for pod in self._pods.list() if is_finished(pod) and not is_deleting(pod)]
        finished.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        for pod in finished[: max(0, len(finished) - TERMINATED_LIMIT)]:
            await self._remove(pod)
