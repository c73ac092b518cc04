"""Which nodes a Pod may run on: node selectors, node affinity, taints and tolerations.

Stands for `k8s.io/component-helpers/scheduling/corev1`, which the scheduler, the DaemonSet controller and taint
eviction share.
"""

from __future__ import annotations

from collections.abc import Iterable

from kitlib.cluster.labels import requirement_met
from kitlib.cluster.objects import Object


def tolerates(tolerations: Iterable[Object], taint: Object) -> bool:
    """Tell whether one of the tolerations covers the taint."""
    return any(covers(toleration, taint) for toleration in tolerations)


def covers(toleration: Object, taint: Object) -> bool:
    """Tell whether a toleration covers a taint; without an effect or a key it covers any."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and bool(toleration.get("value", "") == taint.get("value", ""))


def node_matches(term: Object, node: Object) -> bool:
    """Tell whether a node meets a `NodeSelectorTerm`; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels = node["metadata"].get("labels") or {}
    names = {"metadata.name": node["metadata"]["name"]}
    return all(requirement_met(item, labels) for item in expressions) and all(
        requirement_met(item, names) for item in fields
    )


def wants_node(spec: Object, node: Object) -> bool:
    """Tell whether a node meets the `nodeSelector` and the required node affinity of a Pod's spec."""
    selector = spec.get("nodeSelector") or {}
    if not selector.items() <= (node["metadata"].get("labels") or {}).items():
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(node_matches(term, node) for term in required["nodeSelectorTerms"])


def taints_of(node: Object) -> list[Object]:
    """Return the node's taints."""
    return (node.get("spec") or {}).get("taints") or []
