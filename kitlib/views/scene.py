"""The cluster map as plain data, and as text: what the picture draws is what `text()` says."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

Json = dict[str, Any]

LAST_EVENTS = 8


def scene(
    nodes: Iterable[Json],
    pods: Iterable[Json],
    services: Iterable[Json] = (),
    slices: Iterable[Json] = (),
    events: Iterable[Json] = (),
) -> Json:
    """Put records together to what the map shows: nodes with their Pods, waiting Pods, Services, events.

    Args:
        nodes: From `records.node_record`.
        pods: From `records.pod_record`.
        services: From `records.service_record`.
        slices: From `records.slice_record`.
        events: From `records.event_record`.

    Returns:
        JSON-ready values, in a stable order.
    """
    tiles = sorted(pods, key=lambda pod: (pod["namespace"], pod["name"], pod["uid"]))
    boxes = {node["name"]: {**node, "pods": []} for node in sorted(nodes, key=lambda node: _natural(node["name"]))}
    for tile in tiles:
        if tile["node"]:
            boxes.setdefault(tile["node"], _unknown_node(tile["node"]))["pods"].append(tile)
    for box in boxes.values():
        box["gpusUsed"] = sum(tile["gpus"] for tile in box["pods"] if tile["active"])
    return {
        "nodes": list(boxes.values()),
        "waiting": [tile for tile in tiles if not tile["node"]],
        "services": _with_pods(services, list(slices)),
        "events": sorted(events, key=lambda event: (event["time"], event["order"]))[-LAST_EVENTS:],
    }


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)


def _unknown_node(name: str) -> Json:
    """Return a box for a node that this user may not read or that is gone, while Pods still name it."""
    return {
        "name": name, "ready": None, "status": "", "cpu": "", "memory": "",
        "gpus": 0, "gpuKind": "", "hollow": False, "pods": [],
    }  # fmt: skip


def _with_pods(services: Iterable[Json], slices: list[Json]) -> list[Json]:
    result = []
    for service in sorted(services, key=lambda service: (service["namespace"], service["name"])):
        pods: dict[str, bool] = {}
        for item in slices:
            if (item["service"], item["namespace"]) == (service["name"], service["namespace"]):
                pods.update(item["pods"])
        result.append({**service, "pods": pods})
    return result


def text(state: Json) -> str:
    """Return a scene as lines of plain text."""
    lines = [f"{state.get('title', 'cluster')}: {summary(state)}"]
    lines += [f"! {problem}" for problem in state.get("problems", ())]
    for node in state["nodes"]:
        lines.append(_node_line(node))
        lines += [f"  {_pod_line(pod)}" for pod in node["pods"]] or ["  (no Pods)"]
    if state["waiting"]:
        lines.append("waiting for a node")
        lines += [f"  {_pod_line(pod)}" for pod in state["waiting"]]
    lines += [_service_line(service, state) for service in state["services"]]
    if state["events"]:
        lines.append("last events")
        lines += [f"  {_event_line(event)}" for event in state["events"]]
    return "\n".join(lines)


def summary(state: Json) -> str:
    """Return the scene in half a sentence, such as `3 nodes (3 Ready), 4 Pods (4 Running)`."""
    tiles = [pod for node in state["nodes"] for pod in node["pods"]] + state["waiting"]
    counts: dict[str, int] = {}
    for tile in tiles:
        counts[tile["status"]] = counts.get(tile["status"], 0) + 1
    states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    ready = sum(bool(node["ready"]) for node in state["nodes"])
    pods = f"{_plural(len(tiles), 'Pod')} ({states})" if tiles else "no Pods"
    return f"{_plural(len(state['nodes']), 'node')} ({ready} Ready), {pods}"


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _node_line(node: Json) -> str:
    parts = [node["name"], node["status"]]
    if node["cpu"]:
        parts.append(f"cpu {node['cpu']}, memory {node['memory']} GiB")
    if node["gpus"]:
        parts.append(f"{node['gpusUsed']} of {node['gpus']} in use: {node['gpuKind']}")
    if node["hollow"]:
        parts.append("hollow: nothing runs here")
    return "  ".join(part for part in parts if part)


def _pod_line(pod: Json) -> str:
    parts = [f"[{pod['letter']}] {pod['name']}", pod["status"], f"ready {pod['ready']}", pod["tag"]]
    if pod["restarts"]:
        parts.append(f"restarts {pod['restarts']}")
    if pod["gpus"]:
        parts.append(f"GPUs {pod['gpus']}")
    return "  ".join([*parts, *filter(None, [pod["reason"]])])


def _service_line(service: Json, state: Json) -> str:
    names = {pod["uid"]: pod["name"] for node in state["nodes"] for pod in node["pods"]}
    ready = ", ".join(names.get(uid, uid) for uid, is_ready in service["pods"].items() if is_ready)
    address = f"{service['type']} {service['ip']} {service['ports']}"
    return f"Service {service['name']}  {address} -> {ready or 'no ready Pod'}"


def _event_line(event: Json) -> str:
    count = f" (x{event['count']})" if event["count"] > 1 else ""
    return f"{_clock(event['time'])}  {event['type']}  {event['reason']}  {event['object']}  {event['message']}{count}"


def _clock(moment: str) -> str:
    """Return a time of the API (UTC) as local hours, minutes and seconds."""
    try:
        parsed = datetime.fromisoformat(moment).replace(tzinfo=timezone.utc)
    except ValueError:
        return "--:--:--"
    return f"{parsed.astimezone():%H:%M:%S}"
