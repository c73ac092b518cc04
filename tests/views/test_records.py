"""What the map says of a Pod is what `kubectl get pods` says."""

from __future__ import annotations

from typing import Any

import pytest

from kitlib.views.records import event_record, node_record, pod_record, service_record, slice_record
from views import objects

WAITING = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
ENDED = {"terminated": {"exitCode": 0, "reason": "Completed"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
INIT = [{"name": "setup", "state": {"running": {}}}]

STATUSES = [
    ("Running", "R", objects.pod()),
    ("Running", "N", objects.pod(ready=False)),
    ("Pending", "P", objects.pod(node="", phase="Pending")),
    ("ContainerCreating", "C", objects.pod(phase="Pending", state={"waiting": {"reason": "ContainerCreating"}})),
    ("Init:0/1", "C", objects.pod(phase="Pending", spec={"initContainers": [{"name": "setup"}]},
                                  status={"initContainerStatuses": INIT})),
    ("ImagePullBackOff", "!", objects.pod(phase="Pending", state={"waiting": {"reason": "ImagePullBackOff"}})),
    ("CrashLoopBackOff", "!", objects.pod(ready=False, state=WAITING)),
    ("OOMKilled", "!", objects.pod(ready=False, state=KILLED)),
    ("OOMKilled", "F", objects.pod(phase="Failed", state=KILLED)),
    ("Completed", "S", objects.pod(phase="Succeeded", state=ENDED)),
    ("Evicted", "F", objects.pod(phase="Failed", status={"reason": "Evicted"})),
    ("Terminating", "T", objects.pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})),
    ("Unknown", "U", objects.pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"},
                                 status={"reason": "NodeLost"})),
    ("SchedulingGated", "P", objects.pod(node="", phase="Pending", conditions=[
        {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}])),
    ("Signal:9", "F", objects.pod(phase="Failed", state={"terminated": {"exitCode": 137, "signal": 9}})),
]  # fmt: skip


@pytest.mark.parametrize(("status", "letter", "pod"), STATUSES, ids=[f"{case[0]}-{case[1]}" for case in STATUSES])
def test_a_tile_has_kubectls_status_and_a_letter_of_its_own(status: str, letter: str, pod: dict[str, Any]) -> None:
    record = pod_record(pod)
    assert (record["status"], record["letter"]) == (status, letter)


def test_a_tile_shows_readiness_restarts_gpus_and_the_image_tag() -> None:
    record = pod_record(objects.pod(restarts=3, limits={"nvidia.com/gpu": "2"}))
    assert (record["ready"], record["restarts"], record["gpus"], record["tag"]) == ("1/1", 3, 2, "v1")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "waits for a free GPU"),
        ("0/3 nodes are available: 3 Insufficient cpu.", "waits for free CPU"),
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", "no node carries the labels"),
        ("0/1 nodes are available: 1 node(s) had untolerated taint(s).", "a taint it does not tolerate"),
    ],
)
def test_a_pending_pod_says_in_words_what_it_waits_for(message: str, words: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    reason = pod_record(objects.pod(node="", phase="Pending", conditions=[condition]))["reason"]
    assert words in reason
    assert reason.endswith(message)


def test_a_crash_loop_says_how_the_container_ended() -> None:
    pod = objects.pod(ready=False, state=WAITING)
    pod["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error"}}
    assert pod_record(pod)["reason"] == ("back-off 10s restarting failed container (last end: Error, exit code 1)")


def test_a_simulated_gpu_is_never_called_a_real_one() -> None:
    assert node_record(objects.node(gpus=2, labels={"kit/gpu": "simulated"}))["gpuKind"] == "simulated GPU (CPU)"
    assert node_record(objects.node(gpus=2, labels={"nvidia.com/gpu.product": "H200"}))["gpuKind"] == "H200"
    assert node_record(objects.node())["gpuKind"] == ""


def test_a_node_shows_capacity_and_readiness() -> None:
    record = node_record(objects.node(ready="Unknown"))
    assert (record["ready"], record["status"], record["cpu"], record["memory"]) == (False, "NotReady", "2", "4.0")
    cordoned = objects.node() | {"spec": {"unschedulable": True}}
    assert node_record(cordoned)["status"] == "Ready,SchedulingDisabled"


def test_a_service_shows_its_ports_and_an_endpointslice_its_pods() -> None:
    metadata = {"name": "web", "namespace": "default", "uid": "s"}
    ports = [{"port": 8080, "nodePort": 31234, "protocol": "TCP"}]
    service = service_record(
        {"metadata": metadata, "spec": {"type": "NodePort", "clusterIP": "127.3.128.9", "ports": ports}}
    )
    assert service["ports"] == "8080:31234/TCP"
    endpoints = [
        {"targetRef": {"kind": "Pod", "uid": "a"}, "conditions": {"ready": True}},
        {"targetRef": {"kind": "Pod", "uid": "b"}, "conditions": {"ready": False}},
    ]
    labels = {"kubernetes.io/service-name": "web"}
    record = slice_record({"metadata": metadata | {"labels": labels}, "endpoints": endpoints})
    assert record == {"service": "web", "namespace": "default", "pods": {"a": True, "b": False}}


def test_an_event_counts_its_repetitions() -> None:
    assert event_record(objects.event("Pulled", 5, count=4))["count"] == 4
    assert event_record(objects.event("Pulled", 5, series={"count": 7}))["count"] == 7
