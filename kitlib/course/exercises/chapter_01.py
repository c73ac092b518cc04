"""Chapter 01: reading nodes."""

from __future__ import annotations

from typing import Any

from kitlib.course.exercise import exercise
from kitlib.course.look import number, require, text


@exercise(
    "01.1",
    "Which container runtime?",
    hints=[
        "`kubectl get nodes -o wide` has a column for it.",
        "In the object it is `node.status.node_info.container_runtime_version`.",
    ],
    solution="nodes = cluster.core.list_node().items\n"
    "answer = nodes[0].status.node_info.container_runtime_version\n"
    'course.check("01.1", answer)',
    needs_answer=True,
)
def container_runtime(cluster: Any, answer: Any) -> str:
    """The answer is the container runtime of a node."""
    nodes = cluster.core.list_node().items
    runtimes = {node.status.node_info.container_runtime_version for node in nodes}
    given = text(answer, "a text such as `containerd://2.1`")
    name_only = given in {runtime.split(":")[0] for runtime in runtimes}
    require(not name_only, f"`{given}` is its name; the column holds the version as well.")
    require(given in runtimes, f"No node says that its container runtime is {given!r}.")
    return f"The runtime here is {', '.join(sorted(runtimes))}."


@exercise(
    "01.2",
    "Room for Pods",
    hints=[
        "Every node says in `status.allocatable` how much of everything it can give away, Pods included.",
        "Sum `int(node.status.allocatable['pods'])` over `cluster.core.list_node().items`.",
    ],
    solution="nodes = cluster.core.list_node().items\n"
    'answer = sum(int(node.status.allocatable["pods"]) for node in nodes)\n'
    'course.check("01.2", answer)',
    needs_answer=True,
)
def room_for_pods(cluster: Any, answer: Any) -> str:
    """The answer is the sum of allocatable Pods."""
    nodes = cluster.core.list_node().items
    total = sum(int(node.status.allocatable["pods"]) for node in nodes)
    given = number(answer)
    single = given in [int(node.status.allocatable["pods"]) for node in nodes] and given != total
    require(not single, f"{given} is what one node has room for. Add up all {len(nodes)}.")
    require(given == total, f"It is not {given}: add `allocatable` (not `capacity`) over all nodes.")
    return f"{total} Pods at most, however small they are."
