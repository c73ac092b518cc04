"""Why a Pod fits nowhere, in the words of Kubernetes 1.36.

Stands for `framework.FitError` and the messages of the plugin DefaultPreemption.
"""

from __future__ import annotations

from collections import Counter

from kitlib.cluster.scheduler.cache import NodeInfo
from kitlib.cluster.scheduler.plugins import FINAL, Filters


def refusal(why: str, nodes: list[NodeInfo]) -> str:
    """Return the sentence of a Pod that could run on no node, whatever the nodes are like."""
    none = f"0/{len(nodes)} nodes are available"
    hopeless = f"{len(nodes)} Preemption is not helpful for scheduling"
    return f"{none}: {why}. no new claims to deallocate, preemption: {none}: {hopeless}."


class FitError:
    """The sentence of a Pod that fits nowhere, in the words of Kubernetes 1.36.

    Args:
        failures: Why not, by name of the node.
        nodes: All nodes.
    """

    def __init__(self, failures: dict[str, list[str]], nodes: list[NodeInfo]) -> None:
        self._failures, self._nodes = failures, nodes

    def sentence(self) -> str:
        """Return what there is to say when room is being made."""
        why = _histogram(Counter(reason for reasons in self._failures.values() for reason in reasons))
        return f"0/{len(self._nodes)} nodes are available: {why}."

    def ineligible(self, why: str) -> str:
        """Return what there is to say when the Pod may not preempt others."""
        return f"{self.sentence()} no new claims to deallocate, preemption: {why}"

    def no_victims(self, filters: Filters) -> str:
        """Return what there is to say when the end of other Pods would not help."""
        failures, total = self._failures, len(self._nodes)
        hopeless = sum(
            any(reason in FINAL for reason in failures[node.name]) or not filters.could_ever_fit(node)
            for node in self._nodes
        )
        preemption = Counter({"Preemption is not helpful for scheduling": hopeless})
        preemption["No preemption victims found for incoming pod"] = total - hopeless
        return self.ineligible(f"0/{total} nodes are available: {_histogram(+preemption)}.")


def _histogram(reasons: Counter[str]) -> str:
    return ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items()))
