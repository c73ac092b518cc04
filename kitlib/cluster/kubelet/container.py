"""One container: a process group, its log, its terminal or pipes, and what is left of it after its end."""

from __future__ import annotations

import contextlib
import os
import pty
import selectors
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import psutil

from kitlib.cluster.kubelet import isolation
from kitlib.cluster.kubelet.cri_log import LogWriter, timestamp
from kitlib.cluster.kubelet.spawn import children, spawn

_CHUNK = 1 << 16
_main_pids: set[int] = set()
"""Main processes of the containers that run: children of the runtime that are no orphans."""

Selector = selectors.BaseSelector


def wait_status(status: int) -> tuple[int, int]:
    """Return exit code and signal number of a `waitpid` status; the code is 128 + n after signal n."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status), os.WTERMSIG(status)
    return os.WEXITSTATUS(status), 0


class Container:
    """A container from start to end.

    Args:
        spec: `id`, `labels`, `argv`, `env`, `cwd`, `log`, and optionally `cpus`, `isolate`, `stdin`, `stdin_once`,
            `tty`, `memory_limit`, `hidden` (names of variables that only the main process and its children get).

    Attributes:
        pid: Process id, which is also its session and process group.
        running: Whether the process lives.
        exit_code: 128 + n after signal n.
        reason: `OOMKilled` when the memory limit ended it.
        master: The terminal's other end, or None.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Remember the specification; nothing starts yet."""
        self.id: str = spec["id"]
        self.labels: dict[str, str] = spec["labels"]
        self.env: dict[str, str] = {**spec["env"], "KIT_CONTAINER_ID": self.id}
        self.exec_env = {name: value for name, value in self.env.items() if name not in spec.get("hidden", ())}
        self.argv: list[str] = spec["argv"]
        self.cwd: str = spec["cwd"]
        self.cpus: list[int] | None = spec.get("cpus")
        self.isolate: dict[str, Any] | None = spec.get("isolate")
        self.memory_limit: int = spec.get("memory_limit", 0)
        self._log = LogWriter(spec["log"])
        self._keep_stdin = bool(spec.get("stdin"))
        self._stdin_once = bool(spec.get("stdin_once"))
        self._tty = bool(spec.get("tty"))
        self.pid = 0
        self._namespace: int | None = None
        self.running = False
        self.exit_code = self.signal = 0
        self.reason = ""
        self.started_at = self.finished_at = ""
        self.master: int | None = None
        self._stdin: int | None = None
        self._outputs: dict[int, str] = {}
        self._attached: dict[Any, tuple[int | None, list[int]]] = {}

    def record(self) -> dict[str, Any]:
        """Return what a client may know, JSON-ready."""
        names = ("id", "labels", "pid", "running", "exit_code", "signal", "reason", "started_at", "finished_at")
        return {name: getattr(self, name) for name in names}

    def start(self, selector: Selector) -> None:
        """Start the process.

        Raises:
            SpawnError: It could not be started.
        """
        stdio = self._open_terminal() if self._tty else self._open_pipes()
        try:
            self.pid = spawn(self.argv, self.env, self.cwd, stdio, tty=self._tty, cpus=self.cpus, isolate=self.isolate)
        except Exception:
            self._close_all()
            raise
        finally:
            for fd in set(stdio):
                os.close(fd)
        self.running = True
        _main_pids.add(self.pid)
        self._namespace = isolation.mount_namespace(self.pid) if self.isolate else None
        self.started_at = timestamp()
        if self._stdin is not None:
            os.set_blocking(self._stdin, False)
        for fd, stream in self._outputs.items():
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ, _Callback(self._pump, fd, stream, selector))

    def _open_terminal(self) -> list[int]:
        self.master, slave = pty.openpty()
        self._outputs = {self.master: "stdout"}
        self._stdin = os.dup(self.master) if self._keep_stdin else None
        return [slave, slave, slave]

    def _open_pipes(self) -> list[int]:
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self._outputs = {out_read: "stdout", err_read: "stderr"}
        if not self._keep_stdin:
            return [os.open(os.devnull, os.O_RDONLY), out_write, err_write]
        in_read, self._stdin = os.pipe()
        return [in_read, out_write, err_write]

    def _close_all(self) -> None:
        for fd in {*self._outputs, self._stdin, self.master}:
            if fd is not None:
                os.close(fd)
        self._outputs, self._stdin, self.master = {}, None, None
        self._log.release()

    # --- output and input

    def _pump(self, fd: int, stream: str, selector: Selector) -> bool:
        """Copy what is there to the log and to everybody attached; tell whether more may come."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # EIO: the terminal's last user went away
            data = b""
        if not data:
            selector.unregister(fd)
            self._log.close(stream)
            self._close_output(fd)
            return False
        self._log.write(stream, data)
        for _, outputs in self._attached.values():
            _write_some(outputs[min(stream == "stderr", len(outputs) - 1)], data)
        return True

    def _close_output(self, fd: int) -> None:
        del self._outputs[fd]
        if fd != self.master:
            os.close(fd)

    def _drain(self, selector: Selector) -> None:
        for fd, stream in list(self._outputs.items()):
            while fd in self._outputs and _readable(fd):
                self._pump(fd, stream, selector)
            if fd in self._outputs:
                selector.unregister(fd)
                self._log.close(stream)
                self._close_output(fd)

    def attach(self, client: Any, fds: list[int], stdin: bool, selector: Selector) -> None:
        """Add a client: with `stdin` the first descriptor is read, the others get the output."""
        source = fds[0] if stdin else None
        outputs = fds[1:] if stdin else list(fds)
        for fd in outputs:
            os.set_blocking(fd, False)
        self._attached[client] = (source, outputs)
        if source is not None:
            selector.register(source, selectors.EVENT_READ, _Callback(self._feed, client, selector))

    def _feed(self, client: Any, selector: Selector) -> None:
        source, outputs = self._attached[client]
        assert source is not None
        data = os.read(source, _CHUNK >> 4)
        if data:
            self._give(client, data, selector)
        else:
            selector.unregister(source)
            os.close(source)
            self._attached[client] = (None, outputs)
            if self._stdin_once and self._stdin is not None and not self._tty:
                os.close(self._stdin)
                self._stdin = None

    def _give(self, client: Any, data: bytes, selector: Selector) -> None:
        """Write a client's input; while the container takes no more, the client is not read."""
        if self._stdin is None:
            return
        try:
            data = data[os.write(self._stdin, data) :]
        except BlockingIOError:
            pass
        except OSError:
            return
        source, _ = self._attached[client]
        if data and source is not None and self._stdin not in selector.get_map():
            selector.unregister(source)
            selector.register(self._stdin, selectors.EVENT_WRITE, _Callback(self._go_on, client, data, selector))

    def _go_on(self, client: Any, data: bytes, selector: Selector) -> None:
        """Write what had to wait, then read the client again."""
        selector.unregister(self._stdin)  # type: ignore[arg-type]
        source, _ = self._attached.get(client, (None, []))
        if source is not None:
            selector.register(source, selectors.EVENT_READ, _Callback(self._feed, client, selector))
            self._give(client, data, selector)

    def detach(self, client: Any, selector: Selector) -> None:
        """Remove a client and close its descriptors."""
        source, outputs = self._attached.pop(client, (None, []))
        if source is not None:
            _unregister(source, selector)
            os.close(source)
        for fd in outputs:
            os.close(fd)

    # --- the end

    def exited(self, status: int, selector: Selector) -> None:
        """Note the end of the main process, end what it left behind and complete the log."""
        self.running = False
        _main_pids.discard(self.pid)
        self.exit_code, self.signal = wait_status(status)
        self.finished_at = timestamp()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        _kill_all(self._orphans())
        self._drain(selector)
        if self._stdin is not None:
            _unregister(self._stdin, selector)
        self._close_all()

    def kill(self) -> None:
        """Kill the whole tree; `exited` follows."""
        _kill_all(self._members())

    def _members(self) -> list[psutil.Process]:
        orphans = self._orphans()
        trees = [self.pid, *(orphan.pid for orphan in orphans)]
        return _processes(pid for tree in trees for pid in [tree, *_descendants(tree)])

    def _orphans(self) -> list[psutil.Process]:
        """Processes of this container whose parent died: the subreaper is their parent now."""
        return [p for p in _processes(set(children(os.getpid())) - _main_pids) if self._owns(p)]

    def _owns(self, process: psutil.Process) -> bool:
        """Tell by the namespace that cannot be left, or by the environment, which a process may have cleared."""
        if self._namespace is not None and isolation.mount_namespace(process.pid) == self._namespace:
            return True
        try:
            return process.environ().get("KIT_CONTAINER_ID") == self.id
        except psutil.Error:
            return False

    def stats(self) -> tuple[int, int]:
        """Return CPU nanoseconds used so far and bytes of memory of all processes."""
        cpu = memory = 0.0
        for process in self._members():
            with contextlib.suppress(psutil.Error):
                cpu += sum(process.cpu_times()[:4])
                memory += process.memory_info().rss
        return int(cpu * 1e9), int(memory)

    def over_memory(self) -> bool:
        """Tell whether the memory limit is passed; shared pages are shared out before it counts."""
        members = self._members()
        if _total(members, lambda p: p.memory_info().rss) <= self.memory_limit:
            return False
        if sys.platform != "linux":
            return True
        return _total(members, lambda p: p.memory_full_info().pss) > self.memory_limit


class _Callback:
    """A selector's callback with its arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._function, self._arguments = function, arguments

    def __call__(self) -> None:
        self._function(*self._arguments)


def _unregister(fd: int, selector: Selector) -> None:
    if fd in selector.get_map():
        selector.unregister(fd)


def _total(processes: list[psutil.Process], measure: Any) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += measure(process)
    return total


def _processes(pids: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


def _descendants(pid: int) -> list[int]:
    found = children(pid)
    for child in found:  # grows while it is read
        found += children(child)
    return found


def _kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _readable(fd: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return bool(selector.select(0))


def _write_some(fd: int, data: bytes) -> None:
    """Write what fits; a client that does not read loses output, the container never waits for it."""
    with contextlib.suppress(OSError):
        os.write(fd, data)


def kill_everything(seconds: float = 5.0) -> None:
    """Kill every descendant of this process, and theirs that appear meanwhile, and collect them."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        descendants = psutil.Process().children(recursive=True)
        if not descendants:
            return
        _kill_all(descendants)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.002)
