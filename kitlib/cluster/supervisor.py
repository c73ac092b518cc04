"""The machine room: starts the cluster's processes, watches them, and leaves none behind.

Stands for what systemd does on a real node, and for the machines themselves. The supervisor forks every process of the
cluster, so that start-up is quick and memory is shared: per node a container runtime and a kubelet, and one control
plane. It imports modules as they are needed: the runtimes' few, then those of every client of the API, then the
kubelets'. Those of the control plane it leaves to that process, so that none carries what it does not use. It restarts
a control plane that died and a kubelet that crashed. A kubelet ended by SIGKILL is a machine that lost power: its
containers are killed too, and it stays down until `kit node start`.

What it has imported for the others it does not need itself. When all run, it executes itself again, as
`systemctl daemon-reexec` does: a process keeps its children and its pipes, and all else it forgets.

The lifeline: of each node's pipe the supervisor alone holds the write end. When it closes it, or dies, the
container runtime at the other end reads EOF, kills every container of the node and ends. What a runtime leaves behind
that is killed itself becomes the supervisor's child, and is killed by it.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from kitlib.cluster.config import CONTROL_SOCKET, ClusterConfig, NodeConfig, from_json
from kitlib.cluster.kubelet import spawn

CONTROL_PLANE = "control-plane"
MAX_FILES = 10240
"""The most that macOS allows."""
RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0)
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
RENEW_DELAY = 1.0
"""Seconds between the control plane's start and the supervisor's renewal, in which the nodes start undisturbed."""


@dataclass
class Process:
    """A process of the cluster: what it is, how to start it again, and what was asked of it."""

    name: str
    start: Callable[[], int]
    pid: int | None = None
    wanted: bool = True
    starts: int = 0
    started_at: float = 0.0


@dataclass
class Node:
    """One node: its configuration, its two processes and the write end of its lifeline.

    Attributes:
        config: What its processes are told.
        runtime: The container runtime.
        kubelet: The kubelet.
        lifeline: None while the node is off.
        again: Whether to start it when what is still ending of it is gone.
    """

    config: NodeConfig
    runtime: Process
    kubelet: Process
    lifeline: int | None = None
    again: bool = False


@dataclass
class Supervisor:
    """Runs one cluster until it is told to stop.

    Args:
        cluster: Configuration of the control plane.
        node_configs: One configuration per node.
        api_socket: Listening socket of the API server. It outlives the control plane, so that
            clients wait during a restart and are not refused.
        report_fd: Pipe to the `kit up` that waits: one JSON line, `{"ready": true}` or `{"error": text}`.
        owner_fd: Read end of a pipe held by the process that the cluster must not outlive, or None.
    """

    cluster: ClusterConfig
    node_configs: list[NodeConfig]
    api_socket: socket.socket
    report_fd: int | None
    owner_fd: int | None = None
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    stopping: bool = False
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Describe the processes; none is started yet."""
        self.control_plane = Process(CONTROL_PLANE, self._start_control_plane)
        self.nodes = {config.name: self._node(config) for config in self.node_configs}
        self.folder = os.getcwd()
        self.boot_fd: int | None = None
        self.connection: socket.socket | None = None

    def _node(self, config: NodeConfig) -> Node:
        runtime = Process(f"runtime-{config.name}", lambda: self._start_runtime(config.name))
        kubelet = Process(f"kubelet-{config.name}", lambda: self._start_kubelet(config.name))
        return Node(config, runtime, kubelet)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self, earlier: dict[str, Any] | None = None) -> None:
        """Start everything and serve until stopped by `kit down`, a signal, or the end of the owner.

        Args:
            earlier: What `_renew` has handed over: everything runs already.
        """
        if earlier is None:
            self._boot()
        else:
            self._resume(earlier)
        while not self.stopping:
            for key, _ in self.selector.select(self._until_next_timer()):
                key.data()
            self._fire_timers()
        self._stop_all()

    def _boot(self) -> None:
        self.life_read, self.life_write = os.pipe()
        self.control = _bind_control_socket(self.cluster.home)
        self._listen()
        _share("kitlib.cluster.kubelet.runtime")
        spawn.become_subreaper()
        for node in self.nodes.values():
            self._start(node.runtime)
        _share("kitlib.cluster.events", "kitlib.cluster.splice", "aiohttp.web", "encodings.idna")
        self._start(self.control_plane)
        _share("kitlib.cluster.kubelet.main", "kitlib.cluster.kubelet.server")
        for node in self.nodes.values():
            self._start(node.kubelet)

    def _renew(self) -> None:
        """Execute this program again; not while a process starts or ends."""
        if self.boot_fd is not None or any(p.wanted != (p.pid is not None) for p in self._processes()):
            self._later(RENEW_DELAY, self._renew)
            return
        lifelines = {name: node.lifeline for name, node in self.nodes.items() if node.lifeline is not None}
        pids = {process.name: process.pid for process in self._processes() if process.pid is not None}
        life = [self.life_read, self.life_write]
        earlier = {"control": self.control.fileno(), "life": life, "lifelines": lifelines, "pids": pids}
        try:
            os.chdir(self.folder)  # from where its modules were found
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            self._keep_over_exec(True)
            os.execv(sys.executable, [sys.executable, "-m", "kitlib.cluster.supervisor", json.dumps(earlier)])
        except OSError as error:
            _log(f"goes on as it is: {error}")
            self._keep_over_exec(False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _resume(self, earlier: dict[str, Any]) -> None:
        os.chdir(self.cluster.home)
        self.life_read, self.life_write = earlier["life"]
        self.control = socket.socket(fileno=earlier["control"])
        for name, node in self.nodes.items():
            node.lifeline = earlier["lifelines"].get(name)
        for process in self._processes():
            process.pid = earlier["pids"].get(process.name)
            process.wanted = process.pid is not None
        self.report_fd = None
        self._keep_over_exec(False)
        self._listen()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._reap()

    def _keep_over_exec(self, keep: bool) -> None:
        pipes = [self.owner_fd, self.life_read, self.life_write, *(node.lifeline for node in self.nodes.values())]
        for fd in (self.api_socket.fileno(), self.control.fileno(), *pipes):
            if fd is not None:
                os.set_inheritable(fd, keep)

    def _listen(self) -> None:
        wake_read, wake_write = socket.socketpair()
        for end in (wake_read, wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.wake = (wake_read, wake_write)
        self.selector.register(wake_read, selectors.EVENT_READ, self._on_signal)
        self.selector.register(self.control, selectors.EVENT_READ, self._on_command)
        if self.owner_fd is not None:
            self.selector.register(self.owner_fd, selectors.EVENT_READ, self._on_owner_gone)

    def _until_next_timer(self) -> float | None:
        return max(0.0, min(at for at, _ in self.timers) - time.monotonic()) if self.timers else None

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        self.timers.append((time.monotonic() + delay, action))

    def _fire_timers(self) -> None:
        due = [timer for timer in self.timers if timer[0] <= time.monotonic()]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, action in due:
            action()

    def _on_signal(self) -> None:
        numbers = self.wake[0].recv(4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self.stopping = True
        self._reap()

    def _on_owner_gone(self) -> None:
        self.stopping = True

    # --- children -----------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            self._on_exit(pid, status)
        self._kill_strays()

    def _kill_strays(self) -> None:
        """End what a container runtime that was killed left behind: it is this process's now, and so are its children.

        Each that ends leaves its own children here, and its end leads here again.
        """
        mine = {process.pid for process in self._processes()}
        for pid in set(spawn.children(os.getpid())) - mine:
            _kill(pid, signal.SIGKILL)

    def _on_exit(self, pid: int, status: int) -> None:
        for process in self._processes():
            if process.pid == pid:
                process.pid = None
                _log(f"{process.name} (pid {pid}) ended: {_describe(status)}")
                if not self.stopping:
                    self._after_exit(process, status)
                return

    def _after_exit(self, process: Process, status: int) -> None:
        node = next((n for n in self.nodes.values() if process in (n.kubelet, n.runtime)), None)
        if node and (process is node.runtime or os.WIFSIGNALED(status)) and process.wanted:
            self._power_off(node)
        elif process.wanted:
            self._restart_later(process)
        if node and node.again:
            self._start_node(node)

    def _restart_later(self, process: Process) -> None:
        if time.monotonic() - process.started_at > 30:
            process.starts = 0
        delay = RESTART_DELAYS[min(process.starts, len(RESTART_DELAYS) - 1)]
        self._later(delay, lambda: self._start_again(process))

    def _start_again(self, process: Process) -> None:
        if process.wanted and process.pid is None:
            self._start(process)

    def _processes(self) -> list[Process]:
        return [self.control_plane] + [p for n in self.nodes.values() for p in (n.runtime, n.kubelet)]

    def _start(self, process: Process) -> None:
        process.wanted = True
        process.starts += 1
        process.started_at = time.monotonic()
        process.pid = process.start()

    def _start_node(self, node: Node) -> None:
        """Start what does not run of a node; what was told to end has to be gone before it can start again."""
        both = (node.runtime, node.kubelet)
        node.again = any(process.pid is not None and not process.wanted for process in both)
        for process in both if not node.again else ():
            if process.pid is None:
                self._start(process)

    def _power_off(self, node: Node) -> None:
        """End a node as a power cut would: no goodbye to the API, every container killed."""
        node.again = node.kubelet.wanted = node.runtime.wanted = False
        if node.lifeline is not None:
            os.close(node.lifeline)
            node.lifeline = None
        _kill(node.kubelet.pid, signal.SIGKILL)

    def _fork(self, name: str, body: Callable[[], None], keep: tuple[int, ...] = (), has_lifeline: bool = False) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            self._become(name, keep)
            if has_lifeline:
                os.close(self.life_read)
            else:
                threading.Thread(target=_die_with_supervisor, args=(self.life_read,), daemon=True).start()
            body()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):  # a full disk must not let this fork return into the loop
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _become(self, name: str, keep: tuple[int, ...]) -> None:
        """Turn a fresh fork into a process of its own: own log, no handles of the supervisor."""
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        log = os.open(self.cluster.logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        self.selector.close()
        mine = {self.report_fd, self.owner_fd, self.boot_fd, self.life_write, log, nothing}
        mine |= {node.lifeline for node in self.nodes.values()}
        mine |= {s.fileno() for s in (*self.wake, self.control, self.api_socket, self.connection) if s is not None}
        for fd in mine:
            if fd is not None and fd not in keep:
                os.close(fd)
        os.setpgid(0, 0)

    def _start_control_plane(self) -> int:
        boot_read, boot_write = os.pipe()
        sock = self.api_socket

        def body() -> None:
            os.close(boot_read)
            from kitlib.cluster import controlplane

            controlplane.main(self.cluster, self.node_configs, sock, boot_write)

        pid = self._fork(CONTROL_PLANE, body, keep=(sock.fileno(), boot_write))
        os.close(boot_write)
        self._watch_boot(boot_read)
        return pid

    def _watch_boot(self, boot_read: int) -> None:
        def on_boot() -> None:
            said = os.read(boot_read, 65536)
            self.selector.unregister(boot_read)
            os.close(boot_read)
            self.boot_fd = None
            self._report(said)

        self.boot_fd = boot_read
        self.selector.register(boot_read, selectors.EVENT_READ, on_boot)

    def _report(self, said: bytes) -> None:
        """Pass on how the first start of the control plane ended; an error there ends the cluster."""
        if self.report_fd is None:
            return
        said = said or json.dumps({"error": f"the control plane died at start: see {self.cluster.logs}"}).encode()
        try:
            os.write(self.report_fd, said + b"\n")
        except BrokenPipeError:
            pass
        os.close(self.report_fd)
        self.report_fd = None
        self._later(RENEW_DELAY, self._renew)
        self.stopping = self.stopping or "error" in json.loads(said)

    def _start_runtime(self, name: str) -> int:
        node = self.nodes[name]
        read_end, write_end = os.pipe()
        node.lifeline = write_end

        def body() -> None:
            from kitlib.cluster.kubelet import runtime

            runtime.main(node.config, read_end)

        pid = self._fork(node.runtime.name, body, has_lifeline=True)
        os.close(read_end)
        return pid

    def _start_kubelet(self, name: str) -> int:
        node = self.nodes[name]

        def body() -> None:
            from kitlib.cluster.kubelet import main as kubelet

            kubelet.main(node.config)

        return self._fork(node.kubelet.name, body)

    # --- commands -----------------------------------------------------------------------------------------------------

    def _on_command(self) -> None:
        connection, _ = self.control.accept()
        self.connection = connection
        with connection:
            connection.settimeout(2)
            try:
                request = json.loads(connection.recv(65536))
                answer = self._command(request)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            try:
                connection.sendall(json.dumps(answer).encode())
            except OSError:
                pass
        self.connection = None

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        command, name = request["command"], request.get("node", "")
        if command == "stop":
            self.stopping = True
        elif command in ("node-stop", "node-kill", "node-start"):
            if name not in self.nodes:
                return {"error": f"no node {name!r}: the nodes are {', '.join(self.nodes)}"}
            {"node-stop": self._stop_kubelet, "node-kill": self._power_off, "node-start": self._start_node}[command](
                self.nodes[name]
            )
        elif command != "status":
            return {"error": f"unknown command {command!r}"}
        return self._status()

    def _stop_kubelet(self, node: Node) -> None:
        node.again = node.kubelet.wanted = False
        _kill(node.kubelet.pid, signal.SIGTERM)

    def _status(self) -> dict[str, Any]:
        running = [{"name": p.name, "pid": p.pid} for p in self._processes() if p.pid is not None]
        nodes = [{"name": n.config.name, "gpus": n.config.gpus} for n in self.nodes.values()]
        return {"processes": [{"name": "supervisor", "pid": os.getpid()}, *running], "nodes": nodes}

    # --- the end ------------------------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        """End every process: nodes first, then the control plane, which writes out its store."""
        if self.report_fd is not None:
            self._report(b"")
        for node in self.nodes.values():
            self._power_off(node)
        self.control_plane.wanted = False
        _kill(self.control_plane.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        while any(p.pid is not None for p in self._processes()) and time.monotonic() < deadline:
            self.selector.select(0.05)
            self._reap()
        for process in self._processes():
            _kill(process.pid, signal.SIGKILL)
        self.control.close()
        with contextlib.suppress(OSError):  # the disk may be read-only by now
            (self.cluster.home / CONTROL_SOCKET).unlink()


def _die_with_supervisor(life_read: int) -> NoReturn:
    """Block until the supervisor is gone (its end of the pipe is closed), then end this process at once."""
    while True:
        try:
            if not os.read(life_read, 1):
                os._exit(1)
        except OSError as error:
            if error.errno != errno.EINTR:
                os._exit(1)


def _bind_control_socket(home: Path) -> socket.socket:
    """Bind the control socket by a relative name: absolute paths may exceed the limit for Unix sockets."""
    os.chdir(home)
    Path(CONTROL_SOCKET).unlink(missing_ok=True)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(CONTROL_SOCKET)
    os.chmod(CONTROL_SOCKET, 0o600)
    control.listen(16)
    return control


def _kill(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit code {os.WEXITSTATUS(status)}"


def _log(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk takes the log, not the cluster
        print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, file=sys.stderr, flush=True)


def main() -> None:
    """Entry point of the supervisor process; `kitlib.cluster.local` starts it with a plan in a file as its stdin."""
    sys.stdin.seek(0)
    _allow_many_files()
    plan = json.load(sys.stdin)
    cluster = from_json(plan["cluster"])
    nodes = [NodeConfig(**{**values, "cluster": cluster}) for values in plan["nodes"]]
    api_socket = socket.socket(fileno=plan["api_fd"])
    supervisor = Supervisor(cluster, nodes, api_socket, plan["report_fd"], plan["owner_fd"])
    supervisor.run(*map(json.loads, sys.argv[1:]))


def _allow_many_files() -> None:
    """Lift the limit on open files as far as it goes: watches and connections are a file each, containers are several.

    macOS gives a program 256.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _share(*modules: str) -> None:
    """Import what the next children need: a fork shares the pages, which the garbage collector then leaves alone."""
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()
