"""Pods whose containers are plain local processes, for tests of the kubelet's server alone."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Sequence
from pathlib import Path

from kitlib.cluster.kubelet.pod_manager import (
    ContainerNotRunning,
    ContainerState,
    ExecFailed,
    ExecProcess,
    PodManager,
    PodState,
)


class FakePods(PodManager):
    """Knows the Pods that a test adds; `exec` runs a command of the host."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], PodState] = {}
        self.running: set[int] = set()

    def add_pod(self, log_dir: Path, name: str = "web", containers: Sequence[str] = ("app",)) -> PodState:
        spec = {"containers": [{"name": container} for container in containers], "nodeName": "node-1"}
        pod = {"metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}, "spec": spec}
        states = {
            item["name"]: ContainerState(
                item["name"], item, {"name": item["name"], "state": {"running": {}}}, log_dir, attempt=0
            )
            for item in spec["containers"]
        }
        state = self.states["default", name] = PodState(pod, states, "127.0.0.1")
        return state

    def pods(self) -> list[PodState]:
        return list(self.states.values())

    def find(self, namespace: str, pod: str) -> PodState | None:
        return self.states.get((namespace, pod))

    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecProcess:
        if not self.states[namespace, pod].containers[container].running:
            raise ContainerNotRunning(container)
        try:
            return await (self._with_tty(argv) if tty else self._with_pipes(argv, stdin))
        except FileNotFoundError:
            raise ExecFailed(f'exec: "{argv[0]}": executable file not found in $PATH') from None

    async def attach(self, namespace: str, pod: str, container: str, *, stdin: bool, tty: bool) -> ExecProcess:
        return await self.exec(namespace, pod, container, ["sh", "-c", "cat; exit 9"], stdin=stdin, tty=tty)

    async def _with_pipes(self, argv: Sequence[str], stdin: bool) -> ExecProcess:
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=pipe if stdin else null, stdout=pipe, stderr=pipe, start_new_session=True
        )
        return self._made(process, process.stdin, process.stdout, process.stderr, lambda rows, cols: None)

    async def _with_tty(self, argv: Sequence[str]) -> ExecProcess:
        master, slave = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: _Terminal(reader), os.fdopen(master, "rb", 0))
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(os.dup(master), "wb", 0)
        )

        def resize(rows: int, cols: int) -> None:
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        return self._made(process, writer, reader, None, resize)

    def _made(self, process, stdin, stdout, stderr, resize) -> ExecProcess:
        self.running.add(process.pid)

        async def ended() -> int:
            code = await process.wait()
            self.running.discard(process.pid)
            return code if code >= 0 else 128 - code

        def kill() -> None:
            if stdin is not None:
                stdin.close()
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass
            process._transport.close()  # also when nobody reads its output

        return ExecProcess(stdin, stdout, stderr, asyncio.ensure_future(ended()), resize, kill)

    async def stats(self) -> dict[tuple[str, str], dict[str, tuple[int, int]]]:
        return {key: {name: (10**9, 1 << 20) for name in state.containers} for key, state in self.states.items()}


class _Terminal(asyncio.StreamReaderProtocol):
    """A terminal whose last process has gone reads as an error on Linux: that is its end."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None)
