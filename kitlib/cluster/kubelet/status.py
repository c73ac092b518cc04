"""The status of a Pod: phase and conditions from the states of its containers.

Stands for `getPhase` and `status/generate.go` of the kubelet, and for its status manager, which writes the newest
status of each Pod to the API (and skips older ones that were never written).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kitlib.cluster.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kitlib.cluster.clock import rfc3339_now
from kitlib.cluster.objects import Object, is_sidecar

log = logging.getLogger(__name__)


def phase(pod: Object, init: list[Object], statuses: list[Object]) -> str:
    """Return the phase of a Pod.

    Args:
        pod: The Pod.
        init: Statuses of init containers.
        statuses: Statuses of the other containers.
    """
    if pending_init(pod, init, statuses):
        failed = [s for s in init if _ended(s) and _ended(s)["exitCode"] != 0 and "terminated" in s["state"]]
        return "Failed" if failed and pod["spec"].get("restartPolicy") == "Never" else "Pending"
    policy = pod["spec"].get("restartPolicy", "Always")
    running = sum("running" in s["state"] for s in statuses)
    ended = [_ended(s) for s in statuses if "running" not in s["state"] and _ended(s)]
    if running + len(ended) < len(statuses):
        return "Pending"
    if running or policy == "Always":
        return "Running"
    if all(end["exitCode"] == 0 for end in ended):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _ended(status: Object) -> Object:
    state, last = status["state"], status.get("lastState") or {}
    found: Object = state.get("terminated") or ("waiting" in state and last.get("terminated")) or {}
    return found


def pending_init(pod: Object, init: list[Object], statuses: list[Object]) -> list[str]:
    """Return the init containers that have not done their part: ended well, or, sidecars, started."""
    if any(status.get("containerID") for status in statuses):
        return []
    specs = {c["name"]: c for c in pod["spec"].get("initContainers") or []}
    return [s["name"] for s in init if not _initialized(specs[s["name"]], s)]


def _initialized(spec: Object, status: Object) -> bool:
    if is_sidecar(spec):
        return bool(status.get("started"))
    return bool((status["state"].get("terminated") or {"exitCode": 1})["exitCode"] == 0)


def conditions(pod: Object, phase: str, init: list[Object], statuses: list[Object], sandbox: bool) -> list[Object]:
    """Return the conditions that the kubelet owns, with the times of those that have not changed.

    Args:
        pod: The Pod.
        phase: Its phase.
        init: Statuses of init containers.
        statuses: Statuses of the other containers.
        sandbox: Whether the Pod has its address and folders.
    """
    containers = _containers_ready(pod, phase, [*_sidecars(pod, init), *statuses])
    found = {
        "PodReadyToStartContainers": {"status": str(sandbox)},
        "Initialized": _initialized_condition(pod, phase, init, statuses),
        "Ready": _ready(pod, containers),
        "ContainersReady": containers,
        "PodScheduled": {"status": "True"},
    }
    return [_dated(pod, kind, condition) for kind, condition in found.items()]


def _sidecars(pod: Object, init: list[Object]) -> list[Object]:
    names = {c["name"] for c in pod["spec"].get("initContainers") or [] if is_sidecar(c)}
    return [s for s in init if s["name"] in names]


def _initialized_condition(pod: Object, phase: str, init: list[Object], statuses: list[Object]) -> Object:
    if phase == "Succeeded":
        return {"status": "True", "reason": "PodCompleted"}
    waiting = pending_init(pod, init, statuses)
    if not waiting:
        return {"status": "True"}
    message = f"containers with incomplete status: [{' '.join(waiting)}]"
    return {"status": "False", "reason": "ContainersNotInitialized", "message": message}


def _containers_ready(pod: Object, phase: str, statuses: list[Object]) -> Object:
    if phase in ("Succeeded", "Failed"):
        return {"status": "False", "reason": "PodCompleted" if phase == "Succeeded" else "PodFailed"}
    unready = [s["name"] for s in statuses if not s["ready"]]
    if not unready:
        return {"status": "True"}
    message = f"containers with unready status: [{' '.join(unready)}]"
    return {"status": "False", "reason": "ContainersNotReady", "message": message}


def _ready(pod: Object, containers: Object) -> Object:
    if containers["status"] != "True":
        return containers
    have = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or []}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    unmet = [gate for gate in gates if have.get(gate) != "True"]
    if not unmet:
        return containers
    words = [
        f'the status of pod readiness gate "{g}" is not "True", but {have[g]}'
        if g in have
        else f'corresponding condition of pod readiness gate "{g}" does not exist.'
        for g in unmet
    ]
    message = words[0] if len(words) == 1 else f"[{', '.join(words)}]"
    return {"status": "False", "reason": "ReadinessGatesNotReady", "message": message}


def _dated(pod: Object, kind: str, condition: Object) -> Object:
    """Complete a condition; nulls remove what an older one said."""
    old = next((c for c in (pod.get("status") or {}).get("conditions") or [] if c["type"] == kind), None)
    same = old is not None and old["status"] == condition["status"]
    since = old["lastTransitionTime"] if same and old else rfc3339_now()
    complete = {"type": kind, "lastProbeTime": None, "lastTransitionTime": since, "reason": None, "message": None}
    generation = pod["metadata"].get("generation")
    return {**complete, **({"observedGeneration": generation} if generation else {}), **condition}


class StatusManager:
    """Writes Pod statuses to the API, the newest only.

    Args:
        client: The API.
        observe: Called with the Pod that a write answered with.
    """

    def __init__(self, client: Client, observe: Callable[[Object], None]) -> None:
        self._client, self._observe = client, observe
        self._wanted: dict[str, tuple[Object, Object]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._written: dict[str, Object] = {}

    def set(self, pod: Object, status: Object) -> None:
        """Have a status written soon."""
        uid = pod["metadata"]["uid"]
        if self._written.get(uid) == status and uid not in self._wanted:
            return
        self._wanted[uid] = (pod, status)
        if uid not in self._tasks:
            self._tasks[uid] = asyncio.create_task(self._write(uid))

    async def flush(self, uid: str) -> None:
        """Wait until the newest status of a Pod is written."""
        while uid in self._tasks:
            await asyncio.shield(self._tasks[uid])

    def forget(self, uid: str) -> None:
        """Drop what is known about a Pod that is gone."""
        self._written.pop(uid, None)
        self._wanted.pop(uid, None)

    async def _write(self, uid: str) -> None:
        delay = 0.1
        while uid in self._wanted:
            pod, status = self._wanted.pop(uid)
            try:
                self._observe(await self._patch(pod, status))
                self._written[uid] = status
            except ApiError as error:
                if error.code not in (404, 409):
                    log.warning("status of %s: %s", pod["metadata"]["name"], error)
            except Exception as error:
                log.info("status of %s: %s", pod["metadata"]["name"], error)
                self._wanted.setdefault(uid, (pod, status))
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5)
        del self._tasks[uid]

    async def _patch(self, pod: Object, status: Object) -> Object:
        metadata = pod["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
        return await self._client.patch(
            "pods",
            metadata["name"],
            patch,
            metadata["namespace"],
            subresource="status",
            content_type=STRATEGIC_MERGE_PATCH,
        )
