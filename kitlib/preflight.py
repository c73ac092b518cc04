"""Can the course run on this cluster? What `kit doctor --context NAME` asks a real one before anything is created.

Everything is asked of the Kubernetes API alone. Every finding is `(level, subject, text)` with level `ok`, `warn` or
`fail`; the text of a warning or failure ends with the mend.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from kitlib import assigned
from kitlib.connect import learner, open_context, slug
from kitlib.errors import KitError
from kitlib.home import kit_home
from kitlib.session import GPU, LABELS, Cluster, gpus
from kitlib.train.job import IMAGE

PRODUCT = "nvidia.com/gpu.product"

Line = tuple[str, str, str]

OLDEST_MINOR = 28
"""From here on the Pods of an Indexed Job carry their index as a label, by which a run's Service finds rank 0."""

OLDEST_DRIVER = 580
"""NVIDIA's driver for CUDA 13, which the default training image holds."""

PLEASANT = [("create", "", "namespaces"), ("list", "", "nodes")]
"""Rights that the course can do without: it says so and goes on."""

RIGHTS = [
    *PLEASANT,
    *[(verb, "", "pods") for verb in ("create", "list", "watch", "delete")],
    ("get", "", "pods/log"),
    ("create", "", "pods/exec"),
    ("create", "", "pods/portforward"),
    *[("create", "", kind) for kind in ("services", "configmaps", "secrets")],
    *[("create", "apps", kind) for kind in ("deployments", "replicasets")],
    ("patch", "apps", "deployments/scale"),
    *[(verb, "batch", "jobs") for verb in ("create", "patch", "watch", "delete")],
    ("list", "", "events"),
]
"""What the chapters do: (verb, API group, resource)."""


def check_context(context: str | None = None) -> Iterator[Line]:
    """Yield the findings about a cluster that somebody else runs, most basic first.

    Args:
        context: A context of your kubeconfig, instead of `KIT_CLUSTER`.
    """
    try:
        cluster = open_context(context)
        with cluster.errors():
            version = client.VersionApi(cluster.api).get_code(_request_timeout=20)
    except KitError as error:
        yield "fail", "cluster", str(error)
        return
    yield _version(version)
    checks: list[Callable[[Cluster], Iterable[Line]]] = [
        _rights, _nodes, _gpu_nodes, _images, _storage, _quotas, _limit_ranges, _pod_security, _own_namespace,
    ]  # fmt: skip
    for check in checks:
        try:
            yield from check(cluster)
        except ApiException as error:
            subject = check.__name__.strip("_").replace("_", " ")
            said = f"could not be looked at ({error.status} {error.reason}): ask for the right, or read on without"
            yield "warn", subject, said
        except (HTTPError, OSError):
            yield "fail", check.__name__.strip("_").replace("_", " "), "the cluster stopped answering: try again"
            return


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
    for right in missing:
        verb, _, resource = right
        if resource == "namespaces":
            mend = f"the course stays in {namespace}, or in the one that KIT_NAMESPACE names"
            yield "warn", "rights", f"you may not create namespaces: {mend}"
        elif right in PLEASANT:
            mend = "the lessons say so and go on; KIT_USABLE_GPUS=N tells how many GPUs you may use"
            yield "warn", "rights", f"you may not {verb} {resource}: {mend}"
        else:
            yield "fail", "rights", f"you may not {verb} {resource} in {namespace}: ask for the role `edit` there"


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
        yield "warn", "GPUs", "none: chapter 10 trains on CPUs; " + _device_plugin(cluster)
        return
    yield "ok", "GPUs", gpus(nodes)
    labels = [node.metadata.labels or {} for node in with_gpus if not _simulated(node)]
    if not all(PRODUCT in one for one in labels):
        mend = "NVIDIA GPU Feature Discovery sets it; without it you choose nodes by a label of your own"
        yield "warn", "GPU labels", f"not every GPU node has {PRODUCT}: {mend}"
    yield from _driver(labels)
    taints = {_taint(taint) for node in with_gpus for taint in node.spec.taints or []}
    foreign = sorted(taint for taint in taints if not taint.startswith(GPU))
    if foreign:
        yield "warn", "GPU taints", f"Pods stay away: give train.submit(..., tolerations={foreign})"


def _simulated(node: Any) -> bool:
    return (node.metadata.labels or {}).get("kit/gpu") == "simulated"


def _taint(taint: Any) -> str:
    return f"{taint.key}{'=' + taint.value if taint.value else ''}:{taint.effect}"


def _driver(labels: list[dict[str, str]]) -> Iterator[Line]:
    """Compare the nodes' drivers, as GPU Feature Discovery labels them, with what the training image needs."""
    keys = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")
    found = [int(one[key]) for one in labels for key in keys if one.get(key, "").isdigit()]
    if found and min(found) < OLDEST_DRIVER:
        mend = "upgrade it, or give train.submit(image=...) an image with an older CUDA"
        yield "warn", "GPU driver", f"{min(found)} is older than the {OLDEST_DRIVER} that {IMAGE} needs: {mend}"


def _images(cluster: Cluster) -> Iterator[Line]:
    """Say which images will be pulled; whether a registry can be reached only a node can tell."""
    change = "another one: train.submit(image=...) or kit train --image; build it with kitlib/train/Dockerfile"
    yield "ok", "training image", f"chapter 10's nodes pull {IMAGE} (several GB, once per node); {change}"
    nodes = cluster.core.list_node(_request_timeout=20).items
    machines = sorted({node.status.node_info.architecture for node in nodes} - {"amd64"})
    if machines:
        mend = "add amd64 nodes, or give images of your own"
        yield "warn", "images", f"nodes of type {', '.join(machines)}: the lessons' images are made for amd64; {mend}"


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


def _quotas(cluster: Cluster) -> Iterator[Line]:
    name = cluster.context_namespace or "default"
    for quota in cluster.core.list_namespaced_resource_quota(name, _request_timeout=20).items:
        used = quota.status.used or {}
        text = ", ".join(f"{key} {used.get(key, 0)} of {hard}" for key, hard in (quota.spec.hard or {}).items())
        yield "warn", "quota", f"{quota.metadata.name} in {name}: {text}; free some if Pods are refused"


def _limit_ranges(cluster: Cluster) -> Iterator[Line]:
    name = cluster.context_namespace or "default"
    for limits in cluster.core.list_namespaced_limit_range(name, _request_timeout=20).items:
        bounds = [
            f"{item.type} {word} {resource}={amount}"
            for item in limits.spec.limits or []
            for word, amounts in (("min", item.min), ("max", item.max), ("default", item.default))
            for resource, amount in (amounts or {}).items()
        ]
        mend = "give train.submit(..., cpu=, memory=) within them if Pods are refused"
        yield "warn", "limits", f"LimitRange {limits.metadata.name} in {name}: {', '.join(bounds)}; {mend}"


def _pod_security(cluster: Cluster) -> Iterator[Line]:
    name = cluster.context_namespace or "default"
    labels = cluster.core.read_namespace(name, _request_timeout=20).metadata.labels or {}
    level = labels.get("pod-security.kubernetes.io/enforce", "privileged")
    if level == "restricted":
        mend = "chapters 02 to 08 need the level `baseline`; ask for it, or let the kit make namespaces of its own"
        yield "warn", "Pod Security", f"{name} enforces restricted: the training Pods satisfy it, but {mend}"
    else:
        yield "ok", "Pod Security", f"{name} enforces {level}"


def _own_namespace(cluster: Cluster) -> Iterator[Line]:
    found = left_behind(cluster)
    if found:
        names = ", ".join(f"{kind} {name}" for kind, name in found[:5])
        yield "warn", "left over", f"{names}: `kit clean --context {cluster.context}` removes them"


def left_behind(cluster: Cluster, everyone: bool = False) -> list[tuple[str, str]]:
    """Return what the kit made on this cluster for this learner and is still there, as (kind, name).

    Args:
        cluster: The cluster, such as `kitlib.connect.open_context(name)`.
        everyone: Also what it made for others, and the namespaces that were made for the course.
    """
    selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
    with cluster.errors():
        try:
            spaces = cluster.core.list_namespace(label_selector=selector, _request_timeout=20).items
            jobs = cluster.batch.list_job_for_all_namespaces(label_selector=selector, _request_timeout=20).items
        except ApiException as error:
            if error.status != 403:
                raise
            spaces, own = [], cluster.context_namespace or "default"
            jobs = cluster.batch.list_namespaced_job(own, label_selector=selector, _request_timeout=20).items
    if not (everyone or cluster.embedded):
        spaces, jobs = [one for one in spaces if _mine(one)], [one for one in jobs if _mine(one)]
    inside = {space.metadata.name for space in spaces}
    made = [(thing.name.partition("/"), space) for _, space, things in _assigned(cluster) for thing in things]
    others = {(kind.lower(), f"{space}/{name}") for (kind, _, name), space in made if space not in inside}
    loose = {("job", f"{job.metadata.namespace}/{job.metadata.name}") for job in jobs}
    folders = (kit_home() / "train").glob("*/*") if cluster.embedded else ()
    loose |= {("checkpoints", f"{folder.parent.name}/{folder.name}") for folder in folders}
    return [("namespace", name) for name in sorted(inside)] + sorted(
        (kind, name) for kind, name in loose | others if name.partition("/")[0] not in inside
    )


def _mine(item: Any) -> bool:
    """Return whether an object of the kit was made for this learner."""
    return slug(str((item.metadata.labels or {}).get("kit/user", "")))[:20].strip("-") == learner()


def _assigned(cluster: Cluster) -> Iterator[tuple[Path, str, list[assigned.Thing]]]:
    """Yield the namespaces that were given to the course on this cluster, with what it has left in them."""
    for file in assigned.files(cluster.context):
        config = yaml.safe_load(file.read_text())
        namespace = str(config["contexts"][0]["context"]["namespace"])
        yield file, namespace, assigned.made_since(file, namespace)


def remove(cluster: Cluster, found: list[tuple[str, str]]) -> None:
    """Delete what `left_behind` found, and the files of its chapters on this machine.

    Raises:
        KitError: The cluster refuses.
    """
    with cluster.errors():
        for kind, name in found:
            space, _, job = name.partition("/")
            if kind == "namespace":
                cluster.core.delete_namespace(name, _request_timeout=20)
                for folder in ("files", "train"):
                    shutil.rmtree(kit_home() / folder / name, ignore_errors=True)
            elif kind == "job":
                _delete_job(cluster, space, job)
            elif kind == "checkpoints":
                shutil.rmtree(kit_home() / "train" / name, ignore_errors=True)
        for file, space, _ in list(_assigned(cluster)):
            assigned.remove(file, space)


def _delete_job(cluster: Cluster, namespace: str, name: str) -> None:
    try:
        cluster.batch.delete_namespaced_job(name, namespace, propagation_policy="Background", _request_timeout=20)
    except ApiException as error:
        if error.status != 404:
            raise


@contextlib.contextmanager
def nothing_left(chapter: str, keep: bool = False) -> Iterator[None]:
    """Remove the chapter's namespace if the block made it and came not to clean up: it failed or was interrupted.

    An account that may not look around cannot tell what is new; nothing is removed then.

    Args:
        chapter: What the block gives to `connect`.
        keep: Leave the namespace there, to be looked at.
    """
    cluster = open_context()

    def spaces() -> set[tuple[str, str]]:
        with contextlib.suppress(KitError):  # the cluster may be what failed
            return {one for one in left_behind(cluster) if f"{one[1]}-".startswith(f"kit-{chapter}-")}
        return set()

    before = spaces()
    try:
        yield
    except BaseException:
        new = set() if keep else spaces() - before
        if new:
            with contextlib.suppress(KitError):
                remove(cluster, sorted(new))
        raise
