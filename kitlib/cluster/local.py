"""Starts, finds and stops an embedded cluster: what `kit up`, `kit down` and `kit status` do.

Stands for minikube's or kind's command: it prepares KIT_HOME (see `bootstrap.py`), starts the supervisor and waits
until every node is Ready. A cluster belongs to one KIT_HOME; several live side by side.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from kitlib.cluster.bootstrap import (
    ClusterError,
    Shape,
    configure,
    earlier_config,
    listen,
    node_configs,
    read_config,
    share_gpus,
    write_credentials,
)
from kitlib.cluster.config import CONTROL_SOCKET, KUBERNETES_VERSION, SHARED_MEMORY, ClusterConfig, to_json
from kitlib.cluster.files import write_private
from kitlib.home import kit_home, prove_writable

Status = dict[str, Any]
MAX_NODES = 100
START_LIMIT = 60.0
LONGEST_LOG = 10 << 20


# --- start -------------------------------------------------------------------------------------------------


def up(
    nodes: int | None = None,
    gpus: int | None = None,
    hollow: int | None = None,
    port: int | None = None,
    *,
    owned: bool = False,
) -> Status:
    """Start the embedded cluster of this KIT_HOME, or find it running, and wait until every node is Ready.

    Args:
        nodes: Nodes with a kubelet each; 3 unless told otherwise.
        gpus: GPUs per node. Without it: the machine's real GPUs shared out, else one simulated GPU per CPU core, at
            most one a node.
        hollow: Nodes without a process.
        port: Port of the API server; a free one, kept for this KIT_HOME, unless told otherwise.
        owned: Tie the cluster's life to this process: it stops when this process ends, however it ends.

    Returns:
        The cluster's status, as `status()`, with `started` telling whether this call started it.

    Raises:
        ClusterError: Bad arguments, a busy port, a KIT_HOME that can't be written, a corrupt state file, or a running
            cluster of another shape.
    """
    _check_counts(nodes, gpus, hollow, port)
    home = _prepare_home(kit_home())
    with _locked(home):
        running = _running(home)
        if running is not None:
            _check_same(home, running, nodes, gpus, hollow, port)
            return {**status(), "started": False}
        sweep(home)
        _start(home, nodes or 3, gpus, hollow or 0, port, owned)
    return {**status(), "started": True}


def _check_counts(nodes: int | None, gpus: int | None, hollow: int | None, port: int | None) -> None:
    if nodes is not None and not 1 <= nodes <= MAX_NODES:
        raise ClusterError(f"--nodes {nodes}: give a number from 1 to {MAX_NODES}")
    if gpus is not None and not 0 <= gpus <= 64:
        raise ClusterError(f"--gpus {gpus}: give the GPUs per node, from 0 to 64")
    if hollow is not None and not 0 <= hollow <= 1000:
        raise ClusterError(f"--hollow {hollow}: give a number from 0 to 1000")
    if port is not None and not 1 <= port <= 65535:
        raise ClusterError(f"--port {port}: give a port from 1 to 65535")


def _prepare_home(home: Path) -> Path:
    """Make KIT_HOME and its folders, private to this user, and prove that they can be written."""
    try:
        prove_writable(home)
        for folder in (home, home / "pki", home / "logs", home / "nodes"):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise ClusterError(
            f"can't write to {home} ({error.strerror}): "
            "free some space, mend its rights, or set KIT_HOME to another folder"
        ) from error
    return home


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the lock of this KIT_HOME, so that two `kit up` at once start one cluster."""
    with open(home / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _check_same(
    home: Path, running: Status, nodes: int | None, gpus: int | None, hollow: int | None, port: int | None
) -> None:
    config, shape = read_config(home)
    wrong = []
    if nodes is not None and nodes != len(shape.gpus):
        wrong.append(f"{len(shape.gpus)} nodes")
    if gpus is not None and set(shape.gpus) != {gpus}:
        wrong.append(f"{'+'.join(map(str, shape.gpus))} GPUs")
    if hollow is not None and hollow != shape.hollow:
        wrong.append(f"{shape.hollow} hollow nodes")
    if port is not None and port != config.port:
        wrong.append(f"port {config.port}")
    if wrong:
        raise ClusterError(
            f"a cluster already runs here with {', '.join(wrong)}: run `kit down` first, then `kit up` again"
        )


def _start(home: Path, count: int, gpus: int | None, hollow: int, port: int | None, owned: bool) -> None:
    shape = Shape(*share_gpus(count, gpus), hollow)
    earlier = earlier_config(home)
    since = time.time()
    with listen(port, earlier.port if earlier else None) as api_socket:
        config = configure(home, earlier, api_socket.getsockname()[1], hollow)
        tokens = write_credentials(config, count)
        write_private(home / "cluster.json", json.dumps({"cluster": to_json(config), "shape": asdict(shape)}, indent=1))
        _limit_logs(config.logs)
        try:
            _launch(config, node_configs(config, shape, tokens), api_socket, owned)
            _wait_ready(config, count + hollow, since)
        except BaseException:  # an interrupt, too, leaves no half of a cluster behind
            down()
            raise


def _limit_logs(logs: Path) -> None:
    """Put long logs of earlier starts aside, so that those of a cluster that is used for months stay short."""
    for log in logs.glob("*.log"):
        if log.stat().st_size > LONGEST_LOG:
            log.replace(log.with_suffix(".log.1"))


def _launch(config: ClusterConfig, nodes: list[dict[str, Any]], api_socket: socket.socket, owned: bool) -> None:
    """Start the supervisor and wait for its word that the control plane serves."""
    report_read, report_write = os.pipe()
    owner_read = _owner_pipe() if owned else None
    fds = [fd for fd in (api_socket.fileno(), report_write, owner_read) if fd is not None]
    plan = {"cluster": to_json(config), "nodes": nodes, "api_fd": fds[0], "report_fd": fds[1], "owner_fd": owner_read}
    with tempfile.TemporaryFile(dir=config.home) as file, open(config.logs / "supervisor.log", "ab") as log:
        file.write(json.dumps(plan).encode())
        file.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "kitlib.cluster.supervisor"],
            stdin=file,
            stdout=log,
            stderr=log,
            pass_fds=fds,
            env={**os.environ, **_environment(config)},
            start_new_session=True,
        )
    for fd in (report_write, owner_read):
        if fd is not None:
            os.close(fd)
    with os.fdopen(report_read, "rb") as report:
        said = report.readline()
    answer = json.loads(said) if said.strip() else {"error": f"the supervisor died at start: see {config.logs}"}
    if "error" in answer:
        process.wait()
        raise ClusterError(answer["error"])


def _environment(config: ClusterConfig) -> dict[str, str]:
    """Return what the cluster's processes are told by their environment."""
    return {
        "KIT_CLUSTER_ID": config.cluster_id,
        "KIT_HOME": str(config.home),
        "SSL_CERT_FILE": str(config.ca_file),  # they speak with each other alone: no need to load all the world's
        "MALLOC_ARENA_MAX": "1",  # glibc: one heap for all threads
    }


_owner_pipe_write: int | None = None


def _owner_pipe() -> int:
    """Return the read end of a pipe whose write end lives exactly as long as this process."""
    global _owner_pipe_write
    read_end, _owner_pipe_write = os.pipe()
    return read_end


def _wait_ready(config: ClusterConfig, nodes: int, since: float) -> None:
    """Follow the nodes' watch until all are Ready."""
    from kitlib.cluster import probe

    if not probe.nodes_ready(config, nodes, START_LIMIT, since):
        raise ClusterError(f"the nodes were not Ready within {START_LIMIT:.0f} s: see {config.logs}")


# --- status ------------------------------------------------------------------------------------------------


def _running(home: Path) -> Status | None:
    """Ask the supervisor of this KIT_HOME for its processes; None when there is none."""
    return _command(home, {"command": "status"})


def _command(home: Path, request: dict[str, Any]) -> Status | None:
    """Send one request to the supervisor; None when nobody listens."""
    if not (home / CONTROL_SOCKET).exists():
        return None
    back = os.getcwd()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        try:
            os.chdir(home)  # a relative name keeps within the length limit of Unix sockets
            connection.connect(CONTROL_SOCKET)
            connection.sendall(json.dumps(request).encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return None
        finally:
            os.chdir(back)
    return json.loads(answer) if answer else None


def status() -> Status:
    """Return what runs: engine, version, server, kubeconfig, nodes, processes and memory.

    Returns:
        `{engine, version, server, kubeconfig, nodes: [{name, ready, gpus, simulated}],
        processes: [{name, pid, pss_mb}], memory_mb}`; `memory_mb` is the sum of proportional set sizes of the
        cluster's own processes, in MiB. Without a running cluster `engine` is None and the lists are empty.
    """
    from kitlib.cluster import probe

    home = kit_home()
    running = _running(home)
    if running is None:
        return {"engine": None, "version": None, "server": None, "kubeconfig": None, "nodes": [], "processes": [],
                "memory_mb": 0.0}  # fmt: skip
    config, shape = read_config(home)
    processes = [{**process, "pss_mb": _pss_mb(process["pid"])} for process in running["processes"]]
    ready = probe.node_readiness(config)
    nodes = [
        {"name": name, "ready": ready.get(name, False), "gpus": gpus, "simulated": shape.simulated}
        for name, gpus in _all_nodes(shape)
    ]
    return {
        "engine": "embedded",
        "version": KUBERNETES_VERSION,
        "server": config.server,
        "kubeconfig": str(home / "kubeconfig"),
        "nodes": nodes,
        "processes": processes,
        "memory_mb": round(sum(process["pss_mb"] for process in processes), 1),
    }


def _all_nodes(shape: Shape) -> list[tuple[str, int]]:
    hollow = [(f"hollow-{number:02d}", 0) for number in range(1, shape.hollow + 1)]
    return [(f"node-{index}", gpus) for index, gpus in enumerate(shape.gpus, start=1)] + hollow


def _pss_mb(pid: int) -> float:
    try:
        memory = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return 0.0
    return round(float(getattr(memory, "pss", memory.uss)) / 2**20, 1)


def kubeconfig_path() -> Path:
    """Return the path of the embedded cluster's kubeconfig.

    Raises:
        ClusterError: No cluster was ever started in this KIT_HOME.
    """
    path = kit_home() / "kubeconfig"
    if not path.exists():
        raise ClusterError(f"no cluster in {path.parent}: start one with `kit up`")
    return path


def node(action: str, name: str) -> None:
    """Stop, kill or start a node.

    Args:
        action: `stop` ends the kubelet and leaves the Pods running, `kill` is a power cut, `start` brings it back.
        name: Node name, such as `node-2`.

    Raises:
        ClusterError: No cluster runs, or it has no such node.
    """
    answer = _command(kit_home(), {"command": f"node-{action}", "node": name})
    if answer is None:
        raise ClusterError("no cluster runs here: start one with `kit up`")
    if "error" in answer:
        raise ClusterError(answer["error"])


# --- stop --------------------------------------------------------------------------------------------------


def down(purge: bool = False) -> list[str]:
    """Stop the cluster of this KIT_HOME and prove that nothing of it is left.

    Args:
        purge: Also forget its state.

    Returns:
        What was ended, a phrase each; empty when nothing ran.

    Raises:
        ClusterError: A process did not end.
    """
    home = kit_home()
    ended = []
    answer = _command(home, {"command": "stop"})
    if answer is not None:
        _wait_gone([process["pid"] for process in answer["processes"]], 10)
        ended.append(f"{len(answer['processes'])} processes of the cluster")
    strays = sweep(home)
    if strays:
        ended.append(f"{strays} stray processes")
    if purge and home.exists():
        _purge(home)
        ended.append(f"the state in {home}")
    return ended


def _wait_gone(pids: list[int], limit: float) -> None:
    deadline = time.monotonic() + limit
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def sweep(home: Path) -> int:
    """Kill every process of this KIT_HOME's cluster and return their number. After an orderly end none is left.

    Raises:
        ClusterError: A process survived SIGKILL.
    """
    return sum(_sweep(home, mark) for mark in _cluster_ids(home))


def _cluster_ids(home: Path) -> set[str]:
    """Return the cluster's id from its file, or, when somebody deleted that, from processes that still run for it."""
    try:
        return {read_config(home)[0].cluster_id}
    except ClusterError:
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                known = process.environ()
                if known.get("KIT_HOME") == str(home) and process.pid != os.getpid():
                    found.add(known.get("KIT_CLUSTER_ID", ""))
        return found - {""}


def _sweep(home: Path, mark: str) -> int:
    """Kill the processes of one cluster.

    All inherit `KIT_CLUSTER_ID`, but for those in a container that cleared their environment or came by `exec`: they
    have the container's folder as their root.
    """
    with contextlib.suppress(OSError):  # a disk that became read-only keeps it, and nobody listens there
        (home / CONTROL_SOCKET).unlink()
    found = _strays(mark, home)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _, alive = psutil.wait_procs(found, timeout=5)
    for folder in SHARED_MEMORY.glob(f"kit-{mark}-*"):  # memory volumes of a node that died with its runtime
        shutil.rmtree(folder, ignore_errors=True)
    if any(_alive(process.pid) for process in alive):
        pids = ", ".join(str(process.pid) for process in alive)
        raise ClusterError(f"processes {pids} can't be ended: kill them, then run `kit down` again")
    return len(found)


def _strays(mark: str, home: Path) -> list[psutil.Process]:
    found = []
    roots = {_identity(folder) for folder in home.glob("nodes/*/pods/*/containers/*/root")}
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            named = process.environ().get("KIT_CLUSTER_ID") == mark
            if named or _identity(Path(f"/proc/{process.pid}/root")) in roots:
                found.append(process)
    return found


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _purge(home: Path) -> None:
    """Remove what the kit wrote in KIT_HOME, and the folder itself when nothing else is in it."""
    for name in ("pki", "logs", "nodes", "volumes", "train"):
        shutil.rmtree(home / name, ignore_errors=True)
    for pattern in ("cluster.json*", "kubeconfig*", "state.db*", "supervisor.sock", "lock"):
        for path in home.glob(pattern):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        home.rmdir()
