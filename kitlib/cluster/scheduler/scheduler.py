"""kube-scheduler: chooses a node for every Pod that has none.

The rule: take the waiting Pod of the highest priority, keep the nodes that pass all filters, score those, bind the
Pod to one of the best. A Pod that fits nowhere waits until something changes that could help: a node, or, when only
room was missing, the end of a Pod. One that has a higher priority than others may end them (see
`preemption.py`); the room is then kept for it. Left out: profiles and extenders.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from kitlib.cluster.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kitlib.cluster.clock import Clock, SystemClock, rfc3339
from kitlib.cluster.informer import EventRecorder, Informers
from kitlib.cluster.objects import Object, condition, is_finished, key_of
from kitlib.cluster.scheduler.cache import Cache, NodeInfo, PodInfo
from kitlib.cluster.scheduler.fiterror import FitError, refusal
from kitlib.cluster.scheduler.plugins import Filters, scores
from kitlib.cluster.scheduler.preemption import Candidate, find, ineligible, priority
from kitlib.cluster.scheduler.queue import SchedulingQueue, Waiting
from kitlib.cluster.scheduler.volumebinding import VolumeBinder
from kitlib.cluster.volumeclaims import CLAIMS, CLASSES, VOLUMES, claims_of

log = logging.getLogger(__name__)

NAME = "default-scheduler"
ENOUGH_NODES = 100
"""Feasible nodes after which the search stops, as in Kubernetes."""


class Scheduler:
    """See the module's docstring.

    Args:
        client: The API.
        clock: For back-off and timestamps.
    """

    def __init__(self, client: Client, clock: Clock | None = None) -> None:
        self._client, self._clock = client, clock or SystemClock()
        self._events = EventRecorder(client, NAME, clock=self._clock)
        self._cache, self._queue = Cache(), SchedulingQueue(self._clock)
        self._informers = Informers(client, self._clock)
        self._tasks: set[asyncio.Future[None]] = set()
        self._next = 0
        self._nominated: dict[str, tuple[str, PodInfo]] = {}
        self._budgets = self._informers("poddisruptionbudgets.policy")
        self._volumes = VolumeBinder(client, self._informers)
        for resource in (CLAIMS, VOLUMES, CLASSES):
            self._informers(resource).add_handler(lambda *_: self._queue.wake_claimants())
        self._informers("nodes").add_handler(self._node_changed)
        self._informers("pods").add_handler(self._pod_changed)

    async def run(self) -> None:
        """Schedule until cancelled."""
        try:
            await self._informers.start()
            while True:
                waiting = await self._queue.pop()
                try:
                    self._schedule(waiting)
                except Exception:
                    log.exception("scheduling %s failed", key_of(waiting.info.pod))
                    self._queue.retry(key_of(waiting.info.pod))
                await asyncio.sleep(0)
        finally:
            self._informers.stop()
            self._queue.close()
            for task in self._tasks:
                task.cancel()
            await self._events.close()

    def _node_changed(self, kind: str, old: Object | None, node: Object) -> None:
        self._cache.set_node(node["metadata"]["name"], None if kind == "DELETED" else node)
        if kind != "DELETED" and (old is None or _node_view(old) != _node_view(node)):
            self._queue.wake(room=False)

    def _pod_changed(self, kind: str, _: Object | None, pod: Object) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        gone = kind == "DELETED" or is_finished(pod)
        if gone or node:
            self._nominated.pop(uid, None)
        if gone:
            self._queue.drop(key_of(pod))
            if self._cache.remove_pod(uid):
                self._queue.wake(room=True)
        elif node:
            self._queue.drop(key_of(pod))
            self._cache.set_pod(pod, node)
        elif uid in self._cache:  # assumed: its binding is on the way
            return
        elif _is_ours(pod):
            self._nominate(pod, _nominated_node(pod))
            self._queue.put(pod)
        else:
            self._queue.drop(key_of(pod))

    def _schedule(self, waiting: Waiting) -> None:
        """Choose a node now; write the choice, or why there is none, in the background."""
        info = waiting.info
        if not self._cache.nodes:
            self._give_up(waiting, {}, "no nodes available to schedule pods")
            return
        problem = self._volumes.problem(info.pod)
        if problem:
            self._give_up(waiting, {}, refusal(problem, self._cache.nodes))
            return
        filters = Filters(info, self._cache, self._volumes)
        feasible, failures = self._filter(filters, info)
        if not feasible:
            self._make_room(waiting, filters, failures)
            return
        node = self._best(info, feasible)
        self._nominated.pop(info.uid, None)
        self._queue.drop(key_of(info.pod))
        self._cache.set_pod(info.pod, node.name)
        self._spawn(self._bind(waiting, node))

    def _make_room(self, waiting: Waiting, filters: Filters, failures: dict[str, list[str]]) -> None:
        """Preempt Pods of lower priority if that helps; say in any case that the Pod does not fit now."""
        info, cache = waiting.info, self._cache
        error = FitError(failures, cache.nodes)
        why = ineligible(info, failures, cache)
        if why:
            self._give_up(waiting, failures, error.ineligible(why))
            return
        reasons = lambda pod, node: self._reasons(Filters(pod, cache, self._volumes), pod, node)  # noqa: E731
        chosen = find(info, failures, cache, reasons, self._budgets.list())
        self._nominate(info.pod, chosen.node.name if chosen else "")
        message = error.sentence() if chosen else error.no_victims(filters)
        self._give_up(waiting, failures, message, chosen.node.name if chosen else "")
        if chosen:
            self._spawn(self._preempt(info, chosen))

    def _nominate(self, pod: Object, node: str) -> None:
        """Keep room on a node for a Pod, or do so no more."""
        self._nominated.pop(pod["metadata"]["uid"], None)
        if node:
            self._nominated[pod["metadata"]["uid"]] = (node, PodInfo(pod))

    async def _preempt(self, info: PodInfo, chosen: Candidate) -> None:
        text = f"Preempted by pod {info.uid} on node {chosen.node.name}"
        why = f"{NAME}: preempting to accommodate a higher priority pod"
        target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": why}
        patch = {"status": {"conditions": [{**target, "lastTransitionTime": rfc3339(self._clock.now())}]}}
        for victim in chosen.victims:
            namespace, name = key_of(victim.pod)
            try:
                known = {"metadata": {"uid": victim.uid}, **patch}
                await self._client.patch(
                    "pods", name, known, namespace, subresource="status", content_type=STRATEGIC_MERGE_PATCH
                )
                await self._client.delete("pods", name, namespace, uid=victim.uid)
            except ApiError as error:
                if error.code not in (404, 409):
                    log.warning("preempting %s/%s: %s", namespace, name, error)
                continue
            self._events.event_with_action(victim.pod, "Normal", "Preempted", "Preempting", text)

    def _reasons(self, filters: Filters, info: PodInfo, node: NodeInfo) -> list[str]:
        """Return why a Pod cannot run on a node, those counted for whom room is kept there."""
        rivals = [other for name, other in self._nominated.values() if name == node.name and other.uid != info.uid]
        rivals = [other for other in rivals if priority(other.pod) >= priority(info.pod)]
        for other in rivals:
            node.count(other, 1)
        try:
            return filters.reasons(node)
        finally:
            for other in rivals:
                node.count(other, -1)

    def _filter(self, filters: Filters, info: PodInfo) -> tuple[list[NodeInfo], dict[str, list[str]]]:
        """Return the nodes that pass and, by name, why the others do not; start where the last search ended.

        The node on which room was made is enough.
        """
        nodes = self._cache.nodes
        kept = self._nominated.get(info.uid)
        for node in nodes if kept else ():
            if node.name == (kept or ("",))[0] and not self._reasons(filters, info, node):
                return [node], {}
        feasible: list[NodeInfo] = []
        failures: dict[str, list[str]] = {}
        for step in range(len(nodes)):
            node = nodes[(self._next + step) % len(nodes)]
            reasons = self._reasons(filters, info, node) if self._nominated else filters.reasons(node)
            if reasons:
                failures[node.name] = reasons
                continue
            feasible.append(node)
            if len(feasible) == ENOUGH_NODES:
                break
        self._next = (self._next + len(feasible) + len(failures)) % len(nodes)
        return feasible, failures

    def _best(self, info: PodInfo, feasible: list[NodeInfo]) -> NodeInfo:
        if len(feasible) == 1:
            return feasible[0]
        values = scores(info, feasible, self._cache)
        highest = int(max(values))
        return random.choice([node for node, value in zip(feasible, values, strict=True) if int(value) == highest])

    def _spawn(self, work: Any) -> None:
        task: asyncio.Future[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bind(self, waiting: Waiting, node: NodeInfo) -> None:
        info = waiting.info
        namespace, name = key_of(info.pod)
        target = {"apiVersion": "v1", "kind": "Node", "name": node.name}
        metadata = {"name": name, "namespace": namespace, "uid": info.uid}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        try:
            if claims_of(info.pod):
                await self._volumes.bind(info.pod, node.node)
            await self._client.create("pods", binding, namespace, name=name, subresource="binding")
        except Exception as error:
            self._not_bound(waiting, error)
            return
        text = f"Successfully assigned {namespace}/{name} to {node.name}"
        self._events.event_with_action(info.pod, "Normal", "Scheduled", "Binding", text)

    def _not_bound(self, waiting: Waiting, error: Exception) -> None:
        """Take the assumption back, and try again unless the Pod is gone or bound by somebody else."""
        namespace, name = key = key_of(waiting.info.pod)
        if not isinstance(error, ApiError) or error.code not in (404, 409):
            log.warning("binding %s/%s: %s", namespace, name, error)
        pod = self._informers("pods").get(namespace, name)
        if pod is None or pod["metadata"]["uid"] != waiting.info.uid:
            self._cache.remove_pod(waiting.info.uid)
        elif not pod["spec"].get("nodeName"):
            self._cache.remove_pod(waiting.info.uid)
            self._queue.restore(key, waiting)

    def _give_up(
        self, waiting: Waiting, failures: dict[str, list[str]], message: str, nominated: str | None = None
    ) -> None:
        """Keep a Pod waiting and say why; None for `nominated` leaves that field of its status as it is."""
        self._queue.failed(waiting, {reason for reasons in failures.values() for reason in reasons})
        pod = waiting.info.pod
        self._events.event_with_action(pod, "Warning", "FailedScheduling", "Scheduling", message)
        known = condition(pod, "PodScheduled") or {}
        nominated = _nominated_node(pod) if nominated is None else nominated
        if (known.get("reason"), known.get("message"), _nominated_node(pod)) != ("Unschedulable", message, nominated):
            self._spawn(self._write_condition(pod, known, message, nominated))

    async def _write_condition(self, pod: Object, known: Object, message: str, nominated: str) -> None:
        namespace, name = key_of(pod)
        since = known["lastTransitionTime"] if known.get("status") == "False" else rfc3339(self._clock.now())
        wanted: Object = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        wanted.update(lastProbeTime=None, lastTransitionTime=since)
        status = {"conditions": [wanted], "nominatedNodeName": nominated or None}
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        try:
            await self._client.patch(
                "pods", name, patch, namespace, subresource="status", content_type=STRATEGIC_MERGE_PATCH
            )
        except ApiError as error:
            if error.code not in (404, 409):
                log.warning("condition of %s/%s: %s", namespace, name, error)


def _is_ours(pod: Object) -> bool:
    spec = pod["spec"]
    waits = spec.get("schedulingGates") or pod["metadata"].get("deletionTimestamp")
    return spec.get("schedulerName", NAME) == NAME and not waits


def _node_view(node: Object) -> tuple[Any, ...]:
    """Return what of a Node object the filters look at."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    labels = node["metadata"].get("labels")
    return labels, spec.get("taints"), spec.get("unschedulable"), status.get("allocatable")


def _nominated_node(pod: Object) -> str:
    return str((pod.get("status") or {}).get("nominatedNodeName") or "")
