"""Admission: what the API server adds to a new object after its defaults and before its validation.

Stands for the admission plugins DefaultTolerationSeconds, Priority, ServiceAccount, LimitRanger, ResourceQuota,
DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize, and for the strategies of the
registry that prepare an object for creation. Left out: the volume with a ServiceAccount's token, webhooks, and
PodSecurity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from kitlib.cluster import quantity, quota
from kitlib.cluster.apiserver import errors
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.client import ApiError
from kitlib.cluster.config import Settings
from kitlib.cluster.objects import Object

Lister = Callable[[str, "str | None"], Iterable[Object]]
"""Returns the stored objects of a resource, of one namespace or of all."""


def _nothing(resource: str, namespace: str | None) -> Iterable[Object]:
    return ()


def admit_create(kind: Kind, obj: Object, settings: Settings, lister: Lister = _nothing) -> None:
    """Complete a new object in place.

    Args:
        kind: Kind of the object.
        obj: The object, decoded and with its defaults; its `metadata.uid` is set.
        settings: Times of the cluster.
        lister: Gives the LimitRanges, ResourceQuotas, ServiceAccounts and PriorityClasses that apply.

    Raises:
        ApiError: 403: a LimitRange, a ResourceQuota, a missing ServiceAccount or PriorityClass forbids the object.
    """
    if isinstance(kind, CustomKind):
        pass  # only quotas apply, whatever the kind is called
    elif kind.kind == "Pod" and not kind.group:
        _admit_pod(kind, obj, settings, lister)
    elif kind.kind == "Job":
        _generate_job_selector(obj)
    elif kind.kind == "PersistentVolumeClaim":
        _protect(obj, "kubernetes.io/pvc-protection")
        _default_storage_class(obj, lister)
    elif kind.kind == "PersistentVolume":
        _protect(obj, "kubernetes.io/pv-protection")
    elif kind.kind == "DaemonSet":
        annotations = obj["metadata"].setdefault("annotations", {})
        annotations.setdefault("deprecated.daemonset.template.generation", "1")
    check_quota(kind, obj, lister)


def admit_update(kind: Kind, new: Object, old: Object, lister: Lister = _nothing) -> None:
    """Refuse changes that no rule of the kind itself forbids: a claim that its class lets nobody expand.

    Raises:
        ApiError: 403.
    """
    if kind.kind != "PersistentVolumeClaim" or _asked_storage(new) <= _asked_storage(old):
        return
    name = old["spec"].get("storageClassName")
    classes = [item for item in lister("storageclasses.storage.k8s.io", None) if item["metadata"]["name"] == name]
    if not name or not classes or not classes[0].get("allowVolumeExpansion"):
        why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must"
        raise _forbidden(kind, new, f"{why} support resize")


def _asked_storage(claim: Object) -> Decimal:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return quantity.parse(requests.get("storage", "0"))


def _protect(obj: Object, finalizer: str) -> None:
    finalizers = obj["metadata"].setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def _default_storage_class(claim: Object, lister: Lister) -> None:
    """Give a claim that names no class the default one, the newest if there are several."""
    if claim["spec"].get("storageClassName") is not None:
        return
    key = "storageclass.kubernetes.io/is-default-class"
    classes = lister("storageclasses.storage.k8s.io", None)
    found = [each["metadata"] for each in classes if (each["metadata"].get("annotations") or {}).get(key) == "true"]
    if found:
        newest = max(found, key=lambda meta: (meta["creationTimestamp"], meta["name"]))
        claim["spec"]["storageClassName"] = newest["name"]


def _admit_pod(kind: Kind, pod: Object, settings: Settings, lister: Lister) -> None:
    spec = pod["spec"]
    _service_account(kind, pod, lister)
    _default_tolerations(spec, settings)
    _priority(kind, pod, lister)
    _limit_ranges(kind, pod, lister)
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
    gates = [gate.get("name") for gate in spec.get("schedulingGates") or ()]
    if gates:
        text = "Scheduling is blocked due to non-empty scheduling gates"
        gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": text}
        pod["status"]["conditions"] = [gated]


def _service_account(kind: Kind, pod: Object, lister: Lister) -> None:
    """Let no Pod name an account that does not exist; `default` may come a moment after its namespace."""
    name, namespace = pod["spec"].get("serviceAccountName") or "default", pod["metadata"].get("namespace")
    if name != "default" and all(each["metadata"]["name"] != name for each in lister("serviceaccounts", namespace)):
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise _forbidden(kind, pod, why)


def _default_tolerations(spec: Object, settings: Settings) -> None:
    """Add the two tolerations that let a Pod stay for a while on a node that is not ready or unreachable."""
    taints = (
        ("node.kubernetes.io/not-ready", settings.default_not_ready_toleration_seconds),
        ("node.kubernetes.io/unreachable", settings.default_unreachable_toleration_seconds),
    )
    present = spec.get("tolerations") or []
    added = []
    for key, seconds in taints:
        if not any(_tolerates_no_execute(toleration, key) for toleration in present):
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
            added.append(toleration)
    if added:
        spec["tolerations"] = [*present, *added]


def _tolerates_no_execute(toleration: Object, key: str) -> bool:
    return toleration.get("key") in (key, None, "") and toleration.get("effect") in ("NoExecute", None, "")


_SYSTEM_PRIORITIES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}


def _priority(kind: Kind, pod: Object, lister: Lister) -> None:
    spec = pod["spec"]
    name = spec.get("priorityClassName")
    classes = list(lister("priorityclasses.scheduling.k8s.io", None))
    if not name:
        found = [item for item in classes if item.get("globalDefault")]
        chosen: Object = min(found, key=lambda item: int(item.get("value", 0))) if found else {"value": 0}
        if found:
            spec["priorityClassName"] = chosen["metadata"]["name"]
    elif name in _SYSTEM_PRIORITIES:
        chosen = {"value": _SYSTEM_PRIORITIES[name]}
    else:
        named = [item for item in classes if item["metadata"]["name"] == name]
        if not named:
            raise _forbidden(kind, pod, f"no PriorityClass with name {name} was found")
        chosen = named[0]
    spec["priority"] = chosen.get("value", 0)
    spec.setdefault("preemptionPolicy", chosen.get("preemptionPolicy", "PreemptLowerPriority"))


def _resources(container: Object, name: str) -> dict[str, Decimal]:
    values = (container.get("resources") or {}).get(name) or {}
    return {key: quantity.parse(value) for key, value in values.items() if key in ("cpu", "memory")}


def qos_class(spec: Object) -> str:
    """Return `Guaranteed`, `Burstable` or `BestEffort`, from the requests and limits of cpu and memory."""
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    pairs = [(_resources(item, "requests"), _resources(item, "limits")) for item in containers]
    if not any(value for pair in pairs for values in pair for value in values.values()):
        return "BestEffort"
    guaranteed = all(set(limits) == {"cpu", "memory"} and requests == limits for requests, limits in pairs)
    return "Guaranteed" if guaranteed else "Burstable"


def _generate_job_selector(job: Object) -> None:
    """Give a Job's template the labels by which the Job finds its Pods, as `generateSelector` does."""
    spec, meta = job["spec"], job["metadata"]
    uid = meta.get("uid")
    if spec.get("manualSelector") or not uid:
        return
    labels = spec["template"]["metadata"].setdefault("labels", {})
    names = {"controller-uid": uid, "job-name": meta.get("name", "")}
    for name, value in names.items():
        labels.update({name: value, f"batch.kubernetes.io/{name}": value})
    spec.setdefault("selector", {}).setdefault("matchLabels", {})["batch.kubernetes.io/controller-uid"] = uid
    if not meta.get("labels"):
        meta["labels"] = dict(labels)


def _forbidden(kind: Kind, obj: Object, why: str) -> ApiError:
    return errors.forbidden(kind, obj["metadata"].get("name", ""), why)


def _limit_ranges(kind: Kind, pod: Object, lister: Lister) -> None:
    """Fill in a namespace's default requests and limits, then hold each container against its bounds."""
    ranges = lister("limitranges", pod["metadata"].get("namespace", ""))
    items = [item for limit_range in ranges for item in limit_range["spec"].get("limits") or ()]
    spec, problems = pod["spec"], list[str]()
    for item in items:
        if item.get("type") == "Container":
            for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
                _default_resources(container, item)
                problems += _out_of_bounds(container, item)
    if problems:
        raise _forbidden(kind, pod, problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")


def _default_resources(container: Object, item: Object) -> None:
    for name, source in (("limits", "default"), ("requests", "defaultRequest")):
        values = {**item.get(source, {}), **(container.setdefault("resources", {}).get(name) or {})}
        if values:
            container["resources"][name] = values


def _out_of_bounds(container: Object, item: Object) -> Iterator[str]:
    requests, limits = (container["resources"].get(name) or {} for name in ("requests", "limits"))
    for name, bound in (item.get("min") or {}).items():
        if name not in requests:
            yield f"minimum {name} usage per Container is {bound}.  No request is specified"
        elif quantity.parse(requests[name]) < quantity.parse(bound):
            yield f"minimum {name} usage per Container is {bound}, but request is {requests[name]}"
    for name, bound in (item.get("max") or {}).items():
        if name not in limits:
            yield f"maximum {name} usage per Container is {bound}.  No limit is specified"
        elif quantity.parse(limits[name]) > quantity.parse(bound):
            yield f"maximum {name} usage per Container is {bound}, but limit is {limits[name]}"


def check_quota(kind: Kind, obj: Object, lister: Lister) -> None:
    """Refuse an object that would take its namespace beyond a ResourceQuota.

    Raises:
        ApiError: 403 `exceeded quota: ...`.
    """
    namespace = obj["metadata"].get("namespace")
    if not kind.namespaced or not kind.stored:
        return
    for each in lister("resourcequotas", namespace):
        asked = {
            name: value
            for name, value in quota.usage(kind.resource, obj).items()
            if name in each["spec"].get("hard", {})
        }
        if asked:
            stored = [quota.usage(kind.resource, item) for item in lister(kind.resource, namespace)]
            _hold_quota(kind, obj, each, asked, stored)
        elif kind.kind == "Pod" and not kind.group:
            _hold_quota(kind, obj, each, {}, [])


def _hold_quota(
    kind: Kind, obj: Object, held: Object, asked: dict[str, Decimal], stored: list[dict[str, Decimal]]
) -> None:
    hard: dict[str, Any] = held["spec"].get("hard", {})
    name = held["metadata"]["name"]
    if kind.kind == "Pod":
        compute = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
        missing = sorted(key for key in hard if key in compute and key not in asked)
        if missing:
            raise _forbidden(kind, obj, f"failed quota: {name}: must specify {','.join(missing)} for: {_names(obj)}")
    used = {key: sum((item.get(key, Decimal(0)) for item in stored), Decimal(0)) for key in asked}
    over = sorted(key for key, value in asked.items() if used[key] + value > quantity.parse(hard[key]))
    if over:
        parts = [",".join(f"{key}={quota.text(values[key])}" for key in over) for values in (asked, used)]
        limited = ",".join(f"{key}={hard[key]}" for key in over)
        text = f"exceeded quota: {name}, requested: {parts[0]}, used: {parts[1]}, limited: {limited}"
        raise _forbidden(kind, obj, text)


def _names(pod: Object) -> str:
    return ",".join(str(container.get("name")) for container in pod["spec"].get("containers") or ())
