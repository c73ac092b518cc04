"""Chapter 00: first looks at a cluster, and how checks work."""

from __future__ import annotations

from typing import Any

from kitlib.course.exercise import exercise
from kitlib.course.look import number, read, require


@exercise(
    "00.1",
    "Count the nodes",
    hints=[
        "`kubectl get` followed by the name of a kind lists all objects of that kind.",
        "Run `%kubectl get nodes` and count the lines below the heading.",
    ],
    solution='answer = len(cluster.core.list_node().items)\ncourse.check("00.1", answer)',
    needs_answer=True,
)
def count_nodes(cluster: Any, answer: Any) -> str:
    """The answer is the number of nodes."""
    count = len(cluster.core.list_node().items)
    require(number(answer) == count, f"The cluster does not have {answer} node(s). Count once more.")
    return f"This cluster has {count} node(s)."


@exercise(
    "00.2",
    "Your first object",
    hints=[
        "Objects are made with `kubectl create`; `%kubectl create configmap --help` begins with examples.",
        "Key and value are given with `--from-literal`; the examples call them `key1` and `config1`.",
        "`%kubectl create configmap NAME --from-literal=KEY=VALUE`, with `hello`, `learner` and your name.",
    ],
    solution="%kubectl create configmap hello --from-literal=learner=Ada",
)
def first_object(cluster: Any, answer: Any) -> str:
    """A ConfigMap `hello` has a key `learner`."""
    found = read(cluster.core.read_namespaced_config_map, "ConfigMap", "hello", cluster.namespace)
    name = (found.data or {}).get("learner")
    again = "`%kubectl delete configmap hello`, and make it anew."
    require(name, f"The ConfigMap `hello` exists, but it has no key `learner`. {again}")
    return f"Welcome, {name}. The cluster stores your first object."
