"""Decides what a new cluster is made of and writes it under KIT_HOME: ports, addresses, certificates, tokens, nodes.

Stands for `kubeadm init`. Nothing is started here (see `local.py`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from kitlib.cluster.config import ClusterConfig, NodeConfig, from_json
from kitlib.cluster.files import write_private
from kitlib.cluster.gpus import find_gpus
from kitlib.errors import KitError


class ClusterError(KitError):
    """The cluster can't be started, found or changed; the message names the mend."""


@dataclass(frozen=True)
class Shape:
    """What a cluster is made of: kept so that a second `kit up` can tell whether it asks for the same.

    Attributes:
        gpus: GPUs of each node.
        simulated: Whether those GPUs are CPU cores.
        hollow: Nodes without a process.
    """

    gpus: tuple[int, ...]
    simulated: bool
    hollow: int


def share_gpus(nodes: int, gpus: int | None) -> tuple[tuple[int, ...], bool]:
    """Decide each node's GPUs, and whether they are real."""
    real = count_real_gpus()
    if real and gpus is None:
        return tuple(real // nodes + (index < real % nodes) for index in range(nodes)), False
    if gpus is None:
        cores = len(_cores())
        return tuple(int(index < cores) for index in range(nodes)), True
    if real and gpus * nodes > real:
        raise ClusterError(
            f"--gpus {gpus} on {nodes} nodes asks for {gpus * nodes} GPUs, the machine has {real}: "
            "ask for fewer, or set KIT_GPU=simulated to use CPU cores in their place"
        )
    return (gpus,) * nodes, not real


def count_real_gpus() -> int:
    """Return how many NVIDIA GPUs NVML finds; 0 when `KIT_GPU=simulated` or when there is no driver."""
    found = None if os.environ.get("KIT_GPU") == "simulated" else find_gpus()
    return found.count if found else 0


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _memory_bytes() -> int:
    """Return the memory that may be used: the machine's, or the limit of the control group that holds us."""
    total = int(psutil.virtual_memory().total)
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(name).read_text()))
    return total


def earlier_config(home: Path) -> ClusterConfig | None:
    """Return the configuration of the cluster that this KIT_HOME held before, if any."""
    return read_config(home)[0] if (home / "cluster.json").exists() else None


def read_config(home: Path) -> tuple[ClusterConfig, Shape]:
    """Return the stored configuration and shape of this KIT_HOME's cluster.

    Raises:
        ClusterError: The file is missing, damaged or of another release.
    """
    path = home / "cluster.json"
    try:
        stored = json.loads(path.read_text())
        shape = Shape(**{**stored["shape"], "gpus": tuple(stored["shape"]["gpus"])})
        return from_json({**stored["cluster"], "home": str(home)}), shape
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"{path} can't be read ({type(error).__name__}): "
            "run `kit down --purge` to forget this cluster, then `kit up`"
        ) from error


def listen(wanted: int | None, earlier: int | None) -> socket.socket:
    """Open the API server's socket on the port asked for, else on the earlier one, else on a free one."""
    candidates = [wanted] if wanted else [port for port in (earlier, 0) if port is not None]
    for port in candidates:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen(512)
            return sock
        except OSError as error:
            sock.close()
            refused = error
    raise ClusterError(
        f"port {wanted} can't be used ({refused.strerror}): free it, or leave --port out to get a free one"
    )


def configure(home: Path, earlier: ClusterConfig | None, port: int, hollow: int) -> ClusterConfig:
    """Return the cluster's configuration: the earlier one where it still fits, else a new one."""
    loopback = _loopback_mode()
    if earlier and earlier.loopback == loopback and _block_is_free(earlier.block):
        return replace(earlier, port=port, hollow=hollow)
    return ClusterConfig(
        cluster_id=secrets.token_hex(8),
        home=home,
        port=port,
        block=_free_block(),
        kubelet_client_token=secrets.token_urlsafe(32),
        loopback=loopback,
        hollow=hollow,
    )


def _loopback_mode() -> str:
    """Return `multi` where all of 127.0.0.0/8 can be bound (Linux), else `single` (macOS)."""
    configured = os.environ.get("KIT_LOOPBACK", "")
    if configured in ("multi", "single"):
        return configured
    if configured:
        raise ClusterError(f"KIT_LOOPBACK={configured}: use multi or single, or leave it unset")
    return "multi" if _can_bind("127.66.0.1") else "single"


def _block_is_free(block: int) -> bool:
    return all(_can_bind(f"127.{block}.0.{node}", 10250) for node in (1, 2, 3))


def _free_block() -> int:
    for block in secrets.SystemRandom().sample(range(16, 250), 50):
        if _block_is_free(block):
            return block
    raise ClusterError("no free block of loopback addresses: stop another cluster with `kit down` in its KIT_HOME")


def _can_bind(address: str, port: int = 0) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError:
            return False
        return True


def write_credentials(config: ClusterConfig, nodes: int) -> dict[str, str]:
    """Write certificates, tokens and kubeconfig; return each node's token.

    The administrator's token is kept over restarts, so that a shell with the kubeconfig stays valid.
    """
    import kitlib.cluster.apiserver.tls as tls

    addresses = {f"127.{config.block}.0.{index}" for index in range(1, nodes + 1)}
    addresses |= {f"127.{config.block}.128.1", *(config.advertised or ())[:1]}
    tls.ensure_certificates(config.pki, sorted(addresses))
    path = config.pki / "tokens.json"
    tokens: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    by_user = {entry["user"]: token for token, entry in tokens.items()}
    wanted = {"kubernetes-admin": ["system:masters"]}
    wanted |= {f"system:node:node-{index}": ["system:nodes"] for index in range(1, nodes + 1)}
    tokens = {
        by_user.get(user) or secrets.token_urlsafe(32): {"user": user, "groups": groups}
        for user, groups in wanted.items()
    }
    write_private(path, json.dumps(tokens))
    by_user = {entry["user"]: token for token, entry in tokens.items()}
    write_private(config.home / "kubeconfig", _kubeconfig(config, by_user["kubernetes-admin"]))
    return {f"node-{index}": by_user[f"system:node:node-{index}"] for index in range(1, nodes + 1)}


def _kubeconfig(config: ClusterConfig, token: str) -> str:
    authority = base64.b64encode(config.ca_file.read_bytes()).decode()
    entry = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kit", "cluster": {"server": config.server, "certificate-authority-data": authority}}],
        "users": [{"name": "kit", "user": {"token": token}}],
        "contexts": [{"name": "kit", "context": {"cluster": "kit", "user": "kit", "namespace": "default"}}],
        "current-context": "kit",
    }
    return json.dumps(entry, indent=1) + "\n"  # JSON is YAML


def node_configs(config: ClusterConfig, shape: Shape, tokens: dict[str, str]) -> list[dict[str, Any]]:
    """Return the nodes' configurations as JSON-ready values, without the cluster's own."""
    memory = _memory_bytes() // len(shape.gpus)
    nodes = []
    for index, gpus in enumerate(shape.gpus, start=1):
        node = NodeConfig(
            cluster=config,
            name=f"node-{index}",
            index=index,
            token=tokens[f"node-{index}"],
            gpus=gpus,
            gpu_offset=sum(shape.gpus[: index - 1]),
            cpus=len(_cores()),
            memory_bytes=memory,
            isolation=os.environ.get("KIT_ISOLATION", "auto"),
        )
        nodes.append({name: value for name, value in vars(node).items() if name != "cluster"})
    return nodes
