"""The kubelet's side of the container runtime interface: requests, pushed exits, exec and attach with descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kitlib.cluster.kubelet.pod_manager import ContainerNotRunning, ExecFailed, ExecProcess
from kitlib.cluster.kubelet.runtime import SOCKET

Record = dict[str, Any]
_CONNECT_SECONDS = 20.0
_LONGEST_LINE = 64 << 20
"""Longest message of the runtime: the records of all its containers are one."""


class RuntimeFailure(Exception):  # noqa: N818
    """The runtime refused a request; the message is worded as containerd words it."""


class RuntimeClient:
    """Talks to the runtime of one node over its Unix socket.

    Args:
        node_dir: Folder of the socket.
        on_exit: Called with the record of a container that ended.
    """

    def __init__(self, node_dir: Path, on_exit: Callable[[Record], None]) -> None:
        """Remember where the runtime listens; `connect` opens the connection."""
        self._dir = node_dir
        self._on_exit = on_exit
        self._replies: list[asyncio.Future[Any]] = []
        self._reader: asyncio.Task[None] | None = None

    async def connect(self) -> list[Record]:
        """Connect and subscribe to exits; waits for a runtime that is still starting.

        Returns:
            The records of all containers that the runtime knows.
        """
        reader, self._writer = await asyncio.open_unix_connection(sock=await self._open(), limit=_LONGEST_LINE)
        self._reader = asyncio.create_task(self._read(reader))
        records: list[Record] = await self.call("subscribe")
        return records

    async def _open(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CONNECT_SECONDS
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, self._address())
                return sock
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(0.01)

    def _address(self) -> str:
        return SOCKET if Path.cwd() == self._dir else str(self._dir / SOCKET)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            if "exit" in message:
                self._on_exit(message["exit"])
            elif not (reply := self._replies.pop(0)).done():  # else who asked does not wait any more
                reply.set_result(message)
                await asyncio.sleep(0)  # who asked goes on before later news are told
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(RuntimeFailure("the container runtime is gone"))

    async def call(self, operation: str, **arguments: Any) -> Any:
        """Make one request and return its answer.

        Raises:
            RuntimeFailure: The runtime refused.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies.append(reply)
        self._writer.write(json.dumps({"op": operation, **arguments}).encode() + b"\n")
        message = await reply
        if "error" in message:
            raise RuntimeFailure(message["error"])
        return message["ok"]

    async def close(self) -> None:
        """Disconnect; containers go on."""
        if self._reader is not None:
            self._reader.cancel()
            self._writer.close()

    async def exec(
        self, container: str, argv: Sequence[str], env: Mapping[str, str], *, stdin: bool, tty: bool
    ) -> ExecProcess:
        """Start a process in a container; see `PodManager.exec`."""
        request = {"op": "exec", "id": container, "argv": list(argv), "env": dict(env), "tty": tty}
        session = _Session(await self._open())
        if tty:
            return await session.start_terminal(request, stdin)
        return await session.start_pipes(request, ["r", "w", "w"], stdin)

    async def attach(self, container: str, *, stdin: bool, tty: bool) -> ExecProcess:
        """Join a container's own process; see `PodManager.attach`."""
        request = {"op": "attach", "id": container, "stdin": stdin}
        session = _Session(await self._open(), lambda rows, cols: self._resize(container, rows, cols))
        roles = (["r"] if stdin else []) + (["w"] if tty else ["w", "w"])
        return await session.start_pipes(request, roles, stdin)

    def _resize(self, container: str, rows: int, cols: int) -> None:
        task = asyncio.ensure_future(self.call("resize", id=container, rows=rows, cols=cols))
        task.add_done_callback(lambda done: done.exception())


class _PipeEnd(asyncio.StreamReaderProtocol):
    """Reads a pipe or terminal; a terminal whose last user left (EIO) is at its end, not broken."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._own_reader = reader

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None)


class _Session:
    """One exec or attach: a connection of its own whose end is the end of the process."""

    def __init__(self, sock: socket.socket, resize: Callable[[int, int], None] | None = None) -> None:
        self._sock = sock
        self._resize = resize or (lambda rows, cols: None)
        self._closers: list[Callable[[], Any]] = []

    async def start_pipes(self, request: Mapping[str, Any], roles: Sequence[str], stdin: bool) -> ExecProcess:
        ends = [os.pipe() for _ in roles]
        theirs = [read if role == "r" else write for role, (read, write) in zip(roles, ends, strict=True)]
        ours = [write if role == "r" else read for role, (read, write) in zip(roles, ends, strict=True)]
        try:
            await self._request(request, theirs)
            writer = None
            if roles[0] == "r":
                writer = await self._writer(ours.pop(0))
                if not stdin:
                    writer.close()
            readers = [await self._reader(ours.pop(0)) for _ in list(ours)]
        except BaseException:  # a client that leaves now cancels this
            self._give_up(ours)
            raise
        error = readers[1] if len(readers) > 1 else None
        return self._process(writer if stdin else None, readers[0], error)

    async def start_terminal(self, request: Mapping[str, Any], stdin: bool) -> ExecProcess:
        master, slave = os.openpty()
        ours = [master]
        try:
            await self._request(request, [slave, os.dup(slave), os.dup(slave)])
            self._resize = lambda rows, cols: _set_size(master, rows, cols)
            writer = await self._writer(os.dup(master)) if stdin else None
            return self._process(writer, await self._reader(ours.pop()), None)
        except BaseException:
            self._give_up(ours)
            raise

    def _give_up(self, ours: Sequence[int]) -> None:
        """Close everything of a session that did not come to be; the runtime ends what it has started."""
        for fd in ours:
            os.close(fd)
        self._close()

    async def _request(self, request: Mapping[str, Any], theirs: Sequence[int]) -> None:
        """Send the request with its descriptors and read the answer."""
        try:
            socket.send_fds(self._sock, [json.dumps(request).encode() + b"\n"], theirs)
        except OSError:
            self._sock.close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._lines, self._out = await asyncio.open_unix_connection(sock=self._sock)
        self._closers.append(self._out.close)
        message = json.loads(await self._lines.readline() or b'{"error": "the container runtime is gone"}')
        if "error" in message:
            stopped = message.get("kind") == "not found" or "stopped" in message["error"]
            raise (ContainerNotRunning if stopped else ExecFailed)(message["error"])

    async def _reader(self, fd: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        pipe = open(fd, "rb", buffering=0)  # noqa: ASYNC230, SIM115
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _PipeEnd(reader), pipe)
        self._closers.append(transport.close)
        return reader

    async def _writer(self, fd: int) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        pipe = open(fd, "wb", buffering=0)  # noqa: ASYNC230, SIM115
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
        self._closers.append(transport.abort)
        return asyncio.StreamWriter(transport, protocol, None, loop)

    def _process(
        self, stdin: asyncio.StreamWriter | None, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader | None
    ) -> ExecProcess:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._finish(done))
        self._closers.append(task.cancel)
        return ExecProcess(stdin, stdout, stderr, done, lambda r, c: self._resize(r, c), self._close)

    async def _finish(self, done: asyncio.Future[int]) -> None:
        line = await self._lines.readline()
        if not done.done():
            done.set_result(json.loads(line)["exit_code"] if line else 137)

    def _close(self) -> None:
        for close in self._closers:
            with contextlib.suppress(Exception):
                close()


def _set_size(master: int, rows: int, cols: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
