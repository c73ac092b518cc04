from __future__ import annotations

from typing import Any

import pytest
from lab import FakeClock, Lab, deployment, pod

from kitlib.cluster.clock import rfc3339, rfc3339_micro
from kitlib.cluster.controllers import CONTROLLERS
from kitlib.cluster.controllers.nodelifecycle import wanted_taints
from kitlib.cluster.controllers.tainteviction import eviction_time

UNREACHABLE = "node.kubernetes.io/unreachable"


async def _heartbeat(lab: Lab, name: str) -> None:
    spec = {"holderIdentity": name, "renewTime": rfc3339_micro(lab.clock.now())}
    metadata = {"name": name, "namespace": "kube-node-lease"}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    present = {item["metadata"]["name"] for item in await lab.list("leases.coordination.k8s.io", "kube-node-lease")}
    if name in present:
        await lab.client.patch("leases.coordination.k8s.io", name, {"spec": spec}, "kube-node-lease")
    else:
        await lab.client.create("leases.coordination.k8s.io", lease, "kube-node-lease")


async def _pass(lab: Lab, seconds: int, *alive: str) -> None:
    for _ in range(seconds):
        for name in alive:
            await _heartbeat(lab, name)
        await lab.clock.advance(1)


async def _condition(lab: Lab, node: str) -> dict[str, Any]:
    conditions = (await lab.get("nodes", node, None))["status"]["conditions"]
    return next(item for item in conditions if item["type"] == "Ready")


async def test_a_silent_node_is_unknown_and_its_pods_come_back_elsewhere(slow_lab: Lab) -> None:
    lab = slow_lab
    await lab.node("node-2")
    lab.start(*CONTROLLERS)
    await lab.client.create("deployments.apps", deployment("web", 2), "default")

    async def spread() -> bool:
        pods = await lab.list("pods")
        places = {item["spec"].get("nodeName") for item in pods if item["status"]["phase"] == "Running"}
        return places == {"node-1", "node-2"}

    await lab.until(spread)
    await _pass(lab, 3, "node-1", "node-2")
    assert (await _condition(lab, "node-2"))["status"] == "True"
    lab.silent.add("node-2")
    await _pass(lab, 8, "node-1")
    ready = await _condition(lab, "node-2")
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert ready["message"] == "Kubelet stopped posting node status."
    taints = (await lab.get("nodes", "node-2", None))["spec"]["taints"]
    assert {(taint["key"], taint["effect"]) for taint in taints} == {
        (UNREACHABLE, "NoSchedule"),
        (UNREACHABLE, "NoExecute"),
    }
    await _pass(lab, 6, "node-1")

    async def replaced() -> Any:
        pods = await lab.list("pods")
        alive = [p for p in pods if "deletionTimestamp" not in p["metadata"] and p["status"]["phase"] == "Running"]
        doomed = [p for p in pods if "deletionTimestamp" in p["metadata"]]
        here = [p["spec"]["nodeName"] for p in alive] == ["node-1", "node-1"]
        return doomed if here else None

    (doomed,) = await lab.until(replaced)
    name = doomed["metadata"]["name"]
    assert await lab.events("TaintManagerEviction") == [f"Marking for deletion Pod default/{name}"]
    conditions = {item["type"]: item for item in doomed["status"]["conditions"]}
    assert conditions["DisruptionTarget"]["reason"] == "DeletionByTaintManager"
    assert conditions["Ready"]["status"] == "False"
    assert "Node node-2 status is now: NodeNotReady" in await lab.events("NodeNotReady")
    await _pass(lab, 20, "node-1")
    assert name in {item["metadata"]["name"] for item in await lab.list("pods")}, "it stays Terminating"
    await lab.client.delete("nodes", "node-2")
    await _pass(lab, 3, "node-1")

    async def collected() -> bool:
        return name not in {item["metadata"]["name"] for item in await lab.list("pods")}

    await lab.until(collected)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_is_set_loses_no_node_and_hides_no_lost_one(slow_lab: Lab, jump: float) -> None:
    lab = slow_lab
    assert isinstance(lab.clock, FakeClock)
    await lab.node("node-2")
    lab.start(*CONTROLLERS)
    await _pass(lab, 3, "node-1", "node-2")
    lab.clock.set_by = jump
    await lab.client.patch("nodes", "node-2", {"metadata": {"labels": {"looked-at": "now"}}})
    await _pass(lab, 1)
    assert not (await lab.get("nodes", "node-2", None))["spec"].get("taints")
    await _pass(lab, 8, "node-1")
    assert (await _condition(lab, "node-1"))["status"] == "True"
    assert (await _condition(lab, "node-2"))["status"] == "Unknown"


async def test_a_cordoned_node_gets_no_new_pods(lab: Lab) -> None:
    lab.start()
    await lab.client.patch("nodes", "node-1", {"spec": {"unschedulable": True}})
    await lab.client.create("pods", pod("one"), "default")

    async def refused() -> bool:
        conditions = (await lab.get("pods", "one"))["status"].get("conditions", [])
        return any("1 node(s) were unschedulable" in item.get("message", "") for item in conditions)

    await lab.until(refused)
    await lab.client.patch("nodes", "node-1", {"spec": {"unschedulable": False}})

    async def bound() -> bool:
        return bool((await lab.get("pods", "one"))["spec"].get("nodeName"))

    await lab.until(bound)


def _node(ready: str, *taints: Any, unschedulable: bool = False) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]
    spec = {"taints": list(taints), "unschedulable": unschedulable}
    return {"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}


GPU_ONLY = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
LOST = {"key": UNREACHABLE, "effect": "NoSchedule", "timeAdded": rfc3339(1000)}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (_node("True"), []),
        (_node("True", LOST, GPU_ONLY), [("gpu", "NoSchedule")]),
        (_node("Unknown", LOST), [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        (_node("False"), [("node.kubernetes.io/not-ready", effect) for effect in ("NoSchedule", "NoExecute")]),
        (_node("True", unschedulable=True), [("node.kubernetes.io/unschedulable", "NoSchedule")]),
    ],
)
def test_taints_follow_conditions_and_those_of_others_stay(node: Any, expected: list[Any]) -> None:
    taints = wanted_taints(node, 2000)
    assert [(taint["key"], taint["effect"]) for taint in taints] == expected
    assert all(taint in taints for taint in node["spec"]["taints"] if (taint["key"], taint["effect"]) in expected)


TAINT = {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": rfc3339(1000)}


@pytest.mark.parametrize(
    ("tolerations", "due"),
    [
        ([], 0),
        ([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}], 1003),
        ([{"key": UNREACHABLE, "operator": "Exists"}], None),
        ([{"operator": "Exists"}], None),
        ([{"key": "other", "operator": "Exists"}], 0),
    ],
)
def test_a_pod_leaves_when_its_shortest_toleration_is_over(tolerations: list[Any], due: float | None) -> None:
    assert eviction_time([TAINT], tolerations) == due
