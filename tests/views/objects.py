"""Kubernetes objects as an API server returns them, cut to what the map reads."""

from __future__ import annotations

from typing import Any

BOOTCAMP = "gcr.io/google-samples/kubernetes-bootcamp:v1"


def pod(name: str = "web-1", node: str = "node-1", phase: str = "Running", **fields: Any) -> dict[str, Any]:
    """Return a Pod with one ready container; `container`, `conditions`, `limits`, ... change that."""
    ready = fields.get("ready", phase == "Running")
    state = fields.get("state", {"running": {}} if phase == "Running" else {})
    container = {"name": "main", "ready": ready, "restartCount": fields.get("restarts", 0), "state": state}
    conditions = fields.get("conditions", [{"type": "Ready", "status": "True" if ready else "False"}])
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "1"}
    spec = {"containers": [{"name": "main", "image": BOOTCAMP, "resources": {"limits": fields.get("limits", {})}}]}
    return {
        "metadata": metadata | fields.get("metadata", {}),
        "spec": spec | ({"nodeName": node} if node else {}) | fields.get("spec", {}),
        "status": {"phase": phase, "conditions": conditions, "podIP": "127.3.1.2"}
        | ({"containerStatuses": [container]} if state else {})
        | fields.get("status", {}),
    }


def node(
    name: str = "node-1", ready: str = "True", labels: dict[str, str] | None = None, gpus: int = 0
) -> dict[str, Any]:
    """Return a Node with two CPUs and 4 GiB."""
    capacity = {"cpu": "2", "memory": "4194304Ki"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels or {}, "resourceVersion": "1"},
        "spec": {},
        "status": {"capacity": capacity, "conditions": [{"type": "Ready", "status": ready}]},
    }


def event(reason: str, version: int, **fields: Any) -> dict[str, Any]:
    """Return a core/v1 Event about Pod web-1."""
    return {
        "metadata": {"name": f"e{version}", "uid": f"uid-e{version}", "resourceVersion": str(version)},
        "involvedObject": {"kind": "Pod", "name": "web-1"},
        "reason": reason,
        "type": "Normal",
        "message": f"{reason} it",
        "lastTimestamp": "2026-01-02T03:04:05Z",
    } | fields
