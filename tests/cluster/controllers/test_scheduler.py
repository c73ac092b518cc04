from __future__ import annotations

from collections import Counter
from typing import Any

from lab import FakeClock, Lab, deployment, pod

from kitlib.cluster.events import EventRecorder

HOSTNAME = "kubernetes.io/hostname"


async def _node_of(lab: Lab, name: str) -> str:
    return str((await lab.get("pods", name))["spec"].get("nodeName") or "")


async def _refusal(lab: Lab, name: str) -> str:
    conditions = (await lab.get("pods", name))["status"].get("conditions", [])
    return next((c["message"] for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), "")


def gpu_pod(name: str, number: int = 1, **spec: Any) -> dict[str, Any]:
    made = pod(name, **spec)
    made["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": number}}
    return made


async def test_a_pod_is_bound_and_the_event_says_where(lab: Lab) -> None:
    lab.start(kubelet=False)
    await lab.client.create("pods", pod("one"), "default")
    assert await lab.until(lambda: _node_of(lab, "one")) == "node-1"
    assert await lab.until(lambda: lab.events("Scheduled")) == ["Successfully assigned default/one to node-1"]
    (event,) = [item for item in await lab.list("events") if item["reason"] == "Scheduled"]
    assert (event["reportingComponent"], event["action"]) == ("default-scheduler", "Binding")
    assert event["eventTime"] and not event.get("count") and not event.get("firstTimestamp")


async def test_a_pod_that_asks_for_a_gpu_where_there_is_none_waits_until_there_is_one(lab: Lab) -> None:
    await lab.node("node-2")
    lab.start(kubelet=False)
    await lab.client.create("pods", gpu_pod("train"), "default")
    text = (
        "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. no new claims to deallocate, "
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )
    assert await lab.until(lambda: _refusal(lab, "train")) == text
    assert await lab.until(lambda: lab.events("FailedScheduling")) == [text]
    await lab.node("node-3", resources={"nvidia.com/gpu": "2"})
    assert await lab.until(lambda: _node_of(lab, "train")) == "node-3"


async def test_every_reason_is_counted(lab: Lab) -> None:
    await lab.node("node-2", spec={"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]})
    await lab.node("node-3", spec={"unschedulable": True})
    await lab.node("node-4", labels={"disk": "ssd"}, cpu="1")
    lab.start(kubelet=False)
    big = pod("big", nodeSelector={"disk": "ssd"})
    big["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "2"}}
    await lab.client.create("pods", big, "default")
    assert (await lab.until(lambda: _refusal(lab, "big"))).startswith(
        "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. "
    )


async def test_the_end_of_a_pod_makes_room_for_one_that_waits(slow_lab: Lab) -> None:
    lab = slow_lab
    assert isinstance(lab.clock, FakeClock)
    await lab.node("node-2", resources={"nvidia.com/gpu": "1"})
    lab.start()
    await lab.client.create("pods", gpu_pod("first"), "default")
    await lab.until(lambda: _node_of(lab, "first"))
    await lab.client.create("pods", gpu_pod("second"), "default")
    refusal = await lab.until(lambda: _refusal(lab, "second"))
    assert "1 No preemption victims found for incoming pod" in refusal
    await lab.client.delete("pods", "first", "default")

    async def gone() -> bool:
        return len(await lab.list("pods")) == 1

    await lab.until(gone)
    await lab.clock.advance(2)
    assert await lab.until(lambda: _node_of(lab, "second")) == "node-2"


async def test_replicas_spread_over_equal_nodes(lab: Lab) -> None:
    for name in ("node-2", "node-3"):
        await lab.node(name)
    lab.start()
    await lab.client.create("deployments.apps", deployment("web", 9), "default")

    async def placed() -> Any:
        nodes = [item["spec"].get("nodeName") for item in await lab.list("pods")]
        return Counter(nodes) if len(nodes) == 9 and all(nodes) else None

    assert set((await lab.until(placed)).values()) == {3}


async def test_pods_that_must_not_meet_do_not(lab: Lab) -> None:
    await lab.node("node-2")
    lab.start(kubelet=False)
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": HOSTNAME}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    for name in ("db-0", "db-1", "db-2"):
        await lab.client.create("pods", pod(name, {"app": "db"}, affinity=apart), "default")
    assert "2 node(s) didn't match pod anti-affinity rules" in await lab.until(lambda: _any_refusal(lab))
    nodes = [item["spec"].get("nodeName") for item in await lab.list("pods")]
    assert sorted(filter(None, nodes)) == ["node-1", "node-2"]
    await lab.client.create("pods", pod("plain", {"app": "db"}), "default")
    assert "didn't satisfy existing pods anti-affinity rules" in await lab.until(lambda: _refusal(lab, "plain"))


async def _any_refusal(lab: Lab) -> str:
    for item in await lab.list("pods"):
        text = await _refusal(lab, item["metadata"]["name"])
        if text:
            return text
    return ""


async def test_pods_that_want_company_follow_the_first(lab: Lab) -> None:
    for name in ("node-2", "node-3"):
        await lab.node(name)
    lab.start(kubelet=False)
    term = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": HOSTNAME}
    together = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    for number in range(4):
        await lab.client.create("pods", pod(f"web-{number}", {"app": "web"}, affinity=together), "default")

    async def places() -> Any:
        nodes = {item["spec"].get("nodeName") for item in await lab.list("pods")}
        return nodes if None not in nodes else None

    assert len(await lab.until(places)) == 1


async def test_a_hard_spread_constraint_keeps_the_skew(lab: Lab) -> None:
    await lab.node("node-2", cpu="1")
    lab.start(kubelet=False)
    constraint = {
        "maxSkew": 1,
        "topologyKey": HOSTNAME,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    for number in range(4):
        one = pod(f"web-{number}", {"app": "web"}, topologySpreadConstraints=[constraint])
        one["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "600m"}}
        await lab.client.create("pods", one, "default")
    text = await lab.until(lambda: _any_refusal(lab))
    assert "1 Insufficient cpu" in text
    assert "1 node(s) didn't match pod topology spread constraints" in text


async def test_a_gated_pod_is_left_alone_until_its_gate_is_lifted(lab: Lab) -> None:
    lab.start(kubelet=False)
    await lab.client.create("pods", pod("gated", schedulingGates=[{"name": "example.org/wait"}]), "default")
    await lab.client.create("pods", pod("free"), "default")
    await lab.until(lambda: _node_of(lab, "free"))
    assert not await _node_of(lab, "gated")
    await lab.client.patch("pods", "gated", {"spec": {"schedulingGates": None}}, "default")
    assert await lab.until(lambda: _node_of(lab, "gated"))


async def test_two_pods_cannot_have_the_same_host_port(lab: Lab) -> None:
    lab.start(kubelet=False)
    for name in ("one", "two"):
        made = pod(name)
        made["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080}]
        await lab.client.create("pods", made, "default")
    text = "1 node(s) didn't have free ports for the requested pod ports"
    assert text in await lab.until(lambda: _any_refusal(lab))


async def test_without_nodes_a_pod_is_unschedulable(lab: Lab) -> None:
    await lab.client.delete("nodes", "node-1")
    lab.start(kubelet=False)
    await lab.client.create("pods", pod("one"), "default")
    assert await lab.until(lambda: _refusal(lab, "one")) == "no nodes available to schedule pods"


async def test_a_scheduler_repeats_an_event_of_a_pod_only_while_the_pod_stays_the_same(lab: Lab) -> None:
    await lab.client.create("pods", pod("p"), "default")
    recorder = EventRecorder(lab.client, "default-scheduler", clock=lab.clock)
    first = {"apiVersion": "v1", "kind": "Pod", **await lab.get("pods", "p")}
    later = {**first, "metadata": {**first["metadata"], "resourceVersion": "999999"}}
    for obj in (first, later, later):
        recorder.event_with_action(obj, "Warning", "FailedScheduling", "Scheduling", "0/0 nodes are available.")
    await recorder.flush()
    await recorder.close()
    found = await lab.list("events")
    assert sorted((event.get("series") or {}).get("count", 1) for event in found) == [1, 2]
