"""DaemonSet: one Pod on each node that it may run on.

Stands for `pkg/controller/daemon`. The rule: every node that the Pod's selectors and tolerations allow gets a Pod,
bound to it through node affinity by the scheduler; Pods on other nodes are deleted. A rolling update deletes Pods of an
old template, at most `maxUnavailable` at a time. Left out: `maxSurge`, and the back-off for failing Pods.
"""

from __future__ import annotations

import asyncio

from kitlib.cluster.controllers import revisions
from kitlib.cluster.controllers.common import (
    Context,
    claim,
    create_pod,
    delete_pod,
    is_available,
    pod_from_template,
    slow_start,
    update_status,
    watch_owned,
)
from kitlib.cluster.controllers.deployment_rules import scaled
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, is_active, is_deleting, is_ready, key_of, phase
from kitlib.cluster.placement import taints_of, tolerates, wants_node

RESOURCE = "daemonsets.apps"
TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)


class DaemonSetController(Controller):
    name = "daemonset-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._sets, self._pods, self._nodes = ctx.informers(RESOURCE), ctx.informers("pods"), ctx.informers("nodes")
        ctx.informers(revisions.REVISIONS)
        self._sets.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        watch_owned(self._pods, "DaemonSet", self.queue.add)
        self._nodes.add_handler(self._node_changed)

    def _node_changed(self, kind: str, old: Object | None, node: Object) -> None:
        same = old is not None and old.get("spec") == node.get("spec")
        if kind == "MODIFIED" and same and old and old["metadata"].get("labels") == node["metadata"].get("labels"):
            return
        for daemon_set in self._sets.list():
            self.queue.add(key_of(daemon_set))

    async def reconcile(self, key: Key) -> None:
        """Create the missing Pods, delete the misplaced and the outdated ones, write the status."""
        daemon_set = self._sets.get(*key)
        if daemon_set is None or is_deleting(daemon_set):
            return
        revision = await revisions.current(self._ctx, daemon_set)
        pods = await claim(self._ctx, daemon_set, self._pods, daemon_set["spec"]["selector"])
        wanted = {n["metadata"]["name"] for n in self._nodes.list() if should_run(daemon_set["spec"]["template"], n)}
        by_node: dict[str, list[Object]] = {}
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"])):
            by_node.setdefault(target_node(pod), []).append(pod)
        await self._place(daemon_set, revision, wanted, by_node)
        await self._roll(daemon_set, revision, wanted)
        await self._write_status(key, revision, wanted)

    async def _place(
        self, daemon_set: Object, revision: Object, wanted: set[str], by_node: dict[str, list[Object]]
    ) -> None:
        doomed = [pod for node, pods in by_node.items() if node not in wanted for pod in pods if not is_deleting(pod)]
        for node in wanted & by_node.keys():
            doomed += [pod for pod in by_node[node] if phase(pod) in ("Failed", "Succeeded") and not is_deleting(pod)]
            doomed += [pod for pod in by_node[node] if is_active(pod)][1:]
        await asyncio.gather(*(delete_pod(self._ctx, daemon_set, pod) for pod in doomed))
        missing = sorted(wanted - {node for node, pods in by_node.items() if pods})
        await slow_start(len(missing), lambda i: self._create(daemon_set, revision, missing[i]))

    async def _create(self, daemon_set: Object, revision: Object, node: str) -> Object:
        pod = daemon_pod(daemon_set, node)
        pod["metadata"]["labels"][revisions.HASH_LABEL] = revisions.hash_of(revision)
        return await create_pod(self._ctx, daemon_set, pod)

    def _mine(self, daemon_set: Object) -> list[Object]:
        return self._pods.owned_by(daemon_set["metadata"]["uid"])

    async def _roll(self, daemon_set: Object, revision: Object, wanted: set[str]) -> None:
        """Delete Pods of an old template: unavailable ones at once, others as far as `maxUnavailable` allows."""
        strategy = daemon_set["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        limit = scaled((strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1), len(wanted), up=True)
        now, ready_for = self._ctx.clock.now(), daemon_set["spec"].get("minReadySeconds", 0)
        active = [pod for pod in self._mine(daemon_set) if is_active(pod)]
        old = [pod for pod in active if revisions.hash_of(pod) != revisions.hash_of(revision)]
        available = [pod for pod in active if is_available(pod, ready_for, now)]
        spare = max(0, limit - (len(wanted) - len(available)))
        doomed = [pod for pod in old if pod not in available] + [pod for pod in old if pod in available][:spare]
        await asyncio.gather(*(delete_pod(self._ctx, daemon_set, pod) for pod in doomed))

    async def _write_status(self, key: Key, revision: Object, wanted: set[str]) -> None:
        daemon_set = self._sets.get(*key)
        if daemon_set is None:
            return
        now, ready_for = self._ctx.clock.now(), daemon_set["spec"].get("minReadySeconds", 0)
        pods = [pod for pod in self._mine(daemon_set) if is_active(pod)]
        placed = {target_node(pod): pod for pod in pods if target_node(pod) in wanted}
        available = sum(is_available(pod, ready_for, now) for pod in placed.values())
        current = revisions.hash_of(revision)
        fields = {
            "updatedNumberScheduled": sum(revisions.hash_of(pod) == current for pod in placed.values()),
            "numberAvailable": available,
            "numberUnavailable": len(wanted) - available,
        }
        status = {
            "currentNumberScheduled": len(placed),
            "desiredNumberScheduled": len(wanted),
            "numberMisscheduled": len({target_node(pod) for pod in pods} - wanted),
            "numberReady": sum(map(is_ready, placed.values())),
            "observedGeneration": daemon_set["metadata"].get("generation", 1),
            **{name: value for name, value in fields.items() if value},
        }
        await update_status(self._ctx, RESOURCE, daemon_set, status)
        await revisions.trim(self._ctx, daemon_set, {current, *map(revisions.hash_of, pods)})


def _tolerations(template: Object) -> list[Object]:
    added = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in TOLERATED]
    return [*(template["spec"].get("tolerations") or ()), *added]


def should_run(template: Object, node: Object) -> bool:
    """Tell whether a DaemonSet's Pod belongs on a node."""
    tolerations = _tolerations(template)
    taints = [taint for taint in taints_of(node) if taint["effect"] != "PreferNoSchedule"]
    return wants_node(template["spec"], node) and all(tolerates(tolerations, taint) for taint in taints)


def daemon_pod(daemon_set: Object, node: str) -> Object:
    """Return the Pod for one node: node affinity by name, and the tolerations that keep it there."""
    pod = pod_from_template(daemon_set["spec"]["template"], daemon_set)
    pod["metadata"]["generateName"] = f"{daemon_set['metadata']['name']}-"
    spec = pod["spec"]
    spec["tolerations"] = _tolerations(daemon_set["spec"]["template"])
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return pod


def target_node(pod: Object) -> str:
    """Return the node that a DaemonSet's Pod is on or meant for."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            return str(field["values"][0])
    return ""
