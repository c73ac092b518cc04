"""Fixtures: a node of the test's own, with an API server in this process and a container runtime beside it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from kitlib.cluster import bootstrap
from kitlib.cluster.apiserver.server import APIServer
from kitlib.cluster.client import ApiError
from kitlib.cluster.config import ClusterConfig, NodeConfig, Settings
from kitlib.cluster.kubelet.main import Kubelet
from kitlib.cluster.store import Store

GENEROUS = 60.0
FAST = Settings(
    container_restart_backoff=0.4,
    image_pull_backoff=0.4,
    back_off_period=0.2,
    generic_pleg_relist_period=0.1,
    node_lease_renew_interval=0.2,
)
BOTH_WAYS = pytest.mark.parametrize("changes", [{"isolation": "auto"}, {"isolation": "plain"}], ids=["auto", "plain"])
"""Run a test with namespaces, where the kernel allows them, and in plain mode."""

_RUNTIME = """
import sys
from pathlib import Path
from kitlib.cluster.config import ClusterConfig, NodeConfig
from kitlib.cluster.kubelet import runtime
home, fd = sys.argv[1:]
runtime.main(NodeConfig(ClusterConfig(Path(home).name, Path(home), 0, 0, ""), "node-1", 1, ""), int(fd))
"""


class RuntimeProcess:
    """A container runtime and the lifeline that it hangs on."""

    def __init__(self, home: Path) -> None:
        read_end, self.lifeline = os.pipe()
        command = [sys.executable, "-c", _RUNTIME, str(home), str(read_end)]
        self.process = subprocess.Popen(command, pass_fds=[read_end])
        os.close(read_end)

    def power_off(self) -> list[psutil.Process]:
        """Cut the lifeline; return what still lives of the runtime's processes."""
        descendants = psutil.Process(self.process.pid).children(recursive=True)
        os.close(self.lifeline)
        self.process.wait(GENEROUS)
        return psutil.wait_procs(descendants, timeout=GENEROUS)[1]


class Node:
    """One node and what tests ask of it.

    Attributes:
        client: The API.
        config: The node's configuration.
        kubelet: Its kubelet.
    """

    def __init__(self, home: Path, changes: dict[str, Any]) -> None:
        self.home = home
        options = {"settings": FAST, **changes.pop("cluster", {})}
        cluster = ClusterConfig(home.name, home, 0, bootstrap._free_block(), "token", **options)
        self.config = replace(NodeConfig(cluster, "node-1", 1, "token", cpus=8), **changes)

    async def start(self) -> None:
        bootstrap.write_credentials(self.config.cluster, 1)
        self.store = Store(self.home / "state.db")
        self.api = APIServer(self.config.cluster, self.store)
        await self.api.start(socket.create_server(("127.0.0.1", 0)))
        self.client = self.api.client("test")
        self.runtime = RuntimeProcess(self.home)
        await self.start_kubelet()

    async def start_kubelet(self) -> None:
        self.kubelet = Kubelet(self.config, self.api.client("kubelet"))
        await self.kubelet.start(10250)

    async def power_cycle(self) -> None:
        """Cut the power while Pods run, and switch it on again."""
        await self.kubelet.stop()
        assert self.runtime.power_off() == []
        self.runtime = RuntimeProcess(self.home)
        await self.start_kubelet()

    async def stop(self) -> None:
        await self.kubelet.stop()
        assert self.runtime.power_off() == []
        await self.api.stop()
        self.store.close()

    async def create(self, name: str, command: Any = None, *, pod: dict | None = None, **container: Any) -> dict:
        """Create a Pod of one container on this node; `pod` adds to its spec, keywords to its container."""
        first = {"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent", **container}
        if command is not None:
            first["command"] = ["sh", "-c", command] if isinstance(command, str) else command
        spec = {"nodeName": "node-1", "restartPolicy": "Never", "containers": [first], **(pod or {})}
        metadata = {"name": name, **spec.pop("metadata", {})}
        obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        return await self.client.create("pods", obj, "default")

    def shares(self) -> dict[str, Any]:
        """Return arguments for `create` by which a container has this node's folder `shared` at /shared."""
        folder = self.home / "shared"
        folder.mkdir()
        volumes = [{"name": "shared", "hostPath": {"path": str(folder)}}]
        return {"pod": {"volumes": volumes}, "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}

    async def configmap(self, name: str, data: dict[str, str]) -> None:
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        await self.client.create("configmaps", obj, "default")

    async def get(self, name: str) -> dict:
        return await self.client.get("pods", name, "default")

    async def wait(self, name: str, condition: Callable[[dict], bool]) -> dict:
        """Wait until a Pod is as said; fails with its status."""
        seen: dict = {}

        async def met() -> bool:
            seen.update(await self.get(name))
            return _safely(condition, seen)

        await until(met, lambda: str(seen.get("status")))
        return seen

    async def waiting(self, name: str, *reasons: str) -> dict:
        """Wait until a Pod's container waits for one of these reasons."""
        return await self.wait(name, lambda pod: state_of(pod)["state"]["waiting"]["reason"] in reasons)

    async def finished(self, name: str) -> dict:
        """Wait until a Pod ended."""
        return await self.wait(name, lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"))

    async def ready(self, name: str) -> dict:
        """Wait until a Pod is Ready."""
        return await self.wait(name, lambda pod: condition_of(pod, "Ready")["status"] == "True")

    async def gone(self, name: str) -> None:
        """Wait until a Pod is gone."""

        async def met() -> bool:
            try:
                await self.get(name)
            except ApiError as error:
                return error.code == 404
            return False

        await until(met)

    async def output(self, name: str) -> str:
        """Wait until a Pod ended and return what its container printed."""
        await self.finished(name)
        return self.log(name)

    def log(self, name: str, container: str = "c", previous: bool = False) -> str:
        """Return what a container printed so far."""
        state = self.kubelet.pods.find("default", name)
        path = state.log_path(container, previous) if state else None
        if path is None or not path.exists():
            return ""
        return "".join(line.split(" ", 3)[3] + "\n" for line in path.read_text().splitlines())

    async def logged(self, name: str, text: str, container: str = "c") -> None:
        """Wait until a container has printed a text."""

        async def met() -> bool:
            return text in self.log(name, container)

        await until(met, lambda: self.log(name, container))

    async def exec(self, name: str, *argv: str, stdin: bytes = b"", tty: bool = False) -> tuple[int, str]:
        """Run a command in a Pod; return exit code and output."""
        process = await self.kubelet.pods.exec("default", name, "c", argv, stdin=bool(stdin), tty=tty)
        try:
            if process.stdin is not None:
                process.stdin.write(stdin)
                process.stdin.close()
            out = await process.stdout.read()
            error = await process.stderr.read() if process.stderr else b""
            return await process.wait(), (out + error).decode()
        finally:
            process.kill()

    async def events(self, name: str) -> list[tuple[str, str]]:
        """Return reason and message of the Events about a Pod."""
        await self.kubelet.node.recorder.flush()
        events = (await self.client.list("events", "default"))["items"]
        return [(e["reason"], e["message"]) for e in events if e["involvedObject"]["name"] == name]

    async def event(self, name: str, reason: str) -> str:
        """Wait for an Event about a Pod; return its message."""
        found: list[str] = []

        async def met() -> bool:
            found.extend(m for r, m in await self.events(name) if r == reason)
            return bool(found)

        await until(met)
        return found[0]


def condition_of(pod: dict, kind: str) -> dict:
    """Return a condition of a Pod."""
    return next(c for c in pod["status"]["conditions"] if c["type"] == kind)


def state_of(pod: dict, key: str = "containerStatuses") -> dict:
    """Return the status of the first container."""
    return pod["status"][key][0]


def _safely(condition: Callable[[dict], bool], obj: dict) -> bool:
    try:
        return bool(condition(obj))
    except (KeyError, IndexError, StopIteration):
        return False


async def until(met: Callable[[], Awaitable[bool]], describe: Callable[[], str] = lambda: "") -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + GENEROUS
    while not await met():
        assert time.monotonic() < deadline, describe()
        await asyncio.sleep(0.02)


@pytest.fixture
def changes() -> dict[str, Any]:
    """What a test wants changed in the node's configuration: `@pytest.mark.parametrize("changes", [...])`."""
    return {}


@pytest.fixture
async def node(tmp_path: Path, changes: dict[str, Any]) -> AsyncIterator[Node]:
    """A running node; nothing of it may be left at the end."""
    made = Node(tmp_path, dict(changes))
    await made.start()
    yield made
    await made.stop()
