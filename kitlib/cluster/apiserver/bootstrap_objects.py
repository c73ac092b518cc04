"""The objects that every cluster has, and the end of old Events.

Stands for kube-apiserver's post-start hooks (system namespaces, the `kubernetes` Service and its endpoints, system
priority classes, the default StorageClass) and for the lease that lets an Event expire.
"""

from __future__ import annotations

import time

from kitlib.cluster.apiserver import registry
from kitlib.cluster.apiserver.options import WriteOptions
from kitlib.cluster.apiserver.rest import REST
from kitlib.cluster.clock import parse_time
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.objects import Object

_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_LABELS = {"component": "apiserver", "provider": "kubernetes"}
_COMPONENTS = ("controller-manager", "etcd-0", "scheduler")
"""One process with the API server here, so that whoever gets an answer has them healthy."""
_PRIORITIES = {
    "system-cluster-critical": (2000000000, "cluster"),
    "system-node-critical": (2000001000, "node"),
}


def ensure(rest: REST, config: ClusterConfig, address: str, endpoint: tuple[str, int] | None = None) -> None:
    """Create what is missing and write this start's address and port into the endpoints.

    Args:
        rest: Writes the objects.
        config: Address and port of the server.
        address: ClusterIP of the `kubernetes` Service.
        endpoint: Where the server listens for those who come through that Service; `config` says it by default.
    """
    host, port = endpoint or (config.host, config.port)
    for name in _NAMESPACES:
        _ensure(rest, "namespaces", "", {"metadata": {"name": name}})
    _ensure(rest, "services", "default", _service(address, port))
    _ensure(rest, "endpoints", "default", _endpoints(host, port))
    _ensure(rest, "endpointslices.discovery.k8s.io", "default", _endpoint_slice(host, port))
    for name in _COMPONENTS:
        conditions = [{"type": "Healthy", "status": "True", "message": "ok"}]
        _ensure(rest, "componentstatuses", "", {"metadata": {"name": name}, "conditions": conditions})
    for name, (value, what) in _PRIORITIES.items():
        text = f"Used for system critical pods that must run in the cluster{_moved(what)}."
        obj: Object = {"metadata": {"name": name}, "value": value, "description": text}
        _ensure(rest, "priorityclasses.scheduling.k8s.io", "", obj)


def _moved(what: str) -> str:
    if what == "cluster":
        return ", but can be moved to another node if necessary"
    return " and must not be moved from their current node"


def _ensure(rest: REST, resource: str, namespace: str, obj: Object) -> None:
    kind, options = registry.lookup(resource), WriteOptions(field_manager="kube-apiserver")
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, **obj}
    entry = rest.store.get(resource, namespace, obj["metadata"]["name"])
    if entry is None:
        rest.create(kind, namespace, obj, options)
        return
    rest.replace(kind, entry, {**entry.copy(), **{k: v for k, v in obj.items() if k != "metadata"}}, options)


def _service(address: str, port: int) -> Object:
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
    return {
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": dict(_LABELS)},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": ports, "type": "ClusterIP"},
    }


def _endpoints(host: str, port: int) -> Object:
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    return {
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "subsets": [{"addresses": [{"ip": host}], "ports": ports}],
    }


def _endpoint_slice(host: str, port: int) -> Object:
    labels = {"kubernetes.io/service-name": "kubernetes"}
    return {
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }


def ensure_storage_class(rest: REST) -> None:
    """Give a cluster without any StorageClass the one that kind and k3s bring along, under kind's name."""
    if rest.store.entries("storageclasses.storage.k8s.io", None):
        return
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    obj = {
        "metadata": {"name": "standard", "annotations": default},
        "provisioner": "rancher.io/local-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    _ensure(rest, "storageclasses.storage.k8s.io", "", obj)


def expire_events(rest: REST, seconds: float) -> None:
    """Remove Events that nobody has touched for this long; those that were written after a young one are not read."""
    now = time.time()
    for entry in sorted(rest.store.entries("events"), key=lambda entry: entry.revision):
        obj = entry.obj
        seen = parse_time(obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"]["creationTimestamp"])
        if seen < now - seconds:
            rest.store.delete(entry)
        elif seen <= now:
            return
