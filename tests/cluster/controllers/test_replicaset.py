from __future__ import annotations

from typing import Any

from lab import Lab, deployment, pod

from kitlib.cluster.controllers.replicaset import deletion_rank
from kitlib.cluster.objects import phase


def replica_set(name: str, replicas: int, image: str = "web:v1") -> dict[str, Any]:
    return {**deployment(name, replicas, image), "kind": "ReplicaSet"}


async def _ready(lab: Lab, number: int) -> list[dict[str, Any]]:
    found = await lab.get("replicasets.apps", "web")
    pods = await lab.list("pods", selector="app=web")
    return pods if found["status"].get("readyReplicas", 0) == number == len(pods) else []


async def test_a_pod_whose_label_is_taken_off_is_released_and_replaced(lab: Lab) -> None:
    lab.start()
    await lab.client.create("replicasets.apps", replica_set("web", 2), "default")
    first, _ = await lab.until(lambda: _ready(lab, 2))
    name = first["metadata"]["name"]
    await lab.client.patch("pods", name, {"metadata": {"labels": {"app": "debug"}}}, "default")
    await lab.until(lambda: _ready(lab, 2))

    async def released() -> bool:
        return not (await lab.get("pods", name))["metadata"].get("ownerReferences")

    await lab.until(released)


async def test_an_orphan_with_matching_labels_is_adopted(lab: Lab) -> None:
    lab.start()
    await lab.client.create("pods", pod("loner", {"app": "web"}), "default")
    await lab.client.create("replicasets.apps", replica_set("web", 2), "default")
    pods = await lab.until(lambda: _ready(lab, 2))
    loner = next(item for item in pods if item["metadata"]["name"] == "loner")
    assert loner["metadata"]["ownerReferences"][0]["name"] == "web"


async def test_a_refused_pod_becomes_a_condition_and_an_event(lab: Lab) -> None:
    lab.start()
    broken = replica_set("web", 3)
    broken["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    broken["spec"]["template"]["spec"]["priorityClassName"] = "no-such-class"
    await lab.client.create("replicasets.apps", broken, "default")

    async def failed() -> Any:
        status = (await lab.get("replicasets.apps", "web"))["status"]
        return [item for item in status.get("conditions", []) if item["type"] == "ReplicaFailure"]

    (condition,) = await lab.until(failed)
    assert (condition["status"], condition["reason"]) == ("True", "FailedCreate")
    assert (await lab.until(lambda: lab.events("FailedCreate")))[0].startswith("Error creating: ")


async def test_scaling_down_takes_pods_that_are_not_running_first(lab: Lab) -> None:
    lab.start()
    lab.broken_images.add("web:v1")
    await lab.client.create("replicasets.apps", replica_set("web", 3), "default")

    async def bound() -> Any:
        pods = [item for item in await lab.list("pods") if item["spec"].get("nodeName")]
        return pods if len(pods) == 3 else None

    pods = await lab.until(bound)
    await lab.run_pod(pods[1])
    await lab.until(lambda: _is_running(lab, pods[1]["metadata"]["name"]))
    await lab.client.patch("replicasets.apps", "web", {"spec": {"replicas": 1}}, "default")
    (left,) = await lab.until(lambda: _ready(lab, 1))
    assert left["metadata"]["name"] == pods[1]["metadata"]["name"]


async def _is_running(lab: Lab, name: str) -> bool:
    status = (await lab.get("replicasets.apps", "web"))["status"]
    return status.get("readyReplicas") == 1 and phase(await lab.get("pods", name)) == "Running"


def _candidate(name: str, **changes: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    metadata = {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z", **changes.get("metadata", {})}
    status = {"phase": "Running", "conditions": conditions, **changes.get("status", {})}
    return {"metadata": metadata, "spec": {"nodeName": "n", **changes.get("spec", {})}, "status": status}


def test_victims_are_ranked_as_kubernetes_ranks_them() -> None:
    cost = {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}
    restarted = {"containerStatuses": [{"restartCount": 3}]}
    late = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:00:00Z"}]
    pods = [
        _candidate("unbound", spec={"nodeName": ""}, status={"phase": "Pending"}),
        _candidate("pending", status={"phase": "Pending", "conditions": []}),
        _candidate("unready", status={"conditions": []}),
        _candidate("cheap", metadata=cost),
        _candidate("newly-ready", status={"conditions": late}),
        _candidate("restarted", status=restarted),
        _candidate("steady"),
    ]
    now = 1767268800.0  # 2026-01-01T12:00:00Z
    ranked = sorted(reversed(pods), key=lambda item: deletion_rank(item, 1, now))
    assert [item["metadata"]["name"] for item in ranked] == [item["metadata"]["name"] for item in pods]
