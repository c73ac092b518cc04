"""Chapter 03: looking into Pods."""

from __future__ import annotations

from typing import Any

from kitlib.course.exercise import exercise
from kitlib.course.look import BOOTCAMP, deployment, is_ready, pods, require, text


@exercise(
    "03.1",
    "Where does it run?",
    hints=[
        "`kubectl get pods -o wide` has a column NODE.",
        "In the object it is `pod.spec.node_name`.",
    ],
    solution='pods = cluster.core.list_namespaced_pod(cluster.namespace, label_selector="app=kubernetes-bootcamp")\n'
    'answer = pods.items[0].spec.node_name\ncourse.check("03.1", answer)',
    needs_answer=True,
)
def where_does_it_run(cluster: Any, answer: Any) -> str:
    """The answer is the node of a Pod of the app."""
    deployment(cluster, BOOTCAMP)
    nodes = {pod.spec.node_name for pod in pods(cluster, f"app={BOOTCAMP}")}
    known = {node.metadata.name for node in cluster.core.list_node().items}
    given = text(answer, "the name of a node").removeprefix("node/")
    require(given in known, f"{given!r} is not the name of a node of this cluster.")
    require(given in nodes, f"{given} is a node, but no Pod of `{BOOTCAMP}` runs there now.")
    return f"A Pod of `{BOOTCAMP}` runs on {given}."


@exercise(
    "03.2",
    "Delete a Pod and name its successor",
    hints=[
        "Keep the name first, then `%kubectl delete pod NAME`; the Deployment notices at once.",
        "`%kubectl get pods` shows the new one. Give both names: `(old, new)`.",
    ],
    solution="old = %kubectl get pods -l app=kubernetes-bootcamp -o jsonpath='{.items[0].metadata.name}'\n"
    "%kubectl delete pod {old}\n"
    "%kubectl rollout status deployment/kubernetes-bootcamp\n"
    "new = %kubectl get pods -l app=kubernetes-bootcamp -o jsonpath='{.items[0].metadata.name}'\n"
    'course.check("03.2", (old, new))',
    needs_answer=True,
)
def successor(cluster: Any, answer: Any) -> str:
    """The answer is a pair: a Pod that is gone, and one of the same ReplicaSet that runs."""
    deployment(cluster, BOOTCAMP)
    require(isinstance(answer, (tuple, list)) and len(answer) == 2, "Give two names: `(old, new)`.")
    old, new = (str(name).strip().removeprefix("pod/") for name in answer)
    alive = {pod.metadata.name: pod for pod in pods(cluster, f"app={BOOTCAMP}")}
    require(old != new, "Both names are the same. A successor never inherits the name.")
    require(old not in alive, f"`{old}` is still there: delete it.")
    require(new in alive, f"There is no Pod `{new}` now.")
    require(old.rsplit("-", 1)[0] == new.rsplit("-", 1)[0], f"`{old}` was not made by the same ReplicaSet.")
    _require_deleted_by_hand(cluster, old)
    require(is_ready(alive[new]), f"`{new}` is not ready yet: wait a moment, check again.")
    return "The Pod died, the promise of one replica did not."


def _require_deleted_by_hand(cluster: Any, name: str) -> None:
    """Demand that a Pod was here and that no lost node took it; its events outlive it by an hour."""
    chosen = f"involvedObject.kind=Pod,involvedObject.name={name}"
    events = cluster.core.list_namespaced_event(cluster.namespace, field_selector=chosen).items
    require(events, f"There was no Pod `{name}` here lately.")
    evicted = any(event.reason == "TaintManagerEviction" for event in events)
    require(not evicted, f"`{name}` was lost with its node. Delete one by hand.")
