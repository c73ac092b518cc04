"""The control plane: store, API server, controllers, scheduler and proxy in one asyncio loop.

Stands for the static Pods of a real control-plane node. One process keeps memory small; the parts still talk only
through the API (in-process transport), so each could move out without a change.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

from kitlib.cluster.apiserver.server import APIServer
from kitlib.cluster.client import Client
from kitlib.cluster.config import ClusterConfig, NodeConfig
from kitlib.cluster.controllers import run_controllers
from kitlib.cluster.proxy.proxier import Proxy
from kitlib.cluster.scheduler.scheduler import Scheduler
from kitlib.cluster.splice import keep_tls_buffers_small
from kitlib.cluster.store import Store, StoreError


def main(config: ClusterConfig, nodes: list[NodeConfig], sock: socket.socket, boot_fd: int) -> None:
    """Run the control plane until SIGTERM.

    Args:
        config: The cluster.
        nodes: The nodes that have a process; Node objects of nodes that no longer exist are removed.
        sock: Listening socket of the API server.
        boot_fd: Pipe that learns how the start went: `{"ready": true}` or `{"error": text}`.
    """
    keep_tls_buffers_small()
    try:
        store = Store(config.home / "state.db")
    except StoreError as error:
        os.write(boot_fd, json.dumps({"error": str(error)}).encode())
        sys.exit(3)
    asyncio.run(_run(config, nodes, store, sock, boot_fd))


async def _run(config: ClusterConfig, nodes: list[NodeConfig], store: Store, sock: socket.socket, boot_fd: int) -> None:
    server = APIServer(config, store)
    await server.start(sock, config.advertised)
    await _match_nodes(server.client("kit-up"), config, nodes)
    os.write(boot_fd, json.dumps({"ready": True}).encode())
    os.close(boot_fd)
    parts: list[Coroutine[Any, Any, None]] = [
        run_controllers(server.client, config),
        Scheduler(server.client("kube-scheduler")).run(),
        Proxy(server.client("kube-proxy"), config).run(),
    ]
    await _until_stopped([asyncio.ensure_future(part) for part in parts])
    await server.stop()
    store.close()


async def _until_stopped(tasks: list[asyncio.Future[None]]) -> None:
    """Wait for SIGTERM; a component that ends by itself is a defect and ends the control plane with its error."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    waiter: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    done, _ = await asyncio.wait({waiter, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    for task in (waiter, *tasks):
        task.cancel()
    for ended in done - {waiter}:
        ended.result()
        raise RuntimeError("a component of the control plane ended by itself")


async def _match_nodes(client: Client, config: ClusterConfig, nodes: list[NodeConfig]) -> None:
    """Remove Node objects left by an earlier, larger cluster and add the hollow nodes."""
    hollow = [f"hollow-{number:02d}" for number in range(1, config.hollow + 1)]
    wanted = {node.name for node in nodes} | set(hollow)
    present = {node["metadata"]["name"] for node in (await client.list("nodes"))["items"]}
    for name in present - wanted:
        await client.delete("nodes", name)
    for index, name in enumerate(hollow):
        if name not in present:
            await client.create("nodes", _hollow_node(name, config, len(nodes) + index + 1))


def _hollow_node(name: str, config: ClusterConfig, index: int) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kit/hollow": "true"}
    resources = {"cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"}
    address = f"127.{config.block}.0.{index % 254 + 1}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": f"127.{config.block}.{index % 127}.0/24"},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "conditions": [_ready_condition()],
        },
    }


def _ready_condition() -> dict[str, str]:
    message = "a hollow node has no kubelet: Pods on it run nothing"
    return {"type": "Ready", "status": "True", "reason": "HollowNode", "message": message}
