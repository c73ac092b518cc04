"""Preemption: which Pods of lower priority have to go so that a Pod that fits nowhere finds room.

Stands for the plugin DefaultPreemption. On each node where the end of Pods could help, all of lower priority are taken
away in thought and, the most important first, put back as long as the newcomer still fits; what stays away are the
victims. The node wins whose victims break the fewest disruption budgets, are the least important and the fewest.
Left out: a limit to the number of nodes looked at, and the cascade that takes nominations from other Pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from kitlib.cluster.clock import parse_time
from kitlib.cluster.labels import matches
from kitlib.cluster.objects import Object
from kitlib.cluster.scheduler.cache import Cache, NodeInfo, PodInfo
from kitlib.cluster.scheduler.plugins import FINAL

NEVER = "not eligible due to preemptionPolicy=Never."
TERMINATING = "not eligible due to a terminating pod on the nominated node."

Reasons = Callable[[PodInfo, NodeInfo], "list[str]"]
"""Returns why a Pod cannot run on a node, looking at the cache as it is now."""


class Candidate(NamedTuple):
    """A node that could be used.

    Attributes:
        node: The node.
        victims: The Pods that have to go, the most important first.
        violations: How many of them a disruption budget protects.
    """

    node: NodeInfo
    victims: list[PodInfo]
    violations: int


def priority(pod: Object) -> int:
    """Return the Pod's priority."""
    return int(pod["spec"].get("priority") or 0)


def ineligible(info: PodInfo, failures: dict[str, list[str]], cache: Cache) -> str:
    """Return why the Pod may not preempt others now, in Kubernetes' words; empty if it may."""
    if info.pod["spec"].get("preemptionPolicy") == "Never":
        return NEVER
    nominated = (info.pod.get("status") or {}).get("nominatedNodeName")
    if not nominated or FINAL & set(failures.get(nominated, ())):
        return ""
    leaving = (other.pod for other in cache.node(nominated).pods.values() if priority(other.pod) < priority(info.pod))
    return TERMINATING if any(pod["metadata"].get("deletionTimestamp") for pod in leaving) else ""


def find(
    info: PodInfo, failures: dict[str, list[str]], cache: Cache, reasons: Reasons, budgets: Iterable[Object]
) -> Candidate | None:
    """Return the best node to make room on, or None.

    Args:
        info: The Pod that fits nowhere.
        failures: Why not, by name of the node.
        cache: The nodes; changed on the way, and as it was at the end.
        reasons: Filters.
        budgets: All PodDisruptionBudgets.
    """
    known = list(budgets)
    nodes = [node for node in cache.nodes if node.name in failures and not FINAL & set(failures[node.name])]
    found = [each for each in (_on_node(info, node, cache, reasons, known) for node in nodes) if each is not None]
    return min(found, key=_cost, default=None)


def _on_node(info: PodInfo, node: NodeInfo, cache: Cache, reasons: Reasons, budgets: list[Object]) -> Candidate | None:
    lower = [other for other in node.pods.values() if priority(other.pod) < priority(info.pod)]
    if not lower:
        return None
    for other in lower:
        cache.remove_pod(other.uid)
    victims: list[PodInfo] = []
    protected = _protected(sorted(lower, key=_importance), budgets)
    try:
        if reasons(info, node):
            return None
        for other in sorted(lower, key=lambda each: (each.uid not in protected, *_importance(each))):
            cache.set_pod(other.pod, node.name)
            if reasons(info, node):
                cache.remove_pod(other.uid)
                victims.append(other)
    finally:
        for other in lower:
            cache.set_pod(other.pod, node.name)
    return Candidate(node, sorted(victims, key=_importance), sum(each.uid in protected for each in victims))


def _started(pod: Object) -> float:
    since = (pod.get("status") or {}).get("startTime")
    return parse_time(since) if since else float("inf")


def _importance(info: PodInfo) -> tuple[Any, ...]:
    """Sort key: the higher the priority and the longer a Pod runs, the more important it is."""
    return -priority(info.pod), _started(info.pod), info.uid


def _cost(candidate: Candidate) -> tuple[Any, ...]:
    priorities = [priority(victim.pod) for victim in candidate.victims]
    highest = max(priorities, default=0)
    since = min((_started(each.pod) for each in candidate.victims if priority(each.pod) == highest), default=0.0)
    return candidate.violations, highest, sum(each + 2**31 for each in priorities), len(priorities), -since


def _protected(pods: list[PodInfo], budgets: list[Object]) -> set[str]:
    """Return the uids of the Pods whose end a budget does not allow, if those before them end, too."""
    allowed = [(budget.get("status") or {}).get("disruptionsAllowed", 0) for budget in budgets]
    found = set()
    for info in pods:
        metadata = info.pod["metadata"]
        for place, budget in enumerate(budgets):
            disrupted = metadata["name"] in ((budget.get("status") or {}).get("disruptedPods") or {})
            same = budget["metadata"]["namespace"] == metadata["namespace"] and metadata.get("labels")
            if same and not disrupted and matches(budget["spec"].get("selector"), metadata.get("labels")):
                allowed[place] -= 1
                if allowed[place] < 0:
                    found.add(info.uid)
    return found
