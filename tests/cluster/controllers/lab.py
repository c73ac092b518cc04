"""A control plane in one event loop: the real API server in a temporary folder, chosen controllers, a fake kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kitlib.cluster.apiserver import bootstrap_objects
from kitlib.cluster.apiserver.server import APIServer
from kitlib.cluster.client import ApiError
from kitlib.cluster.clock import SystemClock, rfc3339
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.controllers import CONTROLLERS, run
from kitlib.cluster.controllers.nodelifecycle import NodeLifecycleController
from kitlib.cluster.informer import Informer
from kitlib.cluster.scheduler.scheduler import Scheduler
from kitlib.cluster.store import Store

LIMIT = 60.0
Object = dict[str, Any]


class FakeClock:
    """A clock whose hands the test turns.

    Attributes:
        set_by: By how many seconds somebody has set the clock.
    """

    def __init__(self) -> None:
        self._now = float(int(time.time()))
        self.set_by = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now + self.set_by

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let time pass; whoever slept that long wakes in order and may work."""
        end = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not future.done():
                future.set_result(None)
            await settle()
        self._now = end
        await settle()


async def settle(rounds: int = 60) -> None:
    """Let everything that is ready to run do so."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class Lab:
    """A running control plane.

    Attributes:
        client: An administrator's client.
        clock: Time, as the controllers see it.
        kubelet: Whether Pods that are bound get to run.
        silent: Names of nodes whose kubelet does nothing.
    """

    def __init__(self, home: Path, clock: Any = None) -> None:
        (home / "pki").mkdir()
        self.config = ClusterConfig("lab", home, 0, 77, "token")
        self.store = Store(home / "state.db")
        self.server = APIServer(self.config, self.store)
        bootstrap_objects.ensure(self.server.rest, self.config, "127.77.128.1")
        self.client = self.server.client("lab")
        self.clock = clock or SystemClock()
        self.silent: set[str] = set()
        self.broken_images = {"bad"}
        self.tasks: list[asyncio.Future[None]] = []
        self.pods = Informer(self.client, "pods")
        self._addresses = itertools.count(2)
        self._work: set[asyncio.Future[None]] = set()

    def start(self, *controllers: Any, scheduler: bool = True, kubelet: bool = True) -> None:
        """Run controllers, the scheduler and the fake kubelet.

        Without a choice all controllers run but the one that misses the heartbeats of the fake kubelet.
        """
        chosen = controllers or tuple(each for each in CONTROLLERS if each is not NodeLifecycleController)
        self.spawn(run(self.server.client, chosen, self.config, self.clock))
        if scheduler:
            self.spawn(Scheduler(self.server.client("kube-scheduler"), self.clock).run())
        if kubelet:
            self.pods.add_handler(self._pod_changed)
        self.spawn(self.pods.run())

    def spawn(self, work: Any) -> asyncio.Future[None]:
        task: asyncio.Future[None] = asyncio.ensure_future(work)
        self.tasks.append(task)
        return task

    async def stop(self) -> None:
        for task in [*self.tasks, *self._work]:
            task.cancel()
        await asyncio.gather(*self.tasks, *self._work, return_exceptions=True)
        self.store.close()

    def _pod_changed(self, kind: str, _: Object | None, pod: Object) -> None:
        node = pod["spec"].get("nodeName")
        if kind == "DELETED" or not node or node in self.silent:
            return
        if pod["metadata"].get("deletionTimestamp"):
            self._do(self.remove(pod))
        elif pod["status"].get("phase") == "Pending":
            bad = any(container["image"] in self.broken_images for container in pod["spec"]["containers"])
            if not bad:
                self._do(self.run_pod(pod))

    def _do(self, work: Any) -> None:
        task: asyncio.Future[None] = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def remove(self, pod: Object) -> None:
        """Do what a kubelet does at the end of a deleted Pod."""
        meta = pod["metadata"]
        with contextlib.suppress(ApiError):
            if pod["status"].get("phase") in ("Pending", "Running") and meta.get("finalizers"):
                await self.finish(meta["name"], 143, meta["namespace"])
            await self.client.delete("pods", meta["name"], meta["namespace"], grace_period_seconds=0, uid=meta["uid"])

    async def run_pod(self, pod: Object) -> None:
        """Mark a Pod as running and ready."""
        meta, now = pod["metadata"], rfc3339(self.clock.now())
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ]
        number = next(self._addresses)
        address = f"127.77.{1 + number // 250}.{number % 250 + 1}"
        statuses = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ]
        status = {
            "phase": "Running",
            "conditions": conditions,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "containerStatuses": statuses,
        }
        with contextlib.suppress(ApiError):
            await self.client.patch("pods", meta["name"], {"status": status}, meta["namespace"], subresource="status")

    async def finish(self, name: str, code: int = 0, namespace: str = "default") -> None:
        """End a Pod's containers with an exit code."""
        pod = await self.client.get("pods", name, namespace)
        now = rfc3339(self.clock.now())
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": now, "startedAt": now}
        statuses = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": ended},
            }
            for container in pod["spec"]["containers"]
        ]
        ready = {"type": "Ready", "status": "False", "reason": "PodCompleted", "lastTransitionTime": now}
        others = [item for item in pod["status"].get("conditions", []) if item["type"] != "Ready"]
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": statuses,
            "conditions": [*others, ready],
        }
        await self.client.patch("pods", name, {"status": status}, namespace, subresource="status")

    async def node(self, name: str, cpu: str = "4", **changes: Any) -> Object:
        """Create a Ready node."""
        resources = {"cpu": cpu, "memory": "8Gi", "pods": "110", **changes.get("resources", {})}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastTransitionTime": rfc3339(self.clock.now()),
        }
        labels = {"kubernetes.io/hostname": name, **changes.get("labels", {})}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": changes.get("spec", {}),
            "status": {"capacity": resources, "allocatable": resources, "conditions": [ready]},
        }
        return await self.client.create("nodes", node)

    async def get(self, resource: str, name: str, namespace: str | None = "default") -> Object:
        return await self.client.get(resource, name, namespace)

    async def list(self, resource: str, namespace: str | None = "default", selector: str = "") -> list[Object]:
        return (await self.client.list(resource, namespace, label_selector=selector))["items"]

    async def until(self, check: Callable[[], Any], what: str = "") -> Any:
        """Wait until an async check answers with something true, and return that."""
        deadline = time.monotonic() + LIMIT
        while True:
            with contextlib.suppress(ApiError, KeyError):
                answer = await check()
                if answer:
                    return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"did not happen: {what or check}")
            if isinstance(self.clock, FakeClock):
                await self.clock.advance(0.001)  # what met a conflict tries again
                await asyncio.sleep(0.001)
            else:
                await asyncio.sleep(0.005)

    async def events(self, reason: str = "", namespace: str = "default") -> list[str]:
        """Return the messages of Events, in order of creation."""
        found = [item for item in await self.list("events", namespace) if not reason or item["reason"] == reason]
        found.sort(key=lambda item: int(item["metadata"]["name"].rpartition(".")[2], 16))
        return [item["message"] for item in found]


def deployment(name: str, replicas: int = 1, image: str = "web:v1", **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


def job(name: str, **spec: Any) -> Object:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "work", "image": "busybox"}]}}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template, **spec}}


def pod(name: str, labels: Object | None = None, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": "default", "labels": labels or {}}
    containers = [{"name": "main", "image": "busybox"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}
