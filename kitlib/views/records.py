"""What the cluster map keeps of each Kubernetes object, in the words that `kubectl get` uses.

The STATUS of a Pod follows `printPod` in kubernetes/pkg/printers/internalversion/printers.go.
"""

from __future__ import annotations

import re
from typing import Any

from kubernetes.utils.quantity import parse_quantity

Json = dict[str, Any]

GPU = "nvidia.com/gpu"
SIMULATED_GPU_LABEL = "kit/gpu"
GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
HOLLOW_LABEL = "kit/hollow"

TONES = {
    "R": "run", "N": "warn", "P": "wait", "C": "wait", "S": "done",
    "F": "fail", "!": "fail", "T": "end", "U": "warn",
}  # fmt: skip
"""Colour of a tile, by its letter."""

WAITING_WORDS = (
    (rf"Insufficient {GPU}", "waits for a free GPU"),
    (r"Insufficient cpu", "waits for free CPU"),
    (r"Insufficient memory", "waits for free memory"),
    (r"Too many pods", "waits for a node with room for more Pods"),
    (r"node affinity|node selector", "no node carries the labels it asks for"),
    (r"anti-affinity|pod affinity", "no node fits its wishes about neighbours"),
    (r"untolerated taint", "every node has a taint it does not tolerate"),
    (r"unschedulable", "every node is cordoned"),
    (r"persistentvolumeclaim", "waits for its volume"),
)


def node_record(node: Json) -> Json:
    """Return what the map shows of a Node."""
    metadata, status = node["metadata"], node.get("status") or {}
    labels, capacity = metadata.get("labels") or {}, status.get("capacity") or {}
    ready = _condition(node, "Ready").get("status") == "True"
    cordoned = bool((node.get("spec") or {}).get("unschedulable"))
    gpus = int(parse_quantity(capacity.get(GPU, 0)))
    return {
        "name": metadata["name"],
        "ready": ready,
        "status": ("Ready" if ready else "NotReady") + (",SchedulingDisabled" if cordoned else ""),
        "cpu": f"{float(parse_quantity(capacity.get('cpu', 0))):g}",
        "memory": f"{float(parse_quantity(capacity.get('memory', 0))) / 2**30:.1f}",
        "gpus": gpus,
        "gpuKind": _gpu_kind(labels) if gpus else "",
        "hollow": labels.get(HOLLOW_LABEL) == "true",
    }


def _gpu_kind(labels: Json) -> str:
    if labels.get(SIMULATED_GPU_LABEL) == "simulated":
        return "simulated GPU (CPU)"
    return str(labels.get(GPU_PRODUCT_LABEL) or "GPU")


def pod_record(pod: Json) -> Json:
    """Return what the map shows of a Pod."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    ready = sum(bool(container.get("ready")) for container in containers)
    words = pod_status(pod)
    letter = _letter(pod, words)
    return {
        "uid": metadata["uid"],
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "node": spec.get("nodeName") or "",
        "status": words,
        "letter": letter,
        "tone": TONES[letter],
        "ready": f"{ready}/{len(spec['containers'])}",
        "restarts": sum(int(container.get("restartCount") or 0) for container in containers),
        "gpus": _gpus_asked(spec),
        "tag": _tag(spec["containers"][0].get("image", "")),
        "ip": status.get("podIP") or "",
        "reason": _reason(pod),
        "active": status.get("phase") not in ("Succeeded", "Failed"),
    }


def pod_status(pod: Json) -> str:
    """Return the STATUS column of `kubectl get pods`."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    words = str(status.get("reason") or status.get("phase") or "Unknown")
    if _condition(pod, "PodScheduled").get("reason") == "SchedulingGated":
        words = "SchedulingGated"
    starting = _init_status(pod)
    words = starting or _container_status(pod, words)
    if metadata.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return words


def _init_status(pod: Json) -> str:
    """Return `Init:...` while init containers run or fail, else an empty string."""
    if _condition(pod, "Initialized").get("status") == "True":
        return ""
    specs = (pod["spec"].get("initContainers")) or []
    sidecars = {spec["name"] for spec in specs if spec.get("restartPolicy") == "Always"}
    for number, container in enumerate((pod.get("status") or {}).get("initContainerStatuses") or []):
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended and ended.get("exitCode") == 0 or container["name"] in sidecars and container.get("started"):
            continue
        if ended:
            return f"Init:{_end(ended)}"
        if waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{number}/{len(specs)}"
    return ""


def _container_status(pod: Json, words: str) -> str:
    running = False
    for container in reversed((pod.get("status") or {}).get("containerStatuses") or []):
        state = container.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            words = state["waiting"]["reason"]
        elif state.get("terminated"):
            words = _end(state["terminated"])
        elif state.get("running") and container.get("ready"):
            running = True
    if words == "Completed" and running:
        return "Running" if _condition(pod, "Ready").get("status") == "True" else "NotReady"
    return words


def _end(ended: Json) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _letter(pod: Json, words: str) -> str:
    phase = (pod.get("status") or {}).get("phase", "Unknown")
    if words in ("Terminating", "Unknown"):
        return words[0]
    if phase in ("Succeeded", "Failed"):
        return str(phase[0])
    if words == "Running":
        return "R" if _condition(pod, "Ready").get("status") == "True" else "N"
    if not pod["spec"].get("nodeName"):
        return "P"
    if words in ("Pending", "ContainerCreating", "PodInitializing") or re.fullmatch(r"Init:\d+/\d+", words):
        return "C"
    return "N" if words in ("NotReady", "Completed") else "!"


def _reason(pod: Json) -> str:
    """Return in words why a Pod is not Running, or an empty string."""
    if not pod["spec"].get("nodeName"):
        message = str(_condition(pod, "PodScheduled").get("message") or "")
        words = next((words for pattern, words in WAITING_WORDS if re.search(pattern, message)), "")
        return f"{words}: {message}" if words else message or "waits for the scheduler"
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state") or {}
        last = (container.get("lastState") or {}).get("terminated")
        if (state.get("waiting") or {}).get("message"):
            ending = f" (last end: {_end(last)}, exit code {last.get('exitCode')})" if last else ""
            return f"{state['waiting']['message']}{ending}"
        if (state.get("terminated") or {}).get("exitCode"):
            return f"{_end(state['terminated'])}, exit code {state['terminated']['exitCode']}"
    return str(status.get("message") or "")


def _gpus_asked(spec: Json) -> int:
    limits = ((container.get("resources") or {}).get("limits") or {} for container in spec["containers"])
    return sum(int(parse_quantity(limit.get(GPU, 0))) for limit in limits)


def _tag(image: str) -> str:
    name = image.rsplit("/", 1)[-1].partition("@")[0]
    return name.partition(":")[2] or "latest"


def _condition(item: Json, kind: str) -> Json:
    conditions = (item.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def service_record(service: Json) -> Json:
    """Return what the map shows of a Service."""
    metadata, spec = service["metadata"], service["spec"]
    return {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "type": spec.get("type", "ClusterIP"),
        "ip": spec.get("clusterIP") or "None",
        "ports": ",".join(_port(port) for port in spec.get("ports") or []) or "none",
    }


def _port(port: Json) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}"


def slice_record(endpoint_slice: Json) -> Json:
    """Return which Pods an EndpointSlice names, and whether each is ready."""
    metadata = endpoint_slice["metadata"]
    pods = {}
    for endpoint in endpoint_slice.get("endpoints") or []:
        target = endpoint.get("targetRef") or {}
        if target.get("kind") == "Pod":
            pods[target.get("uid", "")] = (endpoint.get("conditions") or {}).get("ready") is not False
    service = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
    return {"service": service, "namespace": metadata["namespace"], "pods": pods}


def event_record(event: Json) -> Json:
    """Return what the log shows of an Event (core/v1)."""
    about, series = event.get("involvedObject") or {}, event.get("series") or {}
    moment = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return {
        "time": str(moment or event["metadata"].get("creationTimestamp") or "")[:19],
        "order": int(event["metadata"].get("resourceVersion") or 0),
        "type": event.get("type", "Normal"),
        "reason": event.get("reason") or "",
        "object": f"{about.get('kind', '')}/{about.get('name', '')}",
        "message": (event.get("message") or "").strip(),
        "count": int(series.get("count") or event.get("count") or 1),
    }
