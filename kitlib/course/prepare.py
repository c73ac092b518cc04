"""What a chapter's set-up cell brings back: the application that the chapters before made."""

from __future__ import annotations

import time
from typing import Any

from kubernetes.client.exceptions import ApiException

from kitlib.connect import current
from kitlib.course.look import BOOTCAMP
from kitlib.errors import KitError
from kitlib.session import LABELS

IMAGE = "gcr.io/google-samples/kubernetes-bootcamp:v1"
PATIENCE = 180.0


def ensure_app(replicas: int = 1, service: bool = False) -> None:
    """Make the Deployment `kubernetes-bootcamp` (and its NodePort Service) unless they are there, and wait for it.

    What exists is left as it is, so a set-up cell may run again in the middle of a chapter.

    Args:
        replicas: How many Pods a new Deployment wants.
        service: Whether the Service belongs to it too.

    Raises:
        KitError: It does not become available.
    """
    cluster = current()
    with cluster.errors():
        labels = {"app": BOOTCAMP}
        container = {"name": BOOTCAMP, "image": IMAGE}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        fresh = _create(cluster.apps.create_namespaced_deployment, cluster.namespace, labels, spec)
        if service:
            ports = [{"port": 8080, "targetPort": 8080, "protocol": "TCP"}]
            node_port = {"type": "NodePort", "selector": labels, "ports": ports}
            _create(cluster.core.create_namespaced_service, cluster.namespace, labels, node_port)
        _wait_available(cluster, replicas if fresh else 1)


def _create(call: Any, namespace: str, labels: dict[str, str], spec: dict[str, Any]) -> bool:
    """Create an object; return whether it was not there before."""
    try:
        call(namespace, {"metadata": {"name": BOOTCAMP, "labels": {**labels, **LABELS}}, "spec": spec})
    except ApiException as error:
        if error.status != 409:
            raise
        return False
    return True


def _wait_available(cluster: Any, enough: int) -> None:
    """Wait until enough Pods are available: all of a new Deployment, one of those of an old one if any is wanted.

    In the middle of a chapter some may be missing on purpose, such as after a bad release.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = cluster.apps.read_namespaced_deployment(BOOTCAMP, cluster.namespace)
        available, wanted = found.status.available_replicas or 0, found.spec.replicas
        if available >= min(enough, wanted):
            print(f"Application {BOOTCAMP}: {available} of {wanted} replicas available")
            return
        time.sleep(0.2)
    raise KitError(f"`{BOOTCAMP}` is not available after {PATIENCE:g} s: `%kubectl describe pods` says why.")
