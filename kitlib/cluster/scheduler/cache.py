"""What the scheduler knows of nodes and the Pods on them, kept up to date in small steps.

Stands for `pkg/scheduler/backend/cache` and `framework.NodeInfo`. Counts of Pods by label selector are kept per
selector and node and changed with each Pod, so that spreading a thousand Pods is not a million comparisons.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING
from typing import Any

import orjson

from kitlib.cluster.labels import matches
from kitlib.cluster.objects import Object, controller_of, is_sidecar
from kitlib.cluster.placement import taints_of
from kitlib.cluster.quantity import parse

DEFAULT_CPU = 100
DEFAULT_MEMORY = 200 << 20
"""What a container without requests counts for when nodes are scored (not when they are filtered)."""

SELECTOR_LIMIT = 200

Resources = dict[str, int]
"""Amounts by resource name: cpu in thousandths, everything else in units."""

Port = tuple[str, str, int]


def amounts(quantities: Object | None) -> Resources:
    """Return resource quantities as numbers, rounded up."""
    found = {}
    for name, quantity in (quantities or {}).items():
        value = parse(quantity) * 1000 if name == "cpu" else parse(quantity)
        found[name] = int(value.to_integral_value(ROUND_CEILING))
    return found


def _add(total: Resources, more: Resources) -> Resources:
    return {name: total.get(name, 0) + more.get(name, 0) for name in {*total, *more}}


def _largest(one: Resources, other: Resources) -> Resources:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {*one, *other}}


def _requests(container: Object) -> Resources:
    return amounts((container.get("resources") or {}).get("requests"))


def pod_requests(spec: Object, of: Callable[[Object], Resources] = _requests) -> Resources:
    """Return what a Pod asks for: its containers together, or its largest init container if that is more."""
    total: Resources = {}
    for container in spec.get("containers") or ():
        total = _add(total, of(container))
    sidecars: Resources = {}
    starting: Resources = {}
    for container in spec.get("initContainers") or ():
        if is_sidecar(container):
            sidecars = _add(sidecars, of(container))
            starting = _largest(starting, sidecars)
        else:
            starting = _largest(starting, _add(sidecars, of(container)))
    total = _largest(_add(total, sidecars), starting)
    total.update(amounts((spec.get("resources") or {}).get("requests")))
    return _add(total, amounts(spec.get("overhead")))


def _scored_requests(container: Object) -> Resources:
    return {"cpu": DEFAULT_CPU, "memory": DEFAULT_MEMORY, **_requests(container)}


def _host_ports(spec: Object) -> frozenset[Port]:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    ports = [port for container in containers for port in container.get("ports") or () if port.get("hostPort")]
    return frozenset((port.get("hostIP") or "0.0.0.0", port.get("protocol", "TCP"), port["hostPort"]) for port in ports)


class Term:
    """A Pod affinity term, or the selector of a spread constraint, with the namespaces that it looks at.

    Args:
        term: `{"labelSelector": ..., "topologyKey": ..., "namespaces": ..., "namespaceSelector": ...}`.
        pod: The Pod that carries it; its namespace is meant when none is named.
        skip_deleting: Whether Pods that are being deleted do not count.
    """

    __slots__ = ("selector", "topology_key", "namespaces", "skip_deleting", "key")

    def __init__(self, term: Object, pod: Object, *, skip_deleting: bool = False) -> None:
        """Resolve the term's namespaces and its `matchLabelKeys`."""
        labels = pod["metadata"].get("labels") or {}
        selector = term.get("labelSelector")
        same = [
            {"key": k, "operator": "In", "values": [labels[k]]} for k in term.get("matchLabelKeys") or () if k in labels
        ]
        if same and selector is not None:
            selector = {**selector, "matchExpressions": [*(selector.get("matchExpressions") or ()), *same]}
        self.selector: Object | None = selector
        self.topology_key: str = term["topologyKey"]
        everywhere = term.get("namespaceSelector") == {}
        named = term.get("namespaces") or [pod["metadata"]["namespace"]]
        self.namespaces: frozenset[str] | None = None if everywhere else frozenset(named)
        self.skip_deleting = skip_deleting
        where = sorted(self.namespaces) if self.namespaces is not None else None
        self.key = orjson.dumps([where, selector, skip_deleting], option=orjson.OPT_SORT_KEYS)

    def selects(self, pod: Object) -> bool:
        """Tell whether the term means this Pod."""
        metadata = pod["metadata"]
        if self.namespaces is not None and metadata["namespace"] not in self.namespaces:
            return False
        if self.skip_deleting and metadata.get("deletionTimestamp"):
            return False
        return matches(self.selector, metadata.get("labels"))


def affinity_terms(pod: Object, kind: str) -> list[Term]:
    """Return the required terms of `podAffinity` or `podAntiAffinity`."""
    affinity = (pod["spec"].get("affinity") or {}).get(kind) or {}
    return [Term(term, pod) for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()]


class PodInfo:
    """A Pod with everything about it that is worth computing once."""

    __slots__ = ("pod", "uid", "requests", "scored", "ports", "owner", "anti_terms")

    def __init__(self, pod: Object) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.requests = pod_requests(pod["spec"])
        self.scored = pod_requests(pod["spec"], _scored_requests)
        self.ports = _host_ports(pod["spec"])
        self.owner: str = (controller_of(pod) or {}).get("uid", "")
        self.anti_terms = affinity_terms(pod, "podAntiAffinity")


@dataclass
class NodeInfo:
    """A node and the sum of the Pods on it.

    Attributes:
        name: Node name.
        node: The Node object; empty while only its Pods are known.
        allocatable: What it offers.
        requested: What its Pods ask for.
        scored: The same with defaults for containers that ask for nothing.
        pods: Its Pods by uid.
        ports: Host ports in use.
        owners: Number of Pods by the uid of their controller.
    """

    name: str
    node: Object = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[Object] = field(default_factory=list)
    allocatable: Resources = field(default_factory=dict)
    requested: Counter[str] = field(default_factory=Counter)
    scored: Counter[str] = field(default_factory=Counter)
    pods: dict[str, PodInfo] = field(default_factory=dict)
    ports: Counter[Port] = field(default_factory=Counter)
    owners: Counter[str] = field(default_factory=Counter)

    def describe(self, node: Object) -> None:
        """Take over what the Node object says."""
        self.node = node
        self.labels = (node.get("metadata") or {}).get("labels") or {}
        self.taints = taints_of(node)
        self.allocatable = amounts((node.get("status") or {}).get("allocatable"))

    def count(self, info: PodInfo, sign: int) -> None:
        """Add (1) or subtract (-1) a Pod."""
        for total, part in ((self.requested, info.requests), (self.scored, info.scored)):
            for name, amount in part.items():
                total[name] += sign * amount
        for port in info.ports:
            self.ports[port] += sign
        if info.owner:
            self.owners[info.owner] += sign
            if not self.owners[info.owner]:
                del self.owners[info.owner]


class Cache:
    """All nodes and all Pods that are bound or assumed to be."""

    def __init__(self) -> None:
        self._infos: dict[str, NodeInfo] = {}
        self._where: dict[str, NodeInfo] = {}
        self._counts: OrderedDict[bytes, tuple[Term, Counter[str]]] = OrderedDict()
        self.anti_terms: dict[tuple[bytes, str], tuple[Term, Counter[str]]] = {}
        self.nodes: list[NodeInfo] = []

    def __contains__(self, uid: str) -> bool:
        """Tell whether a Pod is bound or assumed to be."""
        return uid in self._where

    def node(self, name: str) -> NodeInfo:
        """Return the record of a node, made when missing."""
        return self._infos.setdefault(name, NodeInfo(name))

    def set_node(self, name: str, node: Object | None) -> None:
        """Take over a Node object, or its end (None)."""
        info = self.node(name)
        info.describe(node or {})
        if node is None and not info.pods:
            del self._infos[name]
        self.nodes = [info for info in self._infos.values() if info.node]

    def set_pod(self, pod: Object, node: str) -> None:
        """Put a Pod on a node, or renew what is known of it there."""
        uid = pod["metadata"]["uid"]
        info = self._where.get(uid)
        if info is not None and info.name == node and not _changed(info.pods[uid].pod, pod):
            return
        self.remove_pod(uid)
        info = self._where[uid] = self.node(node)
        info.pods[uid] = PodInfo(pod)
        self._count(info, info.pods[uid], 1)

    def remove_pod(self, uid: str) -> bool:
        """Forget a Pod; tell whether it was there."""
        info = self._where.pop(uid, None)
        if info is None:
            return False
        self._count(info, info.pods.pop(uid), -1)
        if not info.node and not info.pods:
            self._infos.pop(info.name, None)
        return True

    def _count(self, node: NodeInfo, info: PodInfo, sign: int) -> None:
        node.count(info, sign)
        for term, counts in self._counts.values():
            if term.selects(info.pod):
                counts[node.name] += sign
        for term in info.anti_terms:
            known = self.anti_terms.setdefault((term.key, term.topology_key), (term, Counter()))
            known[1][node.name] += sign
            if not +known[1]:
                del self.anti_terms[term.key, term.topology_key]

    def matching(self, term: Term) -> Counter[str]:
        """Return how many Pods that the term means are on each node."""
        known = self._counts.get(term.key)
        if known is None:
            counts: Counter[str] = Counter()
            for info in self._infos.values():
                counts[info.name] = sum(term.selects(pod.pod) for pod in info.pods.values())
            known = self._counts[term.key] = (term, counts)
            if len(self._counts) > SELECTOR_LIMIT:
                self._counts.popitem(last=False)
        self._counts.move_to_end(term.key)
        return known[1]

    def by_domain(self, counts: Counter[str], topology_key: str, nodes: Iterable[NodeInfo]) -> Counter[str]:
        """Sum counts per node into counts per value of a topology label."""
        domains: Counter[str] = Counter()
        for info in nodes:
            value = info.labels.get(topology_key)
            if value is not None:
                domains[value] += counts[info.name]
        return domains


def _changed(old: Object, new: Object) -> bool:
    """Tell whether a Pod changed in something that the cache counts."""
    before, after = old["metadata"], new["metadata"]
    fields: tuple[Any, ...] = ("labels", "deletionTimestamp")
    return any(before.get(name) != after.get(name) for name in fields) or (
        old["spec"] is not new["spec"] and _requests_of(old) != _requests_of(new)
    )


def _requests_of(pod: Object) -> list[Any]:
    return [container.get("resources") for container in pod["spec"].get("containers") or ()]
