"""What a node knows about its Pods, for the server that the API server calls (logs, exec, attach, port-forward, stats).

Stands for the kubelet's pod manager and the part of the container runtime interface that its HTTP server uses.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kitlib.cluster.objects import Object

if TYPE_CHECKING:
    from kitlib.cluster.kubelet.container_worker import ContainerWorker
    from kitlib.cluster.kubelet.pod_worker import PodWorker
    from kitlib.cluster.kubelet.runtime_client import RuntimeClient


_EXEC_ERROR = (
    'error executing command in container: failed to exec in container: failed to start exec "{}": '
    "OCI runtime exec failed: exec failed: unable to start container process: {}"
)


class ContainerNotRunning(Exception):  # noqa: N818  (the CRI's word)
    """The container exists, but no process of it runs."""


class ExecFailed(Exception):  # noqa: N818
    """A command could not be started in a container; the message has the shape of a real runtime's error."""


@dataclass
class ExecProcess:
    """A process started in a container, or an attachment to the container's own process.

    Attributes:
        stdin: Where to write its input; None when no stdin was asked for. Closing it is end of file.
        stdout: Its output; with a tty everything it prints. `read()` gives `b""` at the end.
        stderr: Its error output; None with a tty.
    """

    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader | None
    _exit: asyncio.Future[int]
    _resize: Callable[[int, int], None]
    _kill: Callable[[], None]

    async def wait(self) -> int:
        """Return the exit code (128 + n after signal n)."""
        return await asyncio.shield(self._exit)

    def resize(self, rows: int, cols: int) -> None:
        """Tell the terminal its size; nothing happens without a tty."""
        self._resize(rows, cols)

    def kill(self) -> None:
        """End the process (an attachment: only detach) and release everything it holds."""
        self._kill()


@dataclass
class ContainerState:
    """One container of a Pod as the node sees it.

    Attributes:
        name: Its name in the Pod's spec.
        spec: Its part of the Pod's spec (read-only).
        status: Its `ContainerStatus`: state, lastState, ready, started, restartCount, ...
        log_dir: Folder with one log file per run: `0.log`, `1.log`, ... (rotated: `0.log.1` is older than `0.log`).
        attempt: Number of its newest run, from 0; -1 before the first.
        stdin: Whether the container keeps an open stdin.
        tty: Whether it has a terminal.
    """

    name: str
    spec: Object
    status: Object
    log_dir: Path
    attempt: int = -1

    @property
    def stdin(self) -> bool:
        """Whether the container keeps an open stdin."""
        return bool(self.spec.get("stdin"))

    @property
    def tty(self) -> bool:
        """Whether the container has a terminal."""
        return bool(self.spec.get("tty"))

    @property
    def running(self) -> bool:
        """Whether its process runs now."""
        return "running" in self.status.get("state", {})


@dataclass
class PodState:
    """One Pod of this node.

    Attributes:
        pod: The latest object from the API (read-only).
        containers: All containers by name, init containers included, in the order of the spec.
        pod_ip: Address of the Pod; empty before it has one.
        port_map: Declared container port -> local port where it really listens; empty in `multi` loopback mode
            unless a port could not be bound.
    """

    pod: Object
    containers: dict[str, ContainerState] = field(default_factory=dict)
    pod_ip: str = ""
    port_map: dict[int, int] = field(default_factory=dict)

    def log_path(self, container: str, previous: bool = False) -> Path | None:
        """Return the log file of a container's current (or previous) run; None when there was no such run."""
        state = self.containers.get(container)
        number = state.attempt - previous if state else -1
        return state.log_dir / f"{number}.log" if state and number >= 0 else None


class PodManager:
    """All Pods of this node.

    Args:
        runtime: The container runtime.
    """

    def __init__(self, runtime: RuntimeClient) -> None:
        self._runtime = runtime
        self._workers: dict[str, PodWorker] = {}

    # --- the kubelet's own side

    def workers(self) -> list[PodWorker]:
        """Return the workers of all Pods."""
        return list(self._workers.values())

    def worker(self, uid: str) -> PodWorker | None:
        """Return the worker of a Pod."""
        return self._workers.get(uid)

    def add(self, worker: PodWorker) -> None:
        """Add a Pod's worker."""
        self._workers[worker.uid] = worker

    def remove_when_done(self, worker: PodWorker) -> None:
        """Drop a Pod that the API has forgotten, once nothing of it is left."""
        worker.when_done(lambda: self._workers.pop(worker.uid, None))

    # --- what the server asks

    def pods(self) -> list[PodState]:
        """Return every Pod of this node."""
        return [worker.state for worker in self._workers.values() if not worker.done]

    def find(self, namespace: str, pod: str) -> PodState | None:
        """Return a Pod of this node, or None."""
        worker = self._find(namespace, pod)
        return worker.state if worker else None

    def _find(self, namespace: str, pod: str) -> PodWorker | None:
        for worker in reversed(self._workers.values()):  # a new Pod may bear the name of one that is ending
            metadata = worker.state.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, pod) and not worker.done:
                return worker
        return None

    def _container(self, namespace: str, pod: str, container: str) -> ContainerWorker:
        worker = self._find(namespace, pod)
        found = next((c for c in worker.all() if c.name == container), None) if worker else None
        if found is None:
            raise KeyError(container)
        return found

    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecProcess:
        """Start a command in a running container: its environment, folder, volumes and host name.

        Raises:
            KeyError: No such Pod or container on this node.
            ContainerNotRunning: The container does not run.
            ExecFailed: The command could not be started, in the words of a real runtime.
        """
        worker = self._container(namespace, pod, container)
        try:
            return await worker.exec(argv, stdin=stdin, tty=tty)
        except ExecFailed as error:
            raise ExecFailed(_EXEC_ERROR.format(uuid.uuid4().hex * 2, error)) from error

    async def attach(self, namespace: str, pod: str, container: str, *, stdin: bool, tty: bool) -> ExecProcess:
        """Join the container's own process: its output from now on, its stdin if it keeps one open.

        Raises:
            KeyError: No such Pod or container on this node.
            ContainerNotRunning: The container does not run.
        """
        worker = self._container(namespace, pod, container)
        if not worker.running:
            raise ContainerNotRunning(f"container {container} is not running")
        return await self._runtime.attach(worker.id, stdin=stdin, tty=tty)

    async def stats(self) -> dict[tuple[str, str], dict[str, tuple[int, int]]]:
        """Return, by (namespace, Pod) and container, CPU nanoseconds used so far and memory in bytes."""
        used = await self._runtime.call("stats")
        found: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        for worker in self._workers.values():
            metadata = worker.state.pod["metadata"]
            mine = {c.name: tuple(used[c.id]) for c in worker.all() if c.id in used}
            if mine:
                found[metadata["namespace"], metadata["name"]] = mine
        return found
