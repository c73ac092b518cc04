"""ReplicaSet: keeps as many Pods as `spec.replicas` says.

Stands for `pkg/controller/replicaset`. The rule: own the active Pods that match the selector (adopt orphans, release
Pods whose labels match no more); if there are too few, create the difference in batches of 1, 2, 4, ...; if too many,
delete those whose loss hurts least.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from kitlib.cluster.client import ApiError
from kitlib.cluster.clock import parse_time
from kitlib.cluster.controllers.common import (
    Context,
    claim,
    create_pod,
    delete_pod,
    is_available,
    pod_from_template,
    ready_since,
    slow_start,
    update_status,
    watch_own,
    watch_owned,
    with_condition,
)
from kitlib.cluster.informer import Controller
from kitlib.cluster.labels import matches
from kitlib.cluster.objects import (
    Key,
    Object,
    controller_of,
    is_active,
    is_deleting,
    is_finished,
    is_ready,
    key_of,
    phase,
)

BURST = 500
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


class ReplicaSetController(Controller):
    name = "replicaset-controller"
    resource, kind = "replicasets.apps", "ReplicaSet"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._sets = ctx.informers(self.resource)
        self._pods = ctx.informers("pods")
        watch_own(self._sets, self)
        watch_owned(self._pods, self.kind, self.add_dependent)
        self._pods.add_handler(self._orphan_changed)

    def _selector(self, rs: Object) -> Object:
        selector: Object = rs["spec"]["selector"]
        return selector

    def _orphan_changed(self, kind: str, _: Object | None, pod: Object) -> None:
        if kind == "DELETED" or controller_of(pod) is not None:
            return
        for rs in self._sets.list(pod["metadata"]["namespace"]):
            if matches(self._selector(rs), pod["metadata"].get("labels")):
                self.queue.add(key_of(rs))

    async def reconcile(self, key: Key) -> None:
        """Create or delete Pods until `spec.replicas` are active, then write the status."""
        rs = self._sets.get(*key)
        if rs is None:
            self.sizes.pop(key, None)
            return
        pods = await claim(self._ctx, rs, self._pods, self._selector(rs))
        self.sizes[key] = len(pods)
        error: ApiError | None = None
        if not is_deleting(rs):
            try:
                await self._manage(rs, [pod for pod in pods if is_active(pod)])
            except ApiError as failure:
                error = failure
        await self._write_status(key, error)
        if error is not None and "is being terminated" not in error.message:
            raise error

    def _active(self, rs: Object) -> list[Object]:
        """Return the Pods that the ReplicaSet controls and that count."""
        uid, selector = rs["metadata"]["uid"], self._selector(rs)
        return [
            pod
            for pod in self._pods.owned_by(uid)
            if is_active(pod) and matches(selector, pod["metadata"].get("labels"))
        ]

    async def _manage(self, rs: Object, pods: list[Object]) -> None:
        missing = rs["spec"].get("replicas", 1) - len(pods)
        if missing > 0:
            await slow_start(min(missing, BURST), lambda _: self._create(rs))
        elif missing < 0:
            victims = self._victims(rs, pods)[: min(-missing, BURST)]
            await asyncio.gather(*(delete_pod(self._ctx, rs, pod) for pod in victims))

    async def _create(self, rs: Object) -> Object:
        pod = pod_from_template(rs["spec"]["template"], rs)
        pod["metadata"]["generateName"] = f"{rs['metadata']['name']}-"
        return await create_pod(self._ctx, rs, pod)

    def _victims(self, rs: Object, pods: list[Object]) -> list[Object]:
        """Return the Pods in the order in which they should go."""
        on_node: dict[str, int] = {}
        for pod in self._related(rs):
            node = pod["spec"].get("nodeName", "")
            on_node[node] = on_node.get(node, 0) + 1
        now = self._ctx.clock.now()
        return sorted(pods, key=lambda pod: deletion_rank(pod, on_node.get(pod["spec"].get("nodeName", ""), 0), now))

    def _related(self, rs: Object) -> list[Object]:
        """Return the active Pods of all ReplicaSets of the same owner."""
        owner = controller_of(rs)
        siblings = self._sets.owned_by(owner["uid"]) if owner else [rs]
        return [
            pod for sibling in siblings for pod in self._pods.owned_by(sibling["metadata"]["uid"]) if is_active(pod)
        ]

    async def _write_status(self, key: Key, error: ApiError | None) -> None:
        rs = self._sets.get(*key)
        if rs is None:
            return
        pods, now = self._active(rs), self._ctx.clock.now()
        await update_status(self._ctx, self.resource, rs, self._status(rs, pods, now, error))
        waits = rs["spec"].get("minReadySeconds", 0)
        soonest = [ready_since(pod) + waits - now for pod in pods if is_ready(pod)] if waits else []
        if future := [seconds for seconds in soonest if seconds > 0]:
            self.queue.add_after(key, min(future))

    def _status(self, rs: Object, pods: list[Object], now: float, error: ApiError | None) -> Object:
        return replicaset_status(rs, pods, self._terminating(rs), now, error)

    def _terminating(self, rs: Object) -> int:
        return sum(is_deleting(pod) and not is_finished(pod) for pod in self._pods.owned_by(rs["metadata"]["uid"]))


def deletion_rank(pod: Object, pods_on_node: int, now: float) -> tuple[Any, ...]:
    """Return the sort key of a Pod among those to delete: the smallest goes first.

    Source: `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`. Ages count by powers of two.

    Args:
        pod: The Pod.
        pods_on_node: Related Pods on the same node; of the fullest node one goes first.
        now: Seconds since the epoch.
    """
    cost = (pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0")
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return (
        bool(pod["spec"].get("nodeName")),
        PHASE_ORDER.get(phase(pod), 1),
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdigit() else 0,
        -pods_on_node,
        _age_bucket(ready_since(pod), now),
        -sum(item.get("restartCount", 0) for item in statuses),
        _age_bucket(parse_time(pod["metadata"]["creationTimestamp"]), now),
        pod["metadata"]["uid"],
    )


def _age_bucket(since: float, now: float) -> int:
    return int(math.log2(now - since)) if since and now - since >= 1 else -1


def replicaset_status(rs: Object, pods: list[Object], terminating: int, now: float, error: ApiError | None) -> Object:
    """Return the status that follows from the active Pods and from the error of the last attempt, if any."""
    wanted = ((rs["spec"]["template"].get("metadata") or {}).get("labels") or {}).items()
    min_ready = rs["spec"].get("minReadySeconds", 0)
    counts = {
        "fullyLabeledReplicas": sum(wanted <= (pod["metadata"].get("labels") or {}).items() for pod in pods),
        "readyReplicas": sum(map(is_ready, pods)),
        "availableReplicas": sum(is_available(pod, min_ready, now) for pod in pods),
        "observedGeneration": rs["metadata"].get("generation", 1),
    }
    status: Object = {"replicas": len(pods), "terminatingReplicas": terminating}
    status.update({name: count for name, count in counts.items() if count})
    conditions = [c for c in (rs.get("status") or {}).get("conditions") or () if c["type"] != "ReplicaFailure"]
    if error is not None:
        reason = "FailedCreate" if len(pods) < rs["spec"].get("replicas", 1) else "FailedDelete"
        before = (rs.get("status") or {}).get("conditions") or ()
        conditions = with_condition(before, "ReplicaFailure", "True", reason, error.message, now)
    if conditions:
        status["conditions"] = conditions
    return status
