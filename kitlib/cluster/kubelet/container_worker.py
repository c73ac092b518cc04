"""One container of a Pod over all its runs: image, start, probes, hooks, restarts with back-off, stop.

Stands for `startContainer`, `killContainer` and `doBackOff` of the kubelet's kuberuntime manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from kitlib.cluster import images
from kitlib.cluster.clock import parse_time, rfc3339_now
from kitlib.cluster.kubelet import containers, env, probes, volumes
from kitlib.cluster.kubelet.image_manager import Backoff, Events, ImagePuller, NotPulled
from kitlib.cluster.kubelet.node import PodFacts
from kitlib.cluster.kubelet.pod_manager import ContainerNotRunning, ContainerState, ExecFailed, ExecProcess
from kitlib.cluster.kubelet.runtime_client import Record, RuntimeFailure
from kitlib.cluster.objects import Object, is_sidecar

_SHOWN_SECONDS = 1.0
"""How soon what happened is looked at again: a real kubelet relists its containers once a second."""

_START_ERROR = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: "
)
_PULL_REASONS = ("ErrImagePull", "ImagePullBackOff")
_CONFIG_ERRORS = (env.ConfigError, volumes.MountFailed)


class ContainerWorker:
    """One container.

    Args:
        facts: What the Pod's containers share.
        spec: The container's spec.
        kind: List of the Pod's spec that it is in: `containers`, `initContainers` or `ephemeralContainers`.
        wake: Has the Pod looked at soon.

    Attributes:
        name: Its name.
        id: Id of the newest run; empty before the first.
        running: Whether its process runs.
    """

    def __init__(self, facts: PodFacts, spec: Object, kind: str, wake: Callable[[], None]) -> None:
        settings = facts.node.config.cluster.settings
        self.name: str = spec["name"]
        self.spec, self._facts, self._wake = spec, facts, wake
        self._kind, self._init = kind, kind == "initContainers"
        self.id = ""
        self.attempt = -1
        self.running = False
        self._started_at = ""
        self._ended: Object | None = None
        self._last: Object | None = None
        self._waiting: tuple[str, str] | None = None
        self._later: tuple[float, tuple[str, str]] | None = None
        self._failed_at = self._exact_end = 0.0
        self._image: images.Image | None = None
        self._ready = self._started = False
        self._records: list[str] = []
        self._exit = asyncio.Event()
        self._probes: list[asyncio.Task[None]] = []
        self._stopping: asyncio.Task[None] | None = None
        self._hurry: asyncio.Event | None = None
        self._restarts = Backoff(settings.container_restart_backoff, settings.max_container_restart_period)
        self._puller = ImagePuller(settings.image_pull_backoff)

    # --- what is, after a restart of the kubelet

    def adopt(self, records: list[Record], old: Object | None) -> None:
        """Take over runs that the runtime knows, or learn from the last status that they are gone."""
        records = sorted(records, key=lambda r: int(r["labels"]["attempt"]))
        self._records = [record["id"] for record in records]
        if old is not None:
            self.attempt = int(old.get("restartCount", 0)) if _ran(old) else -1
            self._last = (old.get("lastState") or {}).get("terminated")
            self._ended = (old.get("state") or {}).get("terminated")
            self.id = (old.get("containerID") or "").removeprefix("kit://")
            self._set_image()
        if records:
            self._adopt_newest(records)
        elif old is not None and "running" in (old.get("state") or {}):
            started = old["state"]["running"].get("startedAt")
            self._ended = _terminated(self.id, 255, "Unknown", started, rfc3339_now())

    def _adopt_newest(self, records: list[Record]) -> None:
        newest = records[-1]
        if len(records) > 1:
            self._last = self._of_record(records[-2])
        self.id, self.attempt = newest["id"], int(newest["labels"]["attempt"])
        self._set_image()
        self._started_at = newest["started_at"]
        self.running = newest["running"]
        self._ended = None if self.running else self._of_record(newest)
        if self.running:
            self._after_start()

    def _set_image(self) -> None:
        try:
            self._image = images.resolve(self.spec.get("image", ""))
        except (images.ImageNotFound, images.InvalidImageName):
            self._image = None

    def update(self, spec: Object) -> None:
        """Take the newest spec; a new image means a new run."""
        changed = spec.get("image") != self.spec.get("image")
        self.spec = spec
        if changed and self.running and not self._init:
            self.begin_stop(f"Container {self.name} definition changed, will be restarted")
        elif changed:
            self._puller.reset()
            self._later = None

    # --- bringing it nearer to the spec

    @property
    def initialized(self) -> bool:
        """Whether an init container has done its part."""
        if is_sidecar(self.spec):
            return self._started
        return self._ended is not None and bool(self._ended["exitCode"] == 0)

    async def sync(self) -> float | None:
        """Start the container if it should run; return when to look again."""
        if self.running or self._stopping is not None or not self._wanted():
            return None
        now = time.monotonic()
        return self._until_next_look(now) or self._back_off(now) or self._pull(now) or await self._start()

    def _until_next_look(self, now: float) -> float:
        """Return the seconds for which the status stays; at a next look it shows what the look before found."""
        if self._waiting and now < self._failed_at + _SHOWN_SECONDS:
            return self._failed_at + _SHOWN_SECONDS - now
        if self._later is None:
            return 0.0
        at, waiting = self._later
        if now < at:
            return at - now
        self._waiting, self._later, self._failed_at = waiting, None, now
        return _SHOWN_SECONDS if waiting[0] == "CrashLoopBackOff" else 0.0

    def _show_later(self, now: float, waiting: tuple[str, str]) -> float:
        """Let the status show why the container waits with the Pod's next sync; return when that is."""
        delay = self._next_sync()
        self._later = (now + delay, waiting)
        return delay

    def _next_sync(self) -> float:
        """Return the seconds until a Pod is looked at again whose last sync failed."""
        return self._facts.node.config.cluster.settings.back_off_period * random.uniform(1.0, 1.5)

    def _wanted(self) -> bool:
        if self._ended is None or self._kind == "ephemeralContainers":
            return self._ended is None
        policy = self._facts.pod["spec"].get("restartPolicy", "Always")
        if self._init:
            policy = "Always" if is_sidecar(self.spec) else "OnFailure" if policy == "Always" else policy
        return bool(policy == "Always" or (policy == "OnFailure" and self._ended["exitCode"] != 0))

    def _back_off(self, now: float) -> float:
        """Return the seconds until the next run may start, and say that it waits."""
        if self._ended is None:
            return 0.0
        delay = self._restarts.left(self._ended_at, now)
        if not delay or (self._waiting or ("",))[0] == "CrashLoopBackOff":
            return delay
        pod = self._pod_words()
        message = f"back-off {_go_duration(self._restarts.delay)} restarting failed container={self.name} pod={pod}"
        self._event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {pod}")
        return self._show_later(now, ("CrashLoopBackOff", message))

    def _pod_words(self) -> str:
        metadata = self._facts.pod["metadata"]
        return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"

    @property
    def _ended_at(self) -> float:
        """When the last run ended, on the monotonic clock."""
        assert self._ended is not None
        return self._exact_end or time.monotonic() - (time.time() - parse_time(self._ended["finishedAt"]))

    def _pull(self, now: float) -> float:
        """Have the image; return the seconds until the next try when it cannot be had now."""
        try:
            self._image, events = self._puller.pull(self.spec, now)
        except NotPulled as failure:
            return self._not_pulled(failure, now)
        for event in events:
            self._event(*event)
        return 0.0

    def _not_pulled(self, failure: NotPulled, now: float) -> float:
        if failure.reason not in _PULL_REASONS or (self._waiting or ("",))[0] not in _PULL_REASONS:
            self._fail(failure.reason, failure.message, failure.events)
            return failure.retry
        for event in failure.events:
            self._event(*event)
        return self._show_later(now, (failure.reason, failure.message))

    def _fail(self, reason: str, message: str, events: Events) -> None:
        """Say why the container does not start."""
        self._failed_at = time.monotonic()
        self._waiting = (reason, message)
        for event in events:
            self._event(*event)

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._facts.event(kind, reason, message, f"spec.{self._kind}{{{self.name}}}")

    # --- the start

    async def _start(self) -> float | None:
        assert self._image is not None
        attempt = self.attempt + 1
        try:
            around = self._facts.surroundings()
            request = containers.start_request(around, self.spec, self._image, attempt)
        except _CONFIG_ERRORS as error:
            self._fail("CreateContainerConfigError", str(error), [("Warning", "Failed", f"Error: {error}")])
            return self._next_sync()
        self._begin(attempt)
        gpus = self._facts.gpus.get(self.name, [])
        devices = self._facts.node.devices
        request["env"].update(devices.environment(gpus))
        labels = {"pod": self._facts.pod["metadata"]["uid"], "container": self.name, "attempt": str(attempt)}
        request.update(id=self.id, labels=labels, cpus=devices.cores(gpus))
        self._event("Normal", "Created", "Container created")
        await self.forget(keep=2)
        try:
            record = await self._facts.node.runtime.call("start", container=request)
        except RuntimeFailure as error:
            return self._start_failed(_START_ERROR + str(error))
        self._started_at = record["started_at"]
        self.running = not self._exit.is_set()  # the news of a quick end may have come first
        self._event("Normal", "Started", "Container started")
        await self._post_start()
        if self.running:
            self._after_start()
        if self.spec.get("stdin"):
            await self._until_relist()
        return None

    async def _until_relist(self) -> None:
        """Let a command that ends at once be seen only then, as in a real kubelet: who attaches would come too late."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._exit.wait(), self._facts.node.next_relist() - time.monotonic())

    def _begin(self, attempt: int) -> None:
        self._last = self._ended or self._last
        self._ended = self._waiting = self._later = None
        self.attempt = attempt
        self.id = uuid.uuid4().hex + uuid.uuid4().hex
        self._records.append(self.id)
        self._exit.clear()
        self._exact_end = 0.0

    def _start_failed(self, message: str) -> float:
        self._ended = {
            "containerID": f"kit://{self.id}",
            "exitCode": 128,
            "reason": "StartError",
            "message": message,
            "startedAt": "1970-01-01T00:00:00Z",
            "finishedAt": rfc3339_now(),
        }
        self._exact_end = time.monotonic()
        if self._wanted():
            self._fail("RunContainerError", message, [("Warning", "Failed", f"Error: {message}")])
        else:
            self._event("Warning", "Failed", f"Error: {message}")
        self._wake()
        return _SHOWN_SECONDS

    def _after_start(self) -> None:
        """Begin to probe; without a startup probe the container counts as started at once."""
        kinds = {"startup": "startupProbe", "liveness": "livenessProbe", "readiness": "readinessProbe"}
        wanted = {kind: self.spec[key] for kind, key in kinds.items() if self.spec.get(key)}
        self._started = "startup" not in wanted
        self._ready = self._started and "readiness" not in wanted
        first = {"startup": wanted["startup"]} if "startup" in wanted else wanted
        self._probe(first)

    def _probe(self, wanted: dict[str, Object]) -> None:
        target = probes.Target(self.spec, self._facts.ip, self._facts.port_map, self.run)
        self._probes += [
            asyncio.create_task(probes.watch(kind, probe, target, self._probed, self._probe_failed))
            for kind, probe in wanted.items()
        ]

    def _probed(self, kind: str, good: bool) -> None:
        if not self.running:
            return
        if kind == "readiness":
            self._ready = good
        elif not good:
            self.begin_stop(f"Container {self.name} failed {kind} probe, will be restarted")
        elif kind == "startup":
            self._started = True
            later = {k: self.spec[f"{k}Probe"] for k in ("liveness", "readiness") if self.spec.get(f"{k}Probe")}
            self._ready = "readiness" not in later
            self._probe(later)
        self._wake()

    def _probe_failed(self, kind: str, output: str) -> None:
        if self.running and self._stopping is None:
            self._event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {output}")

    def stop_probes(self) -> None:
        """Stop probing."""
        for task in self._probes:
            task.cancel()
        self._probes.clear()

    async def run(self, argv: list[str], timeout: float) -> tuple[int, str]:
        """Run a command in the container; return exit code and output."""
        process = await self.exec(argv, stdin=False, tty=False)
        assert process.stderr is not None
        try:
            reading = asyncio.gather(process.stdout.read(), process.stderr.read())
            out, error = await asyncio.wait_for(reading, timeout)
            code = await asyncio.wait_for(process.wait(), timeout)
        finally:
            process.kill()
        return code, (out + error).decode(errors="replace")[: probes.BODY_LIMIT]

    async def exec(self, argv: Sequence[str], *, stdin: bool, tty: bool) -> ExecProcess:
        """Start a command in the container; see `PodManager.exec`."""
        if not self.running:
            raise ContainerNotRunning(f"container {self.name} is not running")
        argv = [containers.rewrite(word, self._rewritten()) for word in argv]
        extra = {"TERM": "xterm"} if tty else {}
        return await self._facts.node.runtime.exec(self.id, argv, extra, stdin=stdin, tty=tty)

    def _rewritten(self) -> list[tuple[str, str, bool]]:
        if self._facts.node.isolation != "plain":
            return []
        return volumes.mounts(self.spec, self._facts.volumes, {})

    # --- hooks

    async def _post_start(self) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        problem = await self._hook(hook, 600.0)
        if problem:
            self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}")
            self.begin_stop("FailedPostStartHook")

    async def _hook(self, hook: Object, timeout: float) -> str:
        """Run a lifecycle hook; return what went wrong."""
        if "sleep" in hook:
            await asyncio.sleep(min(float(hook["sleep"]["seconds"]), timeout))
            return ""
        target = probes.Target(self.spec, self._facts.ip, self._facts.port_map, self.run)
        if "httpGet" in hook:
            good, output = await probes.http_get(hook["httpGet"], target, timeout)
            return "" if good else output
        command = hook["exec"]["command"]
        try:
            code, output = await self.run(command, timeout)
        except (ExecFailed, ContainerNotRunning, asyncio.TimeoutError) as error:
            return f"command '{' '.join(command)}' failed: {error}"
        return f"command '{' '.join(command)}' exited with {code}: {output}" if code else ""

    # --- the stop

    def begin_stop(self, message: str) -> None:
        """Stop the container in the background, with its own grace period."""
        grace = float(self._facts.pod["spec"].get("terminationGracePeriodSeconds", 30))
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(max(grace, 2.0), message))

    async def stop(self, grace: float, message: str) -> None:
        """Stop the container: preStop hook, SIGTERM, and SIGKILL when the grace period is over."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(grace, message))
        await asyncio.shield(self._stopping)

    def hurry(self, grace: float) -> None:
        """Shorten the grace period of a stop in progress."""
        if self._hurry is not None:
            asyncio.get_running_loop().call_later(grace, self._hurry.set)

    async def _stop(self, grace: float, message: str) -> None:
        try:
            await self._end(grace, message)
        finally:
            self._stopping = None
            self._wake()

    async def _end(self, grace: float, message: str) -> None:
        deadline = time.monotonic() + grace
        self._hurry = asyncio.Event()
        self.stop_probes()
        self._event("Normal", "Killing", message)
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook:
            problem = await self._hook(hook, grace)
            if problem:
                self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}")
        runtime = self._facts.node.runtime
        number = getattr(signal, (self.spec.get("lifecycle") or {}).get("stopSignal") or "SIGTERM", signal.SIGTERM)
        await runtime.call("signal", id=self.id, signal=int(number))
        left = max(2.0 if hook else 0.0, deadline - time.monotonic())
        await _first(self._exit.wait(), self._hurry.wait(), timeout=left)
        if not self._exit.is_set():
            await runtime.call("kill", id=self.id)
            await self._exit.wait()

    def exited(self, record: Record) -> None:
        """The newest run ended."""
        self.running = self._ready = self._started = False
        self.stop_probes()
        self._ended = self._of_record(record)
        self._exact_end = time.monotonic()
        self._exit.set()

    def _of_record(self, record: Record) -> Object:
        failed = record["exit_code"] != 0
        reason = record["reason"] or ("Error" if failed else "Completed")
        started, finished = (_seconds(record[key]) for key in ("started_at", "finished_at"))
        ended = _terminated(record["id"], record["exit_code"], reason, started, finished)
        attempt = int(record["labels"]["attempt"])
        message = containers.termination_message(self._facts.surroundings(), self.spec, attempt, failed)
        return {**ended, "message": message} if message else ended

    async def forget(self, keep: int = 0) -> None:
        """Have the runtime forget all runs but the newest; logs of forgotten runs go, too."""
        while len(self._records) > keep:
            try:
                await self._facts.node.runtime.call("remove", id=self._records.pop(0))
            except RuntimeFailure:
                continue
        for log in (self._facts.folder / "logs" / self.name).glob("*.log*"):
            if int(log.name.partition(".")[0]) <= self.attempt - keep:
                log.unlink()

    # --- the status

    def status(self) -> Object:
        """Return the container's `ContainerStatus`."""
        image = self._image if self._image and self.id else None
        found: Object = {
            "name": self.name,
            "image": image.reference if image else self.spec.get("image", ""),
            "imageID": image.id if image else "",
            "ready": self._ready or (self._init and not is_sidecar(self.spec) and self.initialized),
            "restartCount": max(self.attempt, 0),
            "started": self._started,
            "state": self._state(),
            "lastState": {"terminated": last} if (last := self._last_ended()) else {},
        }
        if self.id:
            found["containerID"] = f"kit://{self.id}"
            found["resources"] = self.spec.get("resources") or {}
            found["user"] = {"linux": {"uid": os.getuid(), "gid": os.getgid(), "supplementalGroups": [os.getgid()]}}
        return found

    def _state(self) -> Object:
        if self.running:
            return {"running": {"startedAt": _seconds(self._started_at)}}
        if self._waiting:
            reason, message = self._waiting
            return {"waiting": {"reason": reason, "message": message}}
        if self._ended is not None:
            return {"terminated": self._ended}
        first = not self._init and bool(self._facts.pod["spec"].get("initContainers"))
        return {"waiting": {"reason": "PodInitializing" if first else "ContainerCreating"}}

    def _last_ended(self) -> Object | None:
        return self._ended or self._last if self._waiting else self._last

    def container_state(self, status: Object) -> ContainerState:
        """Return what the node's server may know."""
        log_dir = self._facts.folder / "logs" / self.name
        return ContainerState(self.name, self.spec, status, log_dir, self.attempt)


async def _first(*waits: Any, timeout: float) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _ran(status: Object) -> bool:
    return bool(status.get("containerID")) or int(status.get("restartCount", 0)) > 0


def _terminated(container: str, code: int, reason: str, started: str | None, finished: str) -> Object:
    ended = {"containerID": f"kit://{container}", "exitCode": code, "reason": reason, "finishedAt": finished}
    return {**ended, "startedAt": started or "1970-01-01T00:00:00Z"}


def _seconds(timestamp: str) -> str:
    """Cut a time of the runtime to whole seconds, as the API has it."""
    return timestamp[:19] + "Z" if timestamp else "1970-01-01T00:00:00Z"


def _go_duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
