"""The map in plain text says what the picture shows."""

from __future__ import annotations

from kitlib.views.records import event_record, node_record, pod_record
from kitlib.views.scene import LAST_EVENTS, scene, text
from views import objects


def test_pods_lie_in_the_box_of_their_node_and_pending_ones_wait() -> None:
    pods = [objects.pod("web-2", node="node-2"), objects.pod("web-1"), objects.pod("late", node="", phase="Pending")]
    state = scene(
        map(node_record, [objects.node("node-10"), objects.node("node-2"), objects.node()]), map(pod_record, pods)
    )
    assert [(box["name"], [pod["name"] for pod in box["pods"]]) for box in state["nodes"]] == [
        ("node-1", ["web-1"]),
        ("node-2", ["web-2"]),
        ("node-10", []),
    ]
    assert [pod["name"] for pod in state["waiting"]] == ["late"]


def test_a_pod_keeps_a_gpu_until_it_ends() -> None:
    limits = {"nvidia.com/gpu": "1"}
    pods = [objects.pod("a", limits=limits), objects.pod("b", phase="Succeeded", limits=limits)]
    state = scene([node_record(objects.node(gpus=2, labels={"kit/gpu": "simulated"}))], map(pod_record, pods))
    assert state["nodes"][0]["gpusUsed"] == 1
    assert "1 of 2 in use: simulated GPU (CPU)" in text(state)


def test_without_the_right_to_read_nodes_pods_still_have_a_box() -> None:
    state = scene([], [pod_record(objects.pod())])
    assert [box["name"] for box in state["nodes"]] == ["node-1"]


def test_the_log_holds_the_last_events_in_order() -> None:
    events = [event_record(objects.event(f"Reason{number}", number)) for number in range(30, 0, -1)]
    state = scene([], [], events=events)
    assert [event["reason"] for event in state["events"]] == [f"Reason{n}" for n in range(31 - LAST_EVENTS, 31)]


def test_the_text_names_every_node_pod_and_reason() -> None:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    waiting = objects.pod("late", node="", phase="Pending", conditions=[
        {"type": "PodScheduled", "status": "False", "message": message}])  # fmt: skip
    state = scene([node_record(objects.node())], map(pod_record, [objects.pod(restarts=2), waiting]))
    assert text(state).splitlines() == [
        "cluster: 1 node (1 Ready), 2 Pods (1 Pending, 1 Running)",
        "node-1  Ready  cpu 2, memory 4.0 GiB",
        "  [R] web-1  Running  ready 1/1  v1  restarts 2",
        "waiting for a node",
        f"  [P] late  Pending  ready 0/1  v1  waits for a free GPU: {message}",
    ]
