"""The container runtime of one node: starts containers as process groups, writes their logs, keeps their exit codes.

Stands for containerd and its shims. A process of its own, so that Pods outlive a restart of the kubelet; it dies,
with every container, when the node does (see `main`). Serves JSON lines on the Unix socket `runtime.sock`:
requests `{"op": ..., ...}`, one reply each with `ok` or `error`, in order; a connection that asked to `subscribe`
also gets `{"exit": <record>}`. Left out: images and sandboxes, which are the kubelet's folders here.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import termios
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kitlib.cluster.config import NodeConfig
from kitlib.cluster.kubelet.container import Container, kill_everything, wait_status
from kitlib.cluster.kubelet.spawn import SpawnError, become_subreaper, spawn

SOCKET = "runtime.sock"
_MEMORY_CHECK_SECONDS = 1.0

Message = dict[str, Any]


@dataclass(eq=False)
class _Connection:
    """One client; `fds` came with its latest request, `process` is what it exec'd, `attached` what it joined."""

    sock: socket.socket
    inbox: bytes = b""
    outbox: bytes = b""
    fds: list[int] = field(default_factory=list)
    subscribed: bool = False
    process: int = 0
    attached: Container | None = None
    reader: Callable[[], None] | None = None


class Runtime:
    """Containers and clients of one node, in one loop without threads.

    Args:
        lifeline_fd: Read end of a pipe; end of file means that the node died.
        memory: The node's volumes in memory, which die with it.
    """

    def __init__(self, lifeline_fd: int, memory: Path) -> None:
        """Listen in the current folder."""
        self._memory = memory
        self._selector = selectors.DefaultSelector()
        self._containers: dict[str, Container] = {}
        self._connections: set[_Connection] = set()
        self._next_memory_check = 0.0
        self._watch(lifeline_fd, self._die)
        self._watch(self._signal_pipe(), self._reap)
        self._listen()

    def _watch(self, file: Any, callback: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, callback)

    def _signal_pipe(self) -> int:
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._die())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._signals = read_end
        return read_end

    def _listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(SOCKET)
        os.chmod(SOCKET, 0o600)
        self._server.listen(64)
        self._server.setblocking(False)
        self._watch(self._server, self._accept)

    def run(self) -> None:
        """Serve until the node dies."""
        self._reap()
        while True:
            for key, mask in self._selector.select(self._timeout()):
                is_client = isinstance(key.data, _Reader)
                if is_client and mask & selectors.EVENT_WRITE and self._current(key):
                    self._flush(key.data.connection)
                if (mask & selectors.EVENT_READ or not is_client) and self._current(key):
                    self._call(key.data)
            self._call(self._check_memory)

    def _call(self, callback: Callable[[], None]) -> None:
        """Call back; a defect must not end the node's containers."""
        try:
            callback()
        except Exception:
            traceback.print_exc()

    def _current(self, key: selectors.SelectorKey) -> bool:
        """Tell whether an event still means the same file: an earlier one may have closed it."""
        now = self._selector.get_map().get(key.fd)
        return now is not None and now.data is key.data

    def _die(self) -> None:
        kill_everything()
        shutil.rmtree(self._memory, ignore_errors=True)
        os._exit(0)

    # --- processes

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._exited(pid, status)

    def _exited(self, pid: int, status: int) -> None:
        container = next((c for c in self._containers.values() if c.pid == pid and c.running), None)
        if container is not None:
            container.exited(status, self._selector)
            self._publish({"exit": container.record()})
        for connection in [c for c in self._connections if c.process == pid]:
            connection.process = 0
            self._send(connection, {"exit_code": wait_status(status)[0]})
        if container is not None:
            for connection in [c for c in self._connections if c.attached is container]:
                self._detach(connection)
                self._send(connection, {"exit_code": container.exit_code})

    def _timeout(self) -> float | None:
        if not any(c.running and c.memory_limit for c in self._containers.values()):
            return None
        return max(0.0, self._next_memory_check - time.monotonic())

    def _check_memory(self) -> None:
        """Stand for the kernel's OOM killer: end containers whose processes use more than the limit."""
        if time.monotonic() < self._next_memory_check:
            return
        self._next_memory_check = time.monotonic() + _MEMORY_CHECK_SECONDS
        for container in self._containers.values():
            if container.running and container.memory_limit and container.over_memory():
                container.reason = "OOMKilled"
                container.kill()

    # --- clients

    def _accept(self) -> None:
        sock, _ = self._server.accept()
        sock.setblocking(False)
        connection = _Connection(sock)
        self._connections.add(connection)
        connection.reader = _Reader(self, connection)
        self._watch(sock, connection.reader)

    def _receive(self, connection: _Connection) -> None:
        try:
            data, fds = _receive_with_fds(connection.sock)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        connection.fds += fds
        if not data:
            self._drop(connection)
            return
        *lines, connection.inbox = (connection.inbox + data).split(b"\n")
        for line in lines:
            self._answer(connection, json.loads(line))

    def _answer(self, connection: _Connection, request: Message) -> None:
        try:
            operation = getattr(self, f"op_{request['op']}")
            reply = {"ok": operation(connection, request)}
        except SpawnError as error:
            reply = {"error": str(error), "kind": "spawn"}
        except KeyError:
            reply = {"error": "no such container", "kind": "not found"}
        except OSError as error:
            reply = {"error": str(error), "kind": "os"}
        for fd in connection.fds:
            os.close(fd)
        connection.fds.clear()
        self._send(connection, reply)

    def _send(self, connection: _Connection, message: Message) -> None:
        connection.outbox += json.dumps(message).encode() + b"\n"
        self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.outbox)
            connection.outbox = connection.outbox[sent:]
        except BlockingIOError:
            pass
        except OSError:
            connection.outbox = b""
        if connection in self._connections:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outbox else 0)
            self._selector.modify(connection.sock, events, connection.reader)

    def _publish(self, message: Message) -> None:
        for connection in [c for c in self._connections if c.subscribed]:
            self._send(connection, message)

    def _drop(self, connection: _Connection) -> None:
        """A client went away; what it exec'd goes with it."""
        self._connections.discard(connection)
        self._selector.unregister(connection.sock)
        connection.sock.close()
        for fd in connection.fds:
            os.close(fd)
        self._detach(connection)
        if connection.process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(connection.process, signal.SIGKILL)

    def _detach(self, connection: _Connection) -> None:
        if connection.attached is not None:
            connection.attached.detach(connection, self._selector)
            connection.attached = None

    # --- operations

    def op_subscribe(self, connection: _Connection, _: Message) -> list[Message]:
        """Push exits to this client from now on; return all records."""
        connection.subscribed = True
        return [container.record() for container in self._containers.values()]

    def op_start(self, _: _Connection, request: Message) -> Message:
        """Start a container and return its record."""
        container = Container(request["container"])
        container.start(self._selector)
        self._containers[container.id] = container
        return container.record()

    def op_signal(self, _: _Connection, request: Message) -> None:
        """Send a signal to a container's process group."""
        container = self._containers[request["id"]]
        if container.running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(container.pid, request["signal"])

    def op_kill(self, _: _Connection, request: Message) -> None:
        """Kill a container's whole tree."""
        container = self._containers[request["id"]]
        if container.running:
            container.kill()

    def op_remove(self, _: _Connection, request: Message) -> None:
        """Forget a container that ended."""
        container = self._containers[request["id"]]
        if not container.running:
            del self._containers[request["id"]]

    def op_stats(self, _: _Connection, request: Message) -> dict[str, tuple[int, int]]:
        """Return CPU nanoseconds and bytes of memory by container."""
        return {c.id: c.stats() for c in self._containers.values() if c.running}

    def op_exec(self, connection: _Connection, request: Message) -> Message:
        """Start a process in a container; its stdio are the descriptors that came along."""
        container = self._containers[request["id"]]
        if not container.running:
            raise SpawnError("cannot exec in a stopped container")
        env = {**container.exec_env, **request.get("env", {})}
        tty = bool(request.get("tty"))
        pid = spawn(
            request["argv"],
            env,
            container.cwd,
            connection.fds,
            tty=tty,
            cpus=container.cpus,
            join=container.pid if container.isolate else 0,
        )
        connection.process = pid
        return {"pid": pid}

    def op_attach(self, connection: _Connection, request: Message) -> None:
        """Copy a container's output to the descriptors that came along, and the first of them to its stdin."""
        container = self._containers[request["id"]]
        if not container.running:
            raise SpawnError("container is not running")
        container.attach(connection, connection.fds, bool(request.get("stdin")), self._selector)
        connection.fds = []
        connection.attached = container

    def op_resize(self, _: _Connection, request: Message) -> None:
        """Set the size of a container's terminal."""
        master = self._containers[request["id"]].master
        if master is not None:
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", request["rows"], request["cols"], 0, 0))


class _Reader:
    """Callback of a client's socket, which also names the client for writing."""

    def __init__(self, runtime: Runtime, connection: _Connection) -> None:
        self.connection = connection
        self._runtime = runtime

    def __call__(self) -> None:
        self._runtime._receive(self.connection)


def _receive_with_fds(sock: socket.socket) -> tuple[bytes, list[int]]:
    numbers = array.array("i")
    data, ancillary, _, _ = sock.recvmsg(1 << 16, socket.CMSG_SPACE(8 * numbers.itemsize))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    for number in numbers:
        os.set_inheritable(number, False)
    return data, list(numbers)


def main(config: NodeConfig, lifeline_fd: int) -> None:
    """Run the container runtime of a node; returns never.

    Args:
        config: The node.
        lifeline_fd: Read end of a pipe whose write end the supervisor holds: at end of file every container is
            killed and the process exits.
    """
    config.node_dir.mkdir(parents=True, exist_ok=True)
    os.chdir(config.node_dir)
    become_subreaper()
    gc.freeze()
    Runtime(lifeline_fd, config.memory_dir).run()
