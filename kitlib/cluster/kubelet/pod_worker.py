"""The worker of one Pod: brings what runs nearer to what the Pod's spec says, again and again.

Stands for the kubelet's pod workers, `syncPod`, `syncTerminatingPod` and the kuberuntime manager's
`computePodActions`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from kitlib.cluster.client import ApiError
from kitlib.cluster.clock import parse_time, rfc3339_now
from kitlib.cluster.kubelet import containers, status, volumes
from kitlib.cluster.kubelet.admission import Rejected, admit
from kitlib.cluster.kubelet.container_worker import ContainerWorker
from kitlib.cluster.kubelet.image_manager import Backoff
from kitlib.cluster.kubelet.node import Node, PodFacts
from kitlib.cluster.kubelet.pod_manager import PodState
from kitlib.cluster.kubelet.runtime_client import Record
from kitlib.cluster.objects import Object, is_sidecar

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_MIN_GRACE_SECONDS = 2.0
_MOUNT_BACKOFF = (0.5, 122.0)
"""The first and the longest seconds between two events of a volume that cannot be had."""
_CLOCK_SECONDS = 60.0
"""For how long to trust a time of day that lies ahead: a laptop that slept wakes up behind it."""
_KINDS = ("initContainers", "containers", "ephemeralContainers")
_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


class PodWorker:
    """One Pod on this node, from admission to the end.

    Args:
        node: What all workers of the node share.
        pod: The Pod.
        records: What the runtime knows of its containers, from before a restart of the kubelet.

    Attributes:
        state: What others may know of the Pod.
        done: Nothing of the Pod is left on the node.
    """

    def __init__(self, node: Node, pod: Object, records: list[Record]) -> None:
        """Take over what is there; `start` begins the work."""
        self.node = node
        self.uid: str = pod["metadata"]["uid"]
        self.folder: Path = node.config.node_dir / "pods" / self.uid
        self.state = PodState(pod)
        self.done = False
        self._facts = PodFacts(node, pod, self.folder)
        self._removed = self._stopped = False
        self._admitted = False
        self._failure: tuple[str, str] | None = None
        self._start_time = (pod.get("status") or {}).get("startTime") or rfc3339_now()
        self._mounted = True
        self._mounts = Backoff(*_MOUNT_BACKOFF)
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        spec = pod["spec"]
        self.init, self.main, self.ephemeral = (self._workers(spec, kind) for kind in _KINDS)
        self._adopt(records)

    def _workers(self, spec: Object, kind: str) -> list[ContainerWorker]:
        return [ContainerWorker(self._facts, container, kind, self.wake) for container in spec.get(kind) or ()]

    # --- what others call

    def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Have the Pod looked at soon."""
        self._wake.set()

    def update(self, pod: Object) -> None:
        """Take the newest object of the Pod."""
        self.state.pod = self._facts.pod = pod
        specs = {c["name"]: c for kind in _KINDS for c in pod["spec"].get(kind) or []}
        known = {worker.name for worker in self.ephemeral}
        self.ephemeral += [each for each in self._workers(pod["spec"], _KINDS[2]) if each.name not in known]
        for worker in self.all():
            worker.update(specs[worker.name])
        self.wake()

    def observe(self, pod: Object) -> None:
        """Take the object that a write of the status answered with, unless a newer one is known."""
        if int(pod["metadata"]["resourceVersion"]) > int(self.state.pod["metadata"]["resourceVersion"]):
            self.state.pod = self._facts.pod = pod

    def refresh_hosts(self) -> None:
        """Bring the Pod's /etc/hosts up to date, if it has one."""
        containers.refresh_hosts(self._facts.surroundings())

    def when_done(self, callback: Callable[[], Any]) -> None:
        """Call back once nothing of the Pod is left on the node."""
        assert self._task is not None
        self._task.add_done_callback(lambda _: callback())

    def removed(self) -> None:
        """The Pod is gone from the API: end what is left, quickly."""
        self._removed = True
        self.wake()

    def exited(self, record: Record) -> None:
        """A container ended."""
        for worker in self.all():
            if worker.id == record["id"]:
                worker.exited(record)
        self._report()
        self.wake()

    async def close(self) -> None:
        """Stop working; containers go on."""
        tasks = [task for task in (self._task, *self._stopping.values()) if task is not None]
        for worker in self.all():
            worker.stop_probes()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def all(self) -> list[ContainerWorker]:
        """Return the workers of all containers, init containers first, ephemeral ones last."""
        return [*self.init, *self.main, *self.ephemeral]

    @property
    def active(self) -> bool:
        """Whether the Pod still counts against what the node has."""
        return not self._stopped and not self.done and self.phase() not in ("Succeeded", "Failed")

    # --- adoption after a restart

    def _adopt(self, records: list[Record]) -> None:
        checkpoint = self.folder / "checkpoint.json"
        if checkpoint.exists():
            ended = (self.state.pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            self._facts.restore(json.loads(checkpoint.read_text()), hold=not ended)
            self._publish_address()
            self._admitted = True
        old = self.state.pod.get("status") or {}
        if old.get("phase") in ("Succeeded", "Failed"):
            self._admitted = True
            if old.get("reason"):
                self._failure = (old["reason"], old.get("message", ""))
        statuses = {s["name"]: s for key in _STATUSES for s in old.get(key) or []}
        for worker in self.all():
            mine = [r for r in records if r["labels"]["container"] == worker.name]
            worker.adopt(mine, statuses.get(worker.name))

    def _publish_address(self) -> None:
        self.state.pod_ip, self.state.port_map = self._facts.ip, self._facts.port_map

    # --- the loop

    async def _run(self) -> None:
        while not self.done:
            self._wake.clear()
            try:
                delay = await self._sync()
            except ApiError as error:
                log.warning("%s: %s", self.state.pod["metadata"]["name"], error)
                delay = _RETRY_SECONDS
            except (OSError, aiohttp.ClientError, asyncio.TimeoutError) as error:
                log.info("%s: %s", self.state.pod["metadata"]["name"], error)
                delay = _RETRY_SECONDS
            except Exception:
                log.exception("%s", self.state.pod["metadata"]["name"])
                delay = _RETRY_SECONDS
            if not self.done:
                self._report()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), delay)

    async def _sync(self) -> float | None:
        """Do the next things; return after how many seconds to look again without being woken."""
        if self._removed or self.state.pod["metadata"].get("deletionTimestamp"):
            await self._terminate()
            return None
        if self._outcome() in ("Succeeded", "Failed"):
            await self._finish()
            return None
        if not self._admitted and not self._admit():
            return None
        if self._past_deadline():
            self._failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self._facts.event("Normal", "DeadlineExceeded", self._failure[1])
            await self._finish()
            return None
        if not await self._prepare():
            return _RETRY_SECONDS
        delay = await self._sync_containers()
        by_the_clock = _earliest(self._seconds_to_deadline(), self._facts.seconds_to_renewal())
        return _earliest(delay, None if by_the_clock is None else min(by_the_clock, _CLOCK_SECONDS))

    # --- steps of a sync

    def _admit(self) -> bool:
        try:
            admit(self.node, self._facts, self.uid)
        except Rejected as rejected:
            self._failure = (rejected.reason, f"Pod was rejected: {rejected}")
            self._facts.event("Warning", rejected.reason, str(rejected))
            self.node.devices.release(self.uid)
            self._report()
            return False
        self._admitted = True
        return True

    async def _prepare(self) -> bool:
        """Give the Pod its address, folders and volumes; False when a volume cannot be had yet."""
        if not self._facts.ip:
            await self._facts.give_address()
            self.folder.mkdir(parents=True, exist_ok=True)
            written = self.folder / "checkpoint.new"
            written.write_text(json.dumps(self._facts.checkpoint()))
            written.replace(self.folder / "checkpoint.json")  # whole or not at all, whenever the kubelet dies
            self._publish_address()
        try:
            await self._facts.refresh()
        except volumes.MountFailed as error:
            if not any(worker.running for worker in self.all()):
                self._mount_failed(str(error))
            return False
        self._mounted = True
        return True

    def _mount_failed(self, message: str) -> None:
        """Tell of a volume that cannot be had yet, ever less often."""
        self._mounted, now = False, time.monotonic()
        if not self._mounts.left(self._mounts.updated, now):
            self._facts.event("Warning", "FailedMount", message)

    async def _sync_containers(self) -> float | None:
        delays = [await worker.sync() for worker in self.ephemeral]
        for worker in self.init:
            delays.append(await worker.sync())
            if not worker.initialized:
                return _earliest(*delays)
        for worker in self.main:
            delays.append(await worker.sync())
        return _earliest(*delays)

    def _past_deadline(self) -> bool:
        left = self._seconds_to_deadline()
        return left is not None and left <= 0

    def _seconds_to_deadline(self) -> float | None:
        deadline = self.state.pod["spec"].get("activeDeadlineSeconds")
        return None if deadline is None else parse_time(self._start_time) + deadline - time.time()

    # --- the end

    async def _finish(self) -> None:
        """A Pod that succeeded, failed or was rejected: end what still runs, free what it held."""
        await self._stop_all(self._grace())
        self._facts.release()

    async def _terminate(self) -> None:
        """A Pod that is being deleted: stop its containers, say so, remove it."""
        await self._stop_all(_MIN_GRACE_SECONDS if self._removed else self._grace())
        self._stopped = True
        self._facts.release()
        self._report()
        await self.node.statuses.flush(self.uid)
        await self._until_relist()
        await self._remove_records()
        volumes.remove(self.folder, self.node.config.memory_dir / self.uid)
        if not self._removed:
            await self._delete()
        self.done = True
        self.node.statuses.forget(self.uid)

    async def _until_relist(self) -> None:
        """Wait until all of the node's containers are looked through, except when the Pod is gone from the API."""
        relist = self.node.next_relist()
        while not self._removed and (left := relist - time.monotonic()) > 0:
            self._wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)

    async def _delete(self) -> None:
        metadata = self.state.pod["metadata"]
        while True:
            try:
                await self.node.client.delete(
                    "pods", metadata["name"], metadata["namespace"], grace_period_seconds=0, uid=self.uid
                )
                return
            except ApiError as error:
                if error.code in (404, 409):
                    return
                log.warning("delete of %s: %s", metadata["name"], error)
            except Exception as error:
                log.info("delete of %s: %s", metadata["name"], error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _remove_records(self) -> None:
        for worker in self.all():
            await worker.forget()

    def _grace(self) -> float:
        pod = self.state.pod
        grace = pod["metadata"].get("deletionGracePeriodSeconds")
        if grace is None:
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        return max(float(grace), _MIN_GRACE_SECONDS)

    async def _stop_all(self, grace: float) -> None:
        """Stop containers at once, sidecars after the others, in reverse order."""
        deadline = time.monotonic() + grace
        sidecars = [w for w in reversed(self.init) if is_sidecar(w.spec)]
        others = [w for w in self.all() if w not in sidecars]
        await self._stop(others, deadline)
        for sidecar in sidecars:
            await self._stop([sidecar], deadline)

    async def _stop(self, workers: list[ContainerWorker], deadline: float) -> None:
        running = [worker for worker in workers if worker.running]
        if not running:
            return
        grace = max(_MIN_GRACE_SECONDS, deadline - time.monotonic())
        stops: asyncio.Future[Any] = asyncio.gather(*(w.stop(grace, f"Stopping container {w.name}") for w in running))
        while not stops.done():
            self._wake.clear()
            waker: asyncio.Future[Any] = asyncio.ensure_future(self._wake.wait())
            await asyncio.wait([stops, waker], return_when=asyncio.FIRST_COMPLETED)
            waker.cancel()
            if self._removed:
                for worker in running:
                    worker.hurry(_MIN_GRACE_SECONDS)
        stops.result()

    # --- the status

    def phase(self) -> str:
        """Return the Pod's phase; a Pod has not ended before its last container has."""
        outcome = self._outcome()
        running = any(worker.running for worker in self.all())
        return "Running" if running and outcome in ("Succeeded", "Failed") else outcome

    def _outcome(self) -> str:
        if self._failure:
            return "Failed"
        init = [w.status() for w in self.init]
        main = [w.status() for w in self.main]
        found = status.phase(self.state.pod, init, main)
        if found == "Running" and self._ending() and not any("running" in s["state"] for s in main):
            return "Failed" if any((s["state"].get("terminated") or {}).get("exitCode") for s in main) else "Succeeded"
        return found

    def _ending(self) -> bool:
        return self._removed or bool(self.state.pod["metadata"].get("deletionTimestamp"))

    def _report(self) -> None:
        """Have the status written and shown to the node's server."""
        if self.phase() in ("Succeeded", "Failed"):
            self._facts.release()  # before the scheduler learns of the end and sends the next Pod
        init, main, ephemeral = ([w.status() for w in group] for group in (self.init, self.main, self.ephemeral))
        statuses = zip(self.all(), [*init, *main, *ephemeral], strict=True)
        self.state.containers = {worker.name: worker.container_state(each) for worker, each in statuses}
        if not self._removed:
            more = {"ephemeralContainerStatuses": ephemeral} if ephemeral else {}
            self.node.statuses.set(self.state.pod, {**self._status(init, main), **more})

    def _status(self, init: list[Object], main: list[Object]) -> Object:
        pod, phase = self.state.pod, self.phase()
        address = self._mounted and self._facts.ip  # a Pod gets it, with its sandbox, once it has its volumes
        sandbox = bool(address) and phase not in ("Succeeded", "Failed")
        found: Object = {
            "phase": phase,
            "startTime": self._start_time,
            "conditions": status.conditions(pod, phase, init, main, sandbox),
            "hostIP": self.node.config.internal_ip,
            "hostIPs": [{"ip": self.node.config.internal_ip}],
        }
        if self._failure and not self._facts.ip:
            found = {"phase": phase, "startTime": self._start_time}
        elif init:
            found["initContainerStatuses"] = init
        if pod["metadata"].get("generation"):
            found["observedGeneration"] = pod["metadata"]["generation"]
        if self._failure:
            found["reason"], found["message"] = self._failure
        if address:
            found.update(podIP=address, podIPs=[{"ip": address}])
        if not self._failure or self._facts.ip:
            found["containerStatuses"] = main
        return found


def _earliest(*delays: float | None) -> float | None:
    known = [delay for delay in delays if delay is not None]
    return max(0.0, min(known)) if known else None
