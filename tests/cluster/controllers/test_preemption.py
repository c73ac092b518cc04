"""A Pod of higher priority makes room for itself."""

from __future__ import annotations

from typing import Any

from lab import Lab, deployment, pod

HOSTNAME = "kubernetes.io/hostname"


async def classes(lab: Lab, **values: Any) -> None:
    for name, value in values.items():
        policy = {"preemptionPolicy": "Never"} if name == "polite" else {}
        body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        await lab.client.create("priorityclasses.scheduling.k8s.io", {**body, "value": value, **policy})


def wants(name: str, cpu: str, priority: str = "", node: str = "", **labels: str) -> dict[str, Any]:
    made = pod(name, labels)
    made["spec"]["containers"][0]["resources"] = {"requests": {"cpu": cpu}}
    if priority:
        made["spec"]["priorityClassName"] = priority
    if node:
        made["spec"]["nodeSelector"] = {HOSTNAME: node}
    return made


async def create(lab: Lab, *pods: dict[str, Any]) -> None:
    for each in pods:
        await lab.client.create("pods", each, "default")


async def running(lab: Lab, *names: str) -> bool:
    pods = {each["metadata"]["name"]: each["status"].get("phase") for each in await lab.list("pods")}
    return all(pods.get(name) == "Running" for name in names)


async def test_the_least_important_pod_goes_and_its_replacement_does_not_take_the_room(lab: Lab) -> None:
    lab.start()
    await classes(lab, high=1000, low=10)
    made = deployment("fill", 3)
    spec = made["spec"]["template"]["spec"]
    spec["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
    await lab.client.create("deployments.apps", made, "default")
    await create(lab, wants("better", "1", "low"))

    async def full() -> bool:
        pods = await lab.list("pods")
        return len(pods) == 4 and all(each["status"].get("phase") == "Running" for each in pods)

    await lab.until(full)
    await create(lab, wants("urgent", "1", "high"))
    await lab.until(lambda: running(lab, "urgent", "better"))
    urgent = await lab.get("pods", "urgent")
    assert "nominatedNodeName" not in urgent["status"]
    assert await lab.until(lambda: lab.events("Preempted")) == [
        f"Preempted by pod {urgent['metadata']['uid']} on node node-1"
    ]
    (event,) = [each for each in await lab.list("events") if each["reason"] == "Preempted"]
    assert (event["type"], event["action"], event["reportingComponent"]) == (
        "Normal",
        "Preempting",
        "default-scheduler",
    )
    assert event["involvedObject"]["name"].startswith("fill-")

    async def refusals() -> Any:
        return [each for each in await lab.events("FailedScheduling") if "No preemption victims found" in each]

    assert await lab.until(refusals)
    assert "0/1 nodes are available: 1 Insufficient cpu." in await lab.events("FailedScheduling")
    pods = {each["metadata"]["name"]: each["status"].get("phase") for each in await lab.list("pods")}
    assert sorted(pods.values()) == ["Pending", "Running", "Running", "Running", "Running"]


async def test_a_victim_ends_gracefully_and_the_room_is_kept_meanwhile(lab: Lab) -> None:
    lab.start()
    await classes(lab, high=1000)
    await create(lab, wants("old", "4"))
    await lab.until(lambda: running(lab, "old"))
    lab.silent.add("node-1")
    await create(lab, wants("urgent", "4", "high"))

    async def nominated() -> Any:
        return (await lab.get("pods", "urgent"))["status"].get("nominatedNodeName")

    assert await lab.until(nominated) == "node-1"

    async def leaving() -> Any:
        victim = await lab.get("pods", "old")
        return victim if victim["metadata"].get("deletionTimestamp") else None

    conditions = (await lab.until(leaving))["status"]["conditions"]
    (target,) = [each for each in conditions if each["type"] == "DisruptionTarget"]
    assert target["reason"] == "PreemptionByScheduler"
    await lab.client.delete("pods", "old", "default", grace_period_seconds=0)
    await create(lab, wants("late", "1"))

    async def bound() -> Any:
        return (await lab.get("pods", "urgent"))["spec"].get("nodeName")

    assert await lab.until(bound) == "node-1"
    assert "nodeName" not in (await lab.get("pods", "late"))["spec"]


async def test_preemption_policy_never_waits_its_turn(lab: Lab) -> None:
    lab.start()
    await classes(lab, polite=1000)
    await create(lab, wants("old", "4"))
    await lab.until(lambda: running(lab, "old"))
    await create(lab, wants("guest", "4", "polite"))
    assert await lab.until(lambda: lab.events("FailedScheduling")) == [
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, "
        "preemption: not eligible due to preemptionPolicy=Never."
    ]
    assert await running(lab, "old")


async def test_the_node_with_the_least_important_and_the_fewest_victims_is_chosen(lab: Lab) -> None:
    for name in ("node-2", "node-3"):
        await lab.node(name)
    lab.start()
    await classes(lab, high=1000, middle=100)
    await create(lab, wants("a", "4", "middle", "node-1"), wants("b", "2", "", "node-2"), wants("c", "2", "", "node-2"))
    await create(lab, wants("d", "3", "", "node-3"), wants("e", "1", "middle", "node-3"))
    await lab.until(lambda: running(lab, "a", "b", "c", "d", "e"))
    await create(lab, wants("urgent", "3", "high"))
    await lab.until(lambda: running(lab, "urgent"))
    assert (await lab.get("pods", "urgent"))["spec"]["nodeName"] == "node-3"
    assert await running(lab, "a", "b", "c", "e")


async def test_a_disruption_budget_is_respected_where_another_victim_can_be_found(lab: Lab) -> None:
    await lab.node("node-2")
    lab.start()
    await classes(lab, high=1000, middle=100)
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "keep"}}
    selector = {"matchLabels": {"app": "guarded"}}
    budget["spec"] = {"minAvailable": 1, "selector": selector}
    await lab.client.create("poddisruptionbudgets.policy", budget, "default")
    await create(lab, wants("guarded", "4", "", "node-1", app="guarded"), wants("other", "4", "middle", "node-2"))
    await lab.until(lambda: running(lab, "guarded", "other"))

    async def counted() -> Any:
        return (await lab.get("poddisruptionbudgets.policy", "keep"))["status"].get("currentHealthy")

    await lab.until(counted)
    await create(lab, wants("urgent", "4", "high"))
    await lab.until(lambda: running(lab, "urgent", "guarded"))
    assert (await lab.get("pods", "urgent"))["spec"]["nodeName"] == "node-2"
