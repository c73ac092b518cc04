"""The Node object and its Lease: registration, heartbeat, what the machine is and has.

Stands for the kubelet's `nodestatus` setters and its node lease controller.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
import time
import uuid
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from kitlib.cluster import images, quantity
from kitlib.cluster.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kitlib.cluster.clock import rfc3339_micro, rfc3339_now
from kitlib.cluster.config import KUBERNETES_VERSION, NodeConfig
from kitlib.cluster.events import EventRecorder
from kitlib.cluster.kubelet.admission import MAX_PODS
from kitlib.cluster.kubelet.devices import RESOURCE, Devices
from kitlib.cluster.objects import Object

log = logging.getLogger(__name__)

LEASES = "leases.coordination.k8s.io"
LEASE_NAMESPACE = "kube-node-lease"
HEARTBEAT_SECONDS = 300.0
HUGE_PAGES = Path("/sys/kernel/mm/hugepages")
TTL_ANNOTATION = "node.alpha.kubernetes.io/ttl"
"""Seconds for which a kubelet may cache configuration; the TTL controller sets 0 in a cluster of up to 100 nodes."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def labels(config: NodeConfig, devices: Devices) -> dict[str, str]:
    """Return the labels that a kubelet puts on its Node."""
    arch, system = architecture(), platform.system().lower()
    own = {"kubernetes.io/hostname": config.name, "kubernetes.io/arch": arch, "kubernetes.io/os": system}
    old = {"beta.kubernetes.io/arch": arch, "beta.kubernetes.io/os": system}
    return {**old, **own, **devices.labels()}


def architecture() -> str:
    """Return the machine's architecture under Go's name."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def status(config: NodeConfig, devices: Devices, port: int) -> Object:
    """Return the status of a healthy Node.

    Args:
        config: The node.
        devices: Its GPUs.
        port: Port of the kubelet's server.
    """
    capacity = _capacity(config, devices)
    addresses = [{"type": "InternalIP", "address": config.internal_ip}, {"type": "Hostname", "address": config.name}]
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions(),
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": _node_info(config),
        "images": images.listing(),
    }


def _capacity(config: NodeConfig, devices: Devices) -> dict[str, str]:
    disk = shutil.disk_usage(config.cluster.home).total >> 10
    capacity = {
        "cpu": str(config.cpus),
        "ephemeral-storage": f"{disk}Ki",
        "memory": f"{config.memory_bytes >> 10}Ki",
        "pods": str(MAX_PODS),
    }
    capacity.update(_huge_pages())
    return {**capacity, RESOURCE: str(devices.count)} if devices.count else capacity


def _huge_pages() -> dict[str, str]:
    """Return the machine's huge pages by size, such as `hugepages-2Mi`; few machines have set any aside."""
    found = {}
    for folder in HUGE_PAGES.glob("hugepages-*kB"):
        size = int(folder.name.removeprefix("hugepages-").removesuffix("kB"))
        number = int(_read(str(folder / "nr_hugepages")) or 0)
        found[f"hugepages-{quantity.canonical(f'{size}Ki')}"] = quantity.canonical(f"{size * number}Ki")
    return found


def conditions() -> list[Object]:
    """Return the conditions of a healthy Node."""
    now = rfc3339_now()
    healthy = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    keys = ("type", "status", "reason", "message")
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return [{**dict(zip(keys, values, strict=True)), **times} for values in healthy]


def _node_info(config: NodeConfig) -> dict[str, str]:
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{config.cluster.cluster_id}.{config.name}")
    return {
        "machineID": identity.hex,
        "systemUUID": str(identity),
        "bootID": _read("/proc/sys/kernel/random/boot_id") or str(identity),
        "kernelVersion": platform.release(),
        "osImage": _os_image(),
        "containerRuntimeVersion": f"kit://{_version()}",
        "kubeletVersion": KUBERNETES_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": platform.system().lower(),
        "architecture": architecture(),
    }


@lru_cache
def _version() -> str:
    return metadata.version("kitlib")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)


class NodeStatus:
    """Keeps one Node and its Lease up to date.

    Args:
        client: The API.
        config: The node.
        devices: Its GPUs.
        recorder: Records Events about the Node.
    """

    def __init__(self, client: Client, config: NodeConfig, devices: Devices, recorder: EventRecorder) -> None:
        self._recorder = recorder
        self._client, self._config, self._devices, self._port = client, config, devices, 0
        self._node: Object | None = None
        self._lease_exists = False

    async def register(self, port: int) -> Object:
        """Create the Node, or bring labels and status of an existing one up to date; return it."""
        self._port = port
        name = self._config.name
        wanted = labels(self._config, self._devices)
        annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true", TTL_ANNOTATION: "0"}
        about = {"name": name, "labels": wanted, "annotations": annotations}
        try:
            await self._client.create("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": about, "spec": {}})
        except ApiError as error:
            if error.code != 409:
                raise
            await self._client.patch("nodes", name, {"metadata": {"labels": wanted}})
        await self._renew_lease()
        return await self.post()

    async def post(self) -> Object:
        """Write the status; conditions that have not changed keep their times of transition."""
        node = await self._client.get("nodes", self._config.name)
        old = {c["type"]: c for c in (node.get("status") or {}).get("conditions") or []}
        if (old.get("Ready") or {}).get("status") != "True":
            self.event("NodeReady", f"Node {self._config.name} status is now: NodeReady")
        wanted = status(self._config, self._devices, self._port)
        for condition in wanted["conditions"]:
            before = old.get(condition["type"])
            if before and before["status"] == condition["status"]:
                condition["lastTransitionTime"] = before["lastTransitionTime"]
        return await self._client.patch(
            "nodes", self._config.name, {"status": wanted}, subresource="status", content_type=STRATEGIC_MERGE_PATCH
        )

    def event(self, reason: str, message: str) -> None:
        """Record an Event about the Node; its uid is its name, as kubelets have it."""
        reference = {"apiVersion": "v1", "kind": "Node", "name": self._config.name, "uid": self._config.name}
        self._recorder.event(reference, "Normal", reason, message)

    def observe(self, kind: str, _: Object | None, node: Object) -> None:
        """Take the newest object of the Node, from a watch."""
        before, self._node = self._node, None if kind == "DELETED" else node
        cordoned = bool(node["spec"].get("unschedulable"))
        if before is not None and bool(before["spec"].get("unschedulable")) != cordoned:
            reason = "NodeNotSchedulable" if cordoned else "NodeSchedulable"
            self.event(reason, f"Node {self._config.name} status is now: {reason}")

    async def run(self) -> None:
        """Renew the Lease until cancelled; post the status now and then, and when others changed it."""
        posted = time.monotonic()
        while True:
            await asyncio.sleep(self._config.cluster.settings.node_lease_renew_interval)
            try:
                await self._renew_lease()
                if self._unwell() or time.monotonic() - posted > HEARTBEAT_SECONDS:
                    posted = time.monotonic()
                    await self.post()
            except ApiError as error:
                self._lease_exists = False
                log.warning("node %s: %s", self._config.name, error)
                if error.code == 404:
                    await self._register_again()
            except Exception as error:
                log.info("node %s: %s", self._config.name, error)

    async def _register_again(self) -> None:
        try:
            await self.register(self._port)
        except Exception as error:
            log.info("node %s: %s", self._config.name, error)

    def _unwell(self) -> bool:
        """Whether the Node says anything but what this kubelet says: it was gone, and is back."""
        if self._node is None:
            return True
        have = {c["type"]: c["status"] for c in (self._node.get("status") or {}).get("conditions") or []}
        return any(have.get(c["type"]) != c["status"] for c in conditions())

    async def _renew_lease(self) -> None:
        name = self._config.name
        now = rfc3339_micro(time.time())
        if self._lease_exists:
            await self._client.patch(LEASES, name, {"spec": {"renewTime": now}}, LEASE_NAMESPACE)
            return
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
        lease: Object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        node = await self._client.get("nodes", name)
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
        lease["metadata"] = {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]}
        try:
            await self._client.create(LEASES, lease, LEASE_NAMESPACE)
        except ApiError as error:
            if error.code != 409:
                raise
            await self._client.patch(LEASES, name, {"spec": spec}, LEASE_NAMESPACE)
        self._lease_exists = True


def prepare_folder(config: NodeConfig) -> None:
    """Make the node's folder and work in it: Unix sockets need short names."""
    config.node_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chdir(config.node_dir)
