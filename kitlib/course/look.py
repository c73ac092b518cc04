"""Small questions that the checkers ask a cluster, each with the learner's sentence when the answer is no."""

from __future__ import annotations

import math
from typing import Any

from kubernetes.client import DiscoveryV1Api
from kubernetes.client.exceptions import ApiException

from kitlib.course.exercise import NotAttempted, NotYet

BOOTCAMP = "kubernetes-bootcamp"


def require(condition: object, missing: str) -> None:
    """Raise `NotYet` with what is missing unless the condition holds."""
    if not condition:
        raise NotYet(missing)


def real(answer: Any, what: str = "a number") -> float:
    """Return a number, whatever holds it: Python, numpy, torch, or a text such as a command printed."""
    try:
        value = float(answer.strip() if isinstance(answer, str) else answer)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    require(math.isfinite(value), f"The answer is {what}, not {answer!r}.")
    return value


def number(answer: Any) -> int:
    """Return a whole number."""
    value = real(answer)
    require(value == int(value), f"The answer is a whole number, not {answer!r}.")
    return int(value)


def text(answer: Any, what: str) -> str:
    """Return a text without white space around it, also one that came as bytes or as the lines of a `!command`."""
    if isinstance(answer, (list, tuple)) and answer and all(isinstance(line, str) for line in answer):
        answer = "\n".join(answer)
    given = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    require(isinstance(given, str) and given.strip(), f"The answer is {what}, not {answer!r}.")
    return str(given).strip()


def read(call: Any, kind: str, name: str, namespace: str) -> Any:
    """Return the object that `call(name, namespace)` reads.

    Raises:
        NotAttempted: There is no such object.
    """
    try:
        return call(name, namespace)
    except ApiException as error:
        if error.status != 404:
            raise
        raise NotAttempted(f"There is no {kind} `{name}` in namespace `{namespace}`.") from None


def deployment(cluster: Any, name: str) -> Any:
    """Return a Deployment, or raise `NotAttempted`."""
    return read(cluster.apps.read_namespaced_deployment, "Deployment", name, cluster.namespace)


def service(cluster: Any, name: str) -> Any:
    """Return a Service, or raise `NotAttempted`."""
    return read(cluster.core.read_namespaced_service, "Service", name, cluster.namespace)


def pods(cluster: Any, selector: str = "") -> list[Any]:
    """Return the namespace's Pods that carry the labels and are not being deleted."""
    found = cluster.core.list_namespaced_pod(cluster.namespace, label_selector=selector).items
    return [pod for pod in found if pod.metadata.deletion_timestamp is None]


def is_ready(pod: Any) -> bool:
    """Return whether a Pod's condition `Ready` is True."""
    return any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or [])


def require_available(found: Any, replicas: int) -> None:
    """Demand that a Deployment wants `replicas` Pods and that all are up to date and available."""
    name, status = found.metadata.name, found.status
    wanted = found.spec.replicas
    require(wanted == replicas, f"`{name}` asks for {wanted} replica{'' if wanted == 1 else 's'}, not {replicas}.")
    require_settled(found)
    require(
        (status.available_replicas or 0) == replicas,
        f"{status.available_replicas or 0} of {replicas} Pods of `{name}` are available: wait a moment, check again.",
    )


def require_settled(found: Any) -> None:
    """Demand that a Deployment's rollout is complete, as `kubectl rollout status` does."""
    name, status, wanted = found.metadata.name, found.status, found.spec.replicas
    seen = (status.observed_generation or 0) >= found.metadata.generation
    settled = (status.updated_replicas or 0) == wanted == (status.available_replicas or 0) == (status.replicas or 0)
    require(seen and settled, f"The rollout of `{name}` is not complete: `kubectl rollout status` waits for it.")


def endpoints(cluster: Any, name: str) -> set[str]:
    """Return the addresses of the ready Pods behind a Service."""
    found = DiscoveryV1Api(cluster.api).list_namespaced_endpoint_slice(
        cluster.namespace, label_selector=f"kubernetes.io/service-name={name}"
    )
    return {
        address
        for part in found.items
        for endpoint in part.endpoints or []
        if endpoint.conditions is None or endpoint.conditions.ready is not False
        for address in endpoint.addresses
    }


def image(found: Any) -> str:
    """Return the image of the first container of a Deployment, Job or Pod."""
    spec = found.spec.template.spec if hasattr(found.spec, "template") else found.spec
    return str(spec.containers[0].image)
