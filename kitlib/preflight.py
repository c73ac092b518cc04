"""Can the course run on this cluster? What `kit doctor --context NAME` asks a real one before anything is created.

Everything is asked of the Kubernetes API alone. Every finding is `(level, subject, text)` with level `ok`, `warn` or
`fail`; the text of a warning or failure ends with the mend.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from kitlib.connect import open_context
from kitlib.errors import KitError
from kitlib.session import GPU, LABELS, Cluster, gpus

Line = tuple[str, str, str]

OLDEST_MINOR = 25
"""Indexed Jobs and podFailurePolicy exist from here on (the policy is stable from 1.31)."""

RIGHTS = [
    ("create", "", "namespaces"),
    ("list", "", "nodes"),
    *[(verb, "", "pods") for verb in ("create", "list", "watch", "delete")],
    ("get", "", "pods/log"),
    ("create", "", "pods/exec"),
    ("create", "", "pods/portforward"),
    *[("create", "", kind) for kind in ("services", "configmaps", "secrets")],
    *[("create", "apps", kind) for kind in ("deployments", "replicasets")],
    ("patch", "apps", "deployments/scale"),
    ("create", "batch", "jobs"),
    ("watch", "batch", "jobs"),
    ("list", "", "events"),
]
"""What the chapters do: (verb, API group, resource)."""


def check_context(name: str) -> Iterator[Line]:
    """Yield the findings about one context of the user's kubeconfig, most basic first.

    Args:
        name: Name of the context.
    """
    try:
        cluster = open_context(name)
        with cluster.errors():
            version = client.VersionApi(cluster.api).get_code(_request_timeout=20)
    except KitError as error:
        yield "fail", "cluster", str(error)
        return
    yield _version(version)
    checks: list[Callable[[Cluster], Iterable[Line]]] = [_rights, _nodes, _gpu_nodes, _storage, _namespace]
    for check in checks:
        try:
            yield from check(cluster)
        except ApiException as error:
            subject = check.__name__.strip("_").replace("_", " ")
            yield (
                "warn",
                subject,
                f"could not be looked at ({error.status} {error.reason}): ask for the right to list it",
            )


def _version(version: Any) -> Line:
    minor = int("".join(letter for letter in version.minor if letter.isdigit()) or 0)
    if minor < OLDEST_MINOR:
        return (
            "fail",
            "version",
            f"{version.git_version}: the course needs 1.{OLDEST_MINOR} or newer; upgrade the cluster",
        )
    return "ok", "version", version.git_version


def _rights(cluster: Cluster) -> Iterator[Line]:
    namespace = cluster.context_namespace or "default"
    missing = [right for right in RIGHTS if not _allowed(cluster, namespace, *right)]
    if not missing:
        yield "ok", "rights", f"all {len(RIGHTS)} that the course needs"
    for verb, _, resource in missing:
        if (verb, resource) == ("create", "namespaces"):
            mend = "ask for a namespace of your own and name it with KIT_NAMESPACE"
            yield "warn", "rights", f"you may not create namespaces: {mend}"
        else:
            yield "fail", "rights", f"you may not {verb} {resource} in {namespace}: ask for a role that allows it"


def _allowed(cluster: Cluster, namespace: str, verb: str, group: str, resource: str) -> bool:
    plural, _, subresource = resource.partition("/")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": plural, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = client.AuthorizationV1Api(cluster.api).create_self_subject_access_review(review, _request_timeout=20)
    return bool(answer.status.allowed)


def _nodes(cluster: Cluster) -> Iterator[Line]:
    nodes = cluster.core.list_node(_request_timeout=20).items
    ready = [node for node in nodes if any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)]
    level = "ok" if ready else "fail"
    yield level, "nodes", f"{len(ready)} of {len(nodes)} Ready" + ("" if ready else ": mend or add a node")


def _gpu_nodes(cluster: Cluster) -> Iterator[Line]:
    nodes = cluster.core.list_node(_request_timeout=20).items
    with_gpus = [node for node in nodes if int((node.status.allocatable or {}).get(GPU, 0))]
    if not with_gpus:
        yield "warn", "GPUs", "none: chapter 10 runs on CPUs with gpus_per_worker=0; " + _device_plugin(cluster)
        return
    yield "ok", "GPUs", gpus(nodes)
    taints = {f"{t.key}:{t.effect}" for node in with_gpus for t in node.spec.taints or []}
    foreign = sorted(taint for taint in taints if not taint.startswith(GPU))
    if foreign:
        yield "warn", "GPU taints", f"{', '.join(foreign)}: give train.submit(..., tolerations=[...]) for them"


def _device_plugin(cluster: Cluster) -> str:
    sets = client.AppsV1Api(cluster.api).list_daemon_set_for_all_namespaces(_request_timeout=20).items
    if any("nvidia" in item.metadata.name and "plugin" in item.metadata.name for item in sets):
        return "a device plugin runs, yet no node offers a GPU: look at its Pods' logs"
    return "for GPUs, nodes need the NVIDIA driver and the NVIDIA device plugin"


def _storage(cluster: Cluster) -> Iterator[Line]:
    classes = client.StorageV1Api(cluster.api).list_storage_class(_request_timeout=20).items
    key = "storageclass.kubernetes.io/is-default-class"
    default = [item.metadata.name for item in classes if (item.metadata.annotations or {}).get(key) == "true"]
    if default:
        yield "ok", "storage", f"default storage class {default[0]}: checkpoints can live in a PersistentVolumeClaim"
    else:
        text = "no default storage class: name a PersistentVolumeClaim of your own for checkpoints, or train without"
        yield "warn", "storage", text


def _namespace(cluster: Cluster) -> Iterator[Line]:
    name = cluster.context_namespace or "default"
    quotas = cluster.core.list_namespaced_resource_quota(name, _request_timeout=20).items
    for quota in quotas:
        used = json.dumps(
            {key: f"{quota.status.used.get(key)}/{hard}" for key, hard in (quota.spec.hard or {}).items()}
        )
        yield "warn", "quota", f"{quota.metadata.name} in {name}: {used}; free some if Pods are refused"
    for limits in cluster.core.list_namespaced_limit_range(name, _request_timeout=20).items:
        yield "warn", "limits", f"LimitRange {limits.metadata.name} in {name} sets default limits for every container"
    labels = cluster.core.read_namespace(name, _request_timeout=20).metadata.labels or {}
    level = labels.get("pod-security.kubernetes.io/enforce", "privileged")
    note = "; the kit's training Pods satisfy it, the bootcamp image may not" if level == "restricted" else ""
    yield ("warn" if note else "ok"), "Pod Security", f"{name} enforces {level}{note}"


def left_behind(cluster: Cluster) -> list[tuple[str, str]]:
    """Return what the kit made on this cluster and is still there, as (kind, name).

    Args:
        cluster: The cluster, such as `kitlib.connect.open_context(name)`.
    """
    selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
    with cluster.errors():
        spaces = cluster.core.list_namespace(label_selector=selector, _request_timeout=20).items
        jobs = cluster.batch.list_job_for_all_namespaces(label_selector=selector, _request_timeout=20).items
    inside = {space.metadata.name for space in spaces}
    loose = [job for job in jobs if job.metadata.namespace not in inside]
    return [("namespace", name) for name in sorted(inside)] + [
        ("job", f"{job.metadata.namespace}/{job.metadata.name}") for job in loose
    ]


def remove(cluster: Cluster, found: list[tuple[str, str]]) -> None:
    """Delete what `left_behind` found.

    Raises:
        KitError: The cluster refuses.
    """
    with cluster.errors():
        for kind, name in found:
            if kind == "namespace":
                cluster.core.delete_namespace(name, _request_timeout=20)
            else:
                space, _, job = name.partition("/")
                cluster.batch.delete_namespaced_job(job, space, propagation_policy="Background", _request_timeout=20)
