"""The scheduler's filters and scores.

Stands for `pkg/scheduler/framework/plugins` with the default plugins and weights. Left out: ImageLocality (every
node has every image), dynamic resource claims, scores from the affinity of Pods already placed, and
namespace selectors other than `{}`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from kitlib.cluster.objects import Object
from kitlib.cluster.placement import node_matches, tolerates, wants_node
from kitlib.cluster.scheduler.cache import Cache, NodeInfo, PodInfo, Term, affinity_terms
from kitlib.cluster.scheduler.volumebinding import BIND_CONFLICT, NODE_CONFLICT, VolumeBinder
from kitlib.cluster.volumeclaims import claims_of

HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
MAX_SCORE = 100.0

UNSCHEDULABLE = "node(s) were unschedulable"
NODE_NAME = "node(s) didn't match the requested node name"
TAINT = "node(s) had untolerated taint(s)"
NODE_AFFINITY = "node(s) didn't match Pod's node affinity/selector"
PORTS = "node(s) didn't have free ports for the requested pod ports"
SPREAD = "node(s) didn't match pod topology spread constraints"
SPREAD_LABEL = SPREAD + " (missing required label)"
AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING_ANTI_AFFINITY = "node(s) didn't satisfy existing pods anti-affinity rules"

FINAL = {UNSCHEDULABLE, NODE_NAME, TAINT, NODE_AFFINITY, SPREAD_LABEL, AFFINITY, NODE_CONFLICT, BIND_CONFLICT}
"""Reasons that the removal of other Pods would not help."""


class Filters:
    """The filters for one Pod, with what they need to know of the whole cluster computed once.

    Args:
        info: The Pod to place.
        cache: The nodes.
        volumes: Knows which nodes the Pod's claims allow.
    """

    def __init__(self, info: PodInfo, cache: Cache, volumes: VolumeBinder) -> None:
        """Prepare (the PreFilter step)."""
        self._volumes = volumes if claims_of(info.pod) else None
        self._info, self._spec = info, info.pod["spec"]
        self._tolerations: list[Object] = self._spec.get("tolerations") or []
        self._requests = {name: amount for name, amount in info.requests.items() if amount}
        self._spread = _hard_constraints(info.pod, cache)
        self._affinity = _required_affinity(info.pod, cache)
        self._anti = [(term, _domains(cache, term)) for term in info.anti_terms]
        self._existing = _existing_anti_affinity(info.pod, cache)

    def reasons(self, node: NodeInfo) -> list[str]:
        """Return why the Pod cannot run on the node, an empty list when it can."""
        reason = self._node_reason(node)
        if reason:
            return [reason]
        return self._lacking(node) or self._unreachable(node) or self._topology_reasons(node)

    def _unreachable(self, node: NodeInfo) -> list[str]:
        return self._volumes.reasons(self._info.pod, node.node) if self._volumes else []

    def _node_reason(self, node: NodeInfo) -> str:
        spec = self._spec
        unschedulable = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if (node.node.get("spec") or {}).get("unschedulable") and not tolerates(self._tolerations, unschedulable):
            return UNSCHEDULABLE
        if spec.get("nodeName") not in (None, "", node.name):
            return NODE_NAME
        for taint in node.taints:
            if taint["effect"] != "PreferNoSchedule" and not tolerates(self._tolerations, taint):
                return TAINT
        if not wants_node(spec, node.node):
            return NODE_AFFINITY
        return PORTS if self._info.ports and self._ports_taken(node) else ""

    def _ports_taken(self, node: NodeInfo) -> bool:
        used = [port for port, number in node.ports.items() if number > 0]
        return any(
            mine[1:] == theirs[1:] and (mine[0] == theirs[0] or "0.0.0.0" in (mine[0], theirs[0]))
            for mine in self._info.ports
            for theirs in used
        )

    def _lacking(self, node: NodeInfo) -> list[str]:
        lacking = []
        if len(node.pods) + 1 > node.allocatable.get("pods", 0):
            lacking.append("Too many pods")
        for name, amount in self._requests.items():
            if amount > node.allocatable.get(name, 0) - node.requested[name]:
                lacking.append(f"Insufficient {name}")
        return lacking

    def could_ever_fit(self, node: NodeInfo) -> bool:
        """Tell whether the Pod would fit on the node if it were empty."""
        return all(amount <= node.allocatable.get(name, 0) for name, amount in self._requests.items())

    def _topology_reasons(self, node: NodeInfo) -> list[str]:
        for constraint in self._spread:
            reason = constraint(node)
            if reason:
                return [reason]
        for key, domains in self._affinity:
            if not domains.get(node.labels.get(key, ""), 0):
                return [AFFINITY]
        for term, domains in self._anti:
            if domains.get(node.labels.get(term.topology_key, ""), 0):
                return [ANTI_AFFINITY]
        taken = any(node.labels.get(key) in values for key, values in self._existing)
        return [EXISTING_ANTI_AFFINITY] if taken else []


def _domains(cache: Cache, term: Term) -> Counter[str]:
    return cache.by_domain(cache.matching(term), term.topology_key, cache.nodes)


def _required_affinity(pod: Object, cache: Cache) -> list[tuple[str, Counter[str]]]:
    """Return the domains that each affinity term allows; the first Pod of a group that means itself goes anywhere."""
    terms = affinity_terms(pod, "podAffinity")
    domains = [(term.topology_key, _domains(cache, term)) for term in terms]
    nobody = not any(+counts for _, counts in domains)
    if terms and nobody and all(term.selects(pod) for term in terms):
        return [(term.topology_key, _everywhere(cache, term.topology_key)) for term in terms]
    return domains


def _everywhere(cache: Cache, key: str) -> Counter[str]:
    return Counter(info.labels[key] for info in cache.nodes if key in info.labels)


def _existing_anti_affinity(pod: Object, cache: Cache) -> list[tuple[str, set[str]]]:
    """Return the domains closed to the Pod by Pods that do not want its like near."""
    closed = []
    for term, counts in cache.anti_terms.values():
        if term.selects(pod):
            domains = cache.by_domain(counts, term.topology_key, cache.nodes)
            closed.append((term.topology_key, {value for value, number in domains.items() if number > 0}))
    return closed


def _hard_constraints(pod: Object, cache: Cache) -> list[Callable[[NodeInfo], str]]:
    constraints = pod["spec"].get("topologySpreadConstraints") or ()
    return [_hard(pod, item, cache) for item in constraints if item["whenUnsatisfiable"] == "DoNotSchedule"]


def _hard(pod: Object, constraint: Object, cache: Cache) -> Callable[[NodeInfo], str]:
    """Return the filter of one `DoNotSchedule` constraint: no domain may lead the emptiest by more than `maxSkew`."""
    term, key = Term(constraint, pod, skip_deleting=True), constraint["topologyKey"]
    honors_taints = constraint.get("nodeTaintsPolicy") == "Honor"
    tolerations = pod["spec"].get("tolerations") or []
    eligible = [
        info
        for info in cache.nodes
        if (constraint.get("nodeAffinityPolicy") == "Ignore" or wants_node(pod["spec"], info.node))
        and (not honors_taints or all(tolerates(tolerations, taint) for taint in info.taints))
    ]
    domains = cache.by_domain(cache.matching(term), key, eligible)
    fewest = min(domains.values(), default=0) if len(domains) >= constraint.get("minDomains", 1) else 0
    limit = fewest + constraint["maxSkew"] - term.selects(pod)

    def check(node: NodeInfo) -> str:
        value = node.labels.get(key)
        if value is None:
            return SPREAD_LABEL
        return SPREAD if domains[value] > limit else ""

    return check


def scores(info: PodInfo, nodes: list[NodeInfo], cache: Cache) -> list[float]:
    """Return the weighted score of each node for a Pod; the highest wins."""
    pod = info.pod
    parts = [
        (3.0, _reversed([_avoided(pod, node) for node in nodes])),
        (2.0, _normalized([_preferred(pod, node) for node in nodes])),
        (2.0, _spread_scores(info, nodes, cache)),
        (2.0, _affinity_scores(pod, nodes, cache)),
        (1.0, [_least_allocated(info, node) for node in nodes]),
        (1.0, [_balanced(info, node) for node in nodes]),
    ]
    return [sum(weight * values[place] for weight, values in parts if values) for place in range(len(nodes))]


def _normalized(raw: list[float]) -> list[float]:
    highest = max(raw)
    return [MAX_SCORE * value / highest for value in raw] if highest > 0 else []


def _reversed(raw: list[float]) -> list[float]:
    highest = max(raw)
    return [MAX_SCORE - MAX_SCORE * value / highest for value in raw] if highest > 0 else []


def _avoided(pod: Object, node: NodeInfo) -> float:
    """TaintToleration: how many `PreferNoSchedule` taints the Pod does not tolerate."""
    if not node.taints:
        return 0.0
    tolerations = pod["spec"].get("tolerations") or []
    soft = [taint for taint in node.taints if taint["effect"] == "PreferNoSchedule"]
    return float(sum(not tolerates(tolerations, taint) for taint in soft))


def _preferred(pod: Object, node: NodeInfo) -> float:
    """NodeAffinity: the sum of the weights of the preferred terms that the node meets."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return float(sum(term["weight"] for term in terms if node_matches(term["preference"], node.node)))


def _least_allocated(info: PodInfo, node: NodeInfo) -> float:
    """NodeResourcesFit: the share of cpu and memory that would stay free."""
    free = [max(0.0, 1 - share) for share in _shares(info, node)]
    return MAX_SCORE * sum(free) / len(free) if free else 0.0


def _balanced(info: PodInfo, node: NodeInfo) -> float:
    """NodeResourcesBalancedAllocation: how alike the used shares of cpu and memory would be."""
    shares = [min(1.0, share) for share in _shares(info, node)]
    return MAX_SCORE * (1 - abs(shares[0] - shares[1]) / 2) if len(shares) == 2 else MAX_SCORE


def _shares(info: PodInfo, node: NodeInfo) -> list[float]:
    return [
        (node.scored[name] + info.scored.get(name, 0)) / node.allocatable[name]
        for name in ("cpu", "memory")
        if node.allocatable.get(name)
    ]


def _spread_scores(info: PodInfo, nodes: list[NodeInfo], cache: Cache) -> list[float]:
    """PodTopologySpread: `ScheduleAnyway` constraints, or the system's own: few siblings on a node and in a zone."""
    soft = [
        item
        for item in info.pod["spec"].get("topologySpreadConstraints") or ()
        if item["whenUnsatisfiable"] == "ScheduleAnyway"
    ]
    raw = [0.0] * len(nodes)
    for key, skew, counts in _soft_counts(info, soft, nodes, cache):
        domains = cache.by_domain(counts, key, cache.nodes)
        weight = math.log(len({node.labels[key] for node in nodes if key in node.labels}) + 2)
        for place, node in enumerate(nodes):
            if key in node.labels:
                raw[place] += domains[node.labels[key]] * weight + skew - 1
    highest, lowest = max(raw), min(raw)
    return [MAX_SCORE * (highest + lowest - value) / highest for value in raw] if highest > 0 else []


def _soft_counts(
    info: PodInfo, soft: list[Object], nodes: list[NodeInfo], cache: Cache
) -> list[tuple[str, int, Counter[str]]]:
    if soft:
        terms = [(item["maxSkew"], Term(item, info.pod, skip_deleting=True)) for item in soft]
        return [(term.topology_key, skew, cache.matching(term)) for skew, term in terms]
    if not info.owner or info.pod["spec"].get("topologySpreadConstraints"):
        return []
    siblings = Counter({node.name: node.owners[info.owner] for node in cache.nodes})
    zoned = any(ZONE in node.labels for node in nodes)
    return [(HOSTNAME, 3, siblings), *([(ZONE, 5, siblings)] if zoned else [])]


def _affinity_scores(pod: Object, nodes: list[NodeInfo], cache: Cache) -> list[float]:
    """InterPodAffinity: the preferred terms of the Pod, for and against."""
    raw = [0.0] * len(nodes)
    affinity = pod["spec"].get("affinity") or {}
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for item in (affinity.get(kind) or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            term = Term(item["podAffinityTerm"], pod)
            domains = _domains(cache, term)
            for place, node in enumerate(nodes):
                raw[place] += sign * item["weight"] * domains[node.labels.get(term.topology_key, "")]
    highest, lowest = max(raw), min(raw)
    return [MAX_SCORE * (value - lowest) / (highest - lowest) for value in raw] if highest > lowest else []
