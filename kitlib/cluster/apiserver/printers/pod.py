"""The cells of a Pod: READY, STATUS, RESTARTS.

Stands for `printPod` of kube-apiserver: the most read line of Kubernetes, and not just the phase.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kitlib.cluster.apiserver.printers.durations import Moment
from kitlib.cluster.objects import Object, condition_true, is_deleting, is_finished, is_ready, is_sidecar

_NONE = "<none>"


class _Tally(NamedTuple):
    """What the statuses of some containers add up to."""

    restarts: int = 0
    last: str = ""
    ready: int = 0

    def add(self, status: Object, ready: bool = False) -> _Tally:
        ended = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        return _Tally(self.restarts + status.get("restartCount", 0), max(self.last, ended), self.ready + ready)


def pod_cells(obj: Object, now: Moment) -> list[Any]:
    """Return the cells of a Pod that are more than a field of it."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    reason, tally, initializing = _init_containers(spec, status, _base_reason(status))
    if not initializing or condition_true(obj, "Initialized"):
        reason, tally = _containers(obj, reason, _sidecars(spec, status))
    if is_deleting(obj):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif not is_finished(obj):
            reason = "Terminating"
    total = len(spec.get("containers") or ()) + sum(map(is_sidecar, spec.get("initContainers") or ()))
    since = f" ({now.since(tally.last)} ago)" if tally.restarts and tally.last else ""
    ips = status.get("podIPs") or ()
    address = (ips[0].get("ip") if ips else status.get("podIP")) or _NONE
    gates = [gate.get("conditionType", "") for gate in spec.get("readinessGates") or ()]
    met = f"{sum(condition_true(obj, gate) for gate in gates)}/{len(gates)}" if gates else _NONE
    return [f"{tally.ready}/{total}", reason, f"{tally.restarts}{since}", address, met]


def _base_reason(status: Object) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            return "SchedulingGated"
    return status.get("reason") or status.get("phase") or ""


def _ended(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    signal = terminated.get("signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode', 0)}"


def _init_containers(spec: Object, status: Object, reason: str) -> tuple[str, _Tally, bool]:
    """Follow the init containers up to the first that is not done."""
    specs = {container.get("name"): container for container in spec.get("initContainers") or ()}
    tally = _Tally()
    for index, item in enumerate(status.get("initContainerStatuses") or ()):
        state = item.get("state") or {}
        terminated, waiting = state.get("terminated"), (state.get("waiting") or {}).get("reason", "")
        started = is_sidecar(specs.get(item.get("name"), {})) and bool(item.get("started"))
        tally = tally.add(item, started and bool(item.get("ready")))
        if terminated is not None and terminated.get("exitCode", 0) == 0 or started:
            continue
        if terminated is not None:
            return f"Init:{_ended(terminated)}", tally, True
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}", tally, True
        return f"Init:{index}/{len(specs)}", tally, True
    return reason, tally, False


def _sidecars(spec: Object, status: Object) -> _Tally:
    names = {container.get("name") for container in spec.get("initContainers") or () if is_sidecar(container)}
    tally = _Tally()
    for item in status.get("initContainerStatuses") or ():
        if item.get("name") in names:
            tally = tally.add(item, bool(item.get("started") and item.get("ready")))
    return tally


def _containers(pod: Object, reason: str, tally: _Tally) -> tuple[str, _Tally]:
    running = False
    for item in reversed((pod.get("status") or {}).get("containerStatuses") or ()):
        state = item.get("state") or {}
        waiting, terminated = (state.get("waiting") or {}).get("reason"), state.get("terminated")
        ready = False
        if waiting:
            reason = waiting
        elif terminated is not None:
            reason = _ended(terminated)
        elif item.get("ready") and state.get("running") is not None:
            running = ready = True
        tally = tally.add(item, ready)
    if reason == "Completed" and running:
        reason = "Running" if is_ready(pod) else "NotReady"
    return reason, tally
