"""The kubelet of one node: watches the Pods bound to it and has a worker for each.

Stands for the kubelet's main loop (`syncLoop`), its Pod sources and its housekeeping. Left out: static Pods, eviction
by disk pressure, image garbage collection.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import ssl
from typing import Any

import aiohttp

from kitlib.cluster.client import ApiError, HTTPClient
from kitlib.cluster.config import NodeConfig
from kitlib.cluster.events import EventRecorder
from kitlib.cluster.informer import Informer
from kitlib.cluster.kubelet import isolation, node_status, volumes
from kitlib.cluster.kubelet.addresses import Addresses
from kitlib.cluster.kubelet.devices import Devices
from kitlib.cluster.kubelet.hosts import Names
from kitlib.cluster.kubelet.node import Node, references
from kitlib.cluster.kubelet.pod_manager import PodManager
from kitlib.cluster.kubelet.pod_worker import PodWorker
from kitlib.cluster.kubelet.runtime_client import Record, RuntimeClient
from kitlib.cluster.kubelet.status import StatusManager
from kitlib.cluster.objects import Object
from kitlib.cluster.splice import keep_tls_buffers_small

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.1


class Kubelet:
    """One node's kubelet.

    Args:
        config: The node.
        client: The API, as user `system:node:NAME`.

    Attributes:
        pods: Its Pods, for its server.
        node: What its workers share.
    """

    def __init__(self, config: NodeConfig, client: Any) -> None:
        """Put the parts together; `start` begins the work."""
        self._config, self._client = config, client
        self._runtime = RuntimeClient(config.node_dir, self._exited)
        self.pods = PodManager(self._runtime)
        self._devices = Devices(config)
        self._records: list[Record] = []
        self._pod_informer = Informer(client, "pods", field_selector=f"spec.nodeName={config.name}")
        self._node_informer = Informer(client, "nodes", field_selector=f"metadata.name={config.name}")
        self._services = Informer(client, "services")
        self._names = Names(client, self._services, self._names_changed)
        self._objects: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._recorder = EventRecorder(client, "kubelet", config.name)
        self._status = node_status.NodeStatus(client, config, self._devices, self._recorder)
        self._tasks: list[asyncio.Task[None]] = []
        self.node = self._make_node()

    def _make_node(self) -> Node:
        return Node(
            config=self._config,
            client=self._client,
            runtime=self._runtime,
            recorder=self._recorder,
            statuses=StatusManager(self._client, self._observe),
            services=self._services,
            addresses=Addresses(self._config),
            devices=self._devices,
            isolation=isolation.mode(self._config.isolation),
            active_pods=lambda: [w.state.pod for w in self.pods.workers() if w.active],
            watch_object=self._watch_object,
            names=self._names.lines,
        )

    async def start(self, port: int) -> None:
        """Register the node, adopt what runs, and begin to work.

        Args:
            port: Where the kubelet's server listens; the Node says so.
        """
        self._records = await self._runtime.connect()
        registered = await self._register(port)
        self._status.observe("ADDED", None, registered)
        self._node_informer.add_handler(self._status.observe)
        for informer in (self._services, self._names.slices, self._pod_informer, self._node_informer):
            self._tasks.append(asyncio.create_task(informer.run()))
        await self._services.wait_synced()
        await self._pod_informer.wait_synced()
        await self._clean_up()
        self._pod_informer.add_handler(self._on_pod)
        self._records = []
        self._tasks.append(asyncio.create_task(self._status.run()))
        self._status.event("Starting", "Starting kubelet.")

    async def _register(self, port: int) -> Object:
        """Register; an API server that is still starting is waited for."""
        while True:
            try:
                return await self._status.register(port)
            except (OSError, aiohttp.ClientError, ApiError) as error:
                log.info("cannot register yet: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def stop(self) -> None:
        """Stop working; containers go on."""
        tasks = [*self._tasks, *self._objects.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self.pods.workers():
            await worker.close()
        await self._recorder.close()
        await self._runtime.close()

    async def _clean_up(self) -> None:
        """Remove what belongs to Pods that went while this kubelet was away."""
        known = {pod["metadata"]["uid"] for pod in self._pod_informer.list()}
        for record in self._records:
            if record["labels"]["pod"] not in known:
                await self._runtime.call("kill", id=record["id"])
        shutil.rmtree(self._config.node_dir / volumes.TRASH, ignore_errors=True)
        folders = self._config.node_dir / "pods"
        for folder in folders.iterdir() if folders.is_dir() else ():
            if folder.name not in known:
                volumes.remove(folder, self._config.memory_dir / folder.name)

    # --- what happens

    def _on_pod(self, kind: str, _: Object | None, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        worker = self.pods.worker(uid)
        if kind == "DELETED":
            if worker is not None:
                worker.removed()
                self.pods.remove_when_done(worker)
                worker.when_done(self._stop_unused_watches)
        elif worker is not None:
            worker.update(pod)
        else:
            mine = [record for record in self._records if record["labels"]["pod"] == uid]
            worker = PodWorker(self.node, pod, mine)
            self.pods.add(worker)
            worker.start()

    def _names_changed(self) -> None:
        if self.node.isolation == "namespaces":
            for worker in self.pods.workers():
                worker.refresh_hosts()

    def _observe(self, pod: Object) -> None:
        worker = self.pods.worker(pod["metadata"]["uid"])
        if worker is not None and not worker.done:
            worker.observe(pod)

    def _exited(self, record: Record) -> None:
        worker = self.pods.worker(record["labels"]["pod"])
        if worker is not None:
            worker.exited(record)
        else:  # while this kubelet starts: the worker that is to come begins with the newest record
            self._records = [record if known["id"] == record["id"] else known for known in self._records]

    def _watch_object(self, resource: str, namespace: str) -> None:
        """Watch the ConfigMaps or Secrets of a namespace from now on, so that volumes follow their changes."""
        if (resource, namespace) in self._objects:
            return
        informer = Informer(self._client, resource, namespace)

        def on_change(_: str, __: Object | None, obj: Object) -> None:
            for worker in self.pods.workers():
                pod = worker.state.pod
                mine = pod["metadata"]["namespace"] == namespace
                if mine and (resource, obj["metadata"]["name"]) in references(pod["spec"]):
                    worker.wake()

        informer.add_handler(on_change)
        self._objects[resource, namespace] = asyncio.create_task(informer.run())

    def _stop_unused_watches(self) -> None:
        """Stop watching the objects of namespaces of which no Pod is left here."""
        served = {worker.state.pod["metadata"]["namespace"] for worker in self.pods.workers()}
        for key in [key for key in self._objects if key[1] not in served]:
            self._objects.pop(key).cancel()


async def serve(config: NodeConfig) -> None:
    """Run a kubelet until SIGTERM."""
    from kitlib.cluster.kubelet.server import KubeletServer

    cluster = config.cluster
    client = HTTPClient(cluster.server, config.token, str(cluster.ca_file), f"kubelet/{config.name}")
    kubelet = Kubelet(config, client)
    server = KubeletServer(config, kubelet.pods, _ssl_context(config))
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await server.start()
    waiter = asyncio.ensure_future(stopped.wait())
    starting = asyncio.ensure_future(kubelet.start(server.port))
    await asyncio.wait([starting, waiter], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        await waiter
    starting.cancel()
    await kubelet.stop()
    await server.stop()
    await client.close()


def _ssl_context(config: NodeConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pki = config.cluster.pki
    context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")  # it names the nodes, too
    return context


def main(config: NodeConfig) -> None:
    """Run the kubelet of a node until SIGTERM; Pods go on without it.

    Args:
        config: The node.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    node_status.prepare_folder(config)
    keep_tls_buffers_small()
    asyncio.run(serve(config))
