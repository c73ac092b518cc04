"""kube-controller-manager: one file per controller.

Every controller is told of changes by informers that all of them share, and writes through a client of its own, so
that `managedFields` and logs name it. Left out: leader election (there is one control plane) and the controllers of
clouds and certificates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kitlib.cluster.client import Client
from kitlib.cluster.clock import Clock, SystemClock
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.controllers.cronjob import CronJobController
from kitlib.cluster.controllers.daemonset import DaemonSetController
from kitlib.cluster.controllers.deployment import DeploymentController
from kitlib.cluster.controllers.disruption import DisruptionController
from kitlib.cluster.controllers.endpoints import EndpointsController
from kitlib.cluster.controllers.endpointslice import EndpointSliceController
from kitlib.cluster.controllers.garbagecollector import GarbageCollector
from kitlib.cluster.controllers.hollow import HollowController
from kitlib.cluster.controllers.horizontalpodautoscaler import HorizontalPodAutoscalerController
from kitlib.cluster.controllers.job import JobController
from kitlib.cluster.controllers.localpath import LocalPathProvisioner
from kitlib.cluster.controllers.namespace import NamespaceController
from kitlib.cluster.controllers.nodelifecycle import NodeLifecycleController
from kitlib.cluster.controllers.persistentvolume import PersistentVolumeController
from kitlib.cluster.controllers.podgc import PodGCController
from kitlib.cluster.controllers.replicaset import ReplicaSetController
from kitlib.cluster.controllers.replicationcontroller import ReplicationManager
from kitlib.cluster.controllers.resourcequota import ResourceQuotaController
from kitlib.cluster.controllers.serviceaccount import ServiceAccountController
from kitlib.cluster.controllers.statefulset import StatefulSetController
from kitlib.cluster.controllers.tainteviction import TaintEvictionController
from kitlib.cluster.controllers.ttlafterfinished import TTLAfterFinishedController
from kitlib.cluster.controllers.volumeprotection import VolumeProtectionController
from kitlib.cluster.informer import Controller, EventRecorder, Informers

CONTROLLERS: tuple[Callable[[Context], Controller], ...] = (
    DeploymentController,
    ReplicaSetController,
    ReplicationManager,
    JobController,
    TTLAfterFinishedController,
    CronJobController,
    StatefulSetController,
    DaemonSetController,
    DisruptionController,
    HorizontalPodAutoscalerController,
    GarbageCollector,
    NamespaceController,
    PodGCController,
    NodeLifecycleController,
    TaintEvictionController,
    EndpointSliceController,
    EndpointsController,
    ServiceAccountController,
    ResourceQuotaController,
    PersistentVolumeController,
    VolumeProtectionController,
    LocalPathProvisioner,
    HollowController,
)


async def run_controllers(client_for: Callable[[str], Client], config: ClusterConfig) -> None:
    """Run all controllers until cancelled.

    Args:
        client_for: Returns a client that acts under the given name.
        config: The cluster.
    """
    await run(client_for, CONTROLLERS, config, SystemClock())


async def run(
    client_for: Callable[[str], Client],
    controllers: tuple[Callable[[Context], Controller], ...],
    config: ClusterConfig,
    clock: Clock,
) -> None:
    """Run some controllers on shared informers until cancelled; the start of all waits for the first lists."""
    informers = Informers(client_for("kube-controller-manager"), clock)
    running = [_build(make, client_for, informers, config, clock) for make in controllers]
    tasks: list[asyncio.Future[None]] = []
    try:
        await informers.start()
        tasks = [asyncio.ensure_future(controller.run()) for controller, _ in running]
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        informers.stop()
        await asyncio.gather(*tasks, *(events.close() for _, events in running), return_exceptions=True)


def _build(
    make: Callable[[Context], Controller],
    client_for: Callable[[str], Client],
    informers: Informers,
    config: ClusterConfig,
    clock: Clock,
) -> tuple[Controller, EventRecorder]:
    name: str = getattr(make, "name", "kube-controller-manager")
    client = client_for(name)
    events = EventRecorder(client, name, clock=clock)
    return make(Context(informers.client(client), informers, events, clock, config)), events
