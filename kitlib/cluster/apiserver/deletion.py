"""Deleting objects: grace periods, finalizers, cascading.

Stands for `rest.BeforeDelete` and the deletion half of the generic registry, with the deletion strategies of Pods
(grace period), Namespaces (phase `Terminating` until they are empty) and Jobs (dependents are kept by default).
"""

from __future__ import annotations

from typing import Any

from kitlib.cluster.apiserver import errors, versions
from kitlib.cluster.apiserver.apiextensions.customkind import DEFINITIONS
from kitlib.cluster.apiserver.options import ListOptions, WriteOptions, check_dry_run
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.rest import REST, is_finished
from kitlib.cluster.clock import parse_time, rfc3339, rfc3339_now
from kitlib.cluster.objects import Object
from kitlib.cluster.store import Entry

RETURNS_OBJECT = frozenset(
    "pods services serviceaccounts podtemplates persistentvolumes persistentvolumeclaims resourcequotas".split()
)
"""Kinds whose deletion answers with the object instead of a Status."""

ORPHANS_BY_DEFAULT = frozenset(("jobs.batch", "replicationcontrollers"))
_JOB_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them "
    "or set propagationPolicy=Orphan to suppress this warning"
)
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer by which a CustomResourceDefinition waits for the end of its objects."""

_TERMINATING = {
    "type": "Terminating",
    "status": "True",
    "reason": "InstanceDeletionPending",
    "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
}
_PROTECTED = ("default", "kube-system", "kube-public")
_POLICIES = {"Foreground": "foregroundDeletion", "Orphan": "orphan", "Background": ""}


def delete(rest: REST, kind: Kind, namespace: str, name: str, asked: Object, options: WriteOptions) -> Object:
    """Delete an object, or mark it when something must happen before.

    Args:
        rest: Where objects are kept.
        kind: Kind that the path names.
        namespace: Empty for cluster-scoped objects.
        name: Object name.
        asked: The request's `DeleteOptions`.
        options: Dry run, and where warnings go.

    Returns:
        The object when it waits for its finalizers or its grace period, else what its kind answers.

    Raises:
        ApiError: 403, 404, 409 or 422, as Kubernetes.
    """
    _check_options(asked)
    entry = rest.entry(kind, namespace, name)
    _check_preconditions(kind, entry, asked)
    if kind.resource == "namespaces" and name in _PROTECTED:
        raise errors.forbidden(kind, name, "this namespace may not be deleted")
    stored = versions.storage(kind)
    obj = _marked(stored, entry, asked, options)
    gone = is_finished(stored, obj)
    if gone and not options.dry_run:
        rest.store.delete(entry)
    elif not gone and obj != entry.obj:
        obj = rest.commit(stored, entry, obj, options)
    if gone and stored.resource not in RETURNS_OBJECT:
        return errors.success(kind, name, entry.obj["metadata"]["uid"])
    return versions.from_storage(kind, obj)


def delete_collection(
    rest: REST, kind: Kind, namespace: str | None, selection: ListOptions, asked: Object, options: WriteOptions
) -> Object:
    """Delete every object that a list request means; returns them as a List.

    Raises:
        ApiError: As `delete`, for the first object that cannot be deleted.
    """
    entries, meta = rest.entries(kind, namespace, selection)
    items = [versions.from_storage(kind, entry.obj) for entry in entries]
    for entry in entries:
        if rest.store.get(entry.resource, entry.namespace, entry.name) is not None:
            delete(rest, kind, entry.namespace, entry.name, asked, options)
    return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta, "items": items}


def _check_options(asked: Object) -> None:
    types: dict[str, type | tuple[type, ...]] = {
        "gracePeriodSeconds": int,
        "propagationPolicy": str,
        "orphanDependents": bool,
        "preconditions": dict,
        "dryRun": list,
    }
    for field, wanted in types.items():
        value = asked.get(field)
        if value is not None and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
            raise errors.bad_request(f"DeleteOptions: {field} has the wrong type")
    for value in asked.get("dryRun") or ():
        check_dry_run(str(value), "DeleteOptions")
    policy = asked.get("propagationPolicy")
    if policy and policy not in _POLICIES:
        message = f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"'
        raise errors.invalid_options("DeleteOptions", "propagationPolicy", message, "FieldValueNotSupported")
    if policy and asked.get("orphanDependents") is not None:
        message = "Invalid value: orphanDependents and deletionPropagation cannot be both set"
        raise errors.invalid_options("DeleteOptions", "propagationPolicy", message, "FieldValueInvalid")


def _check_preconditions(kind: Kind, entry: Entry, asked: Object) -> None:
    wanted, meta = asked.get("preconditions") or {}, entry.obj["metadata"]
    for field, name in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field) and wanted[field] != meta[field]:
            why = f"Precondition failed: {name} in precondition: {wanted[field]}, {name} in object meta: {meta[field]}"
            raise errors.conflict(kind, entry.name, why)


def _marked(kind: Kind, entry: Entry, asked: Object, options: WriteOptions) -> Object:
    """Return the object as its deletion leaves it; `is_finished` tells whether that is the end of it."""
    obj = entry.copy()
    meta = obj["metadata"]
    _set_finalizers(kind, meta, asked, options)
    grace = _grace_seconds(kind, obj, asked)
    if not meta.get("deletionTimestamp"):
        if kind.resource == DEFINITIONS:
            _terminate_definition(obj)
        _begin(meta, grace)
    elif grace < (meta.get("deletionGracePeriodSeconds") or 0):
        _shorten(meta, grace)
    if kind.resource == "namespaces":
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    return obj


def _terminate_definition(obj: Object) -> None:
    finalizers, status = obj["metadata"].setdefault("finalizers", []), obj.setdefault("status", {})
    finalizers += [CLEANUP] * (CLEANUP not in finalizers)
    status.setdefault("conditions", []).append({**_TERMINATING, "lastTransitionTime": rfc3339_now()})


def _begin(meta: Object, grace: int) -> None:
    meta["deletionTimestamp"] = _later(rfc3339_now(), grace)
    meta["deletionGracePeriodSeconds"] = grace
    if meta.get("generation"):
        meta["generation"] += 1


def _shorten(meta: Object, grace: int) -> None:
    meta["deletionTimestamp"] = _later(meta["deletionTimestamp"], grace - meta["deletionGracePeriodSeconds"])
    meta["deletionGracePeriodSeconds"] = grace


def _later(time: str, seconds: int) -> str:
    return rfc3339(parse_time(time) + seconds)


def _grace_seconds(kind: Kind, obj: Object, asked: Object) -> int:
    """Return how long a Pod may take to stop; only Pods have a grace period.

    Source: `podStrategy.CheckGracefulDelete`.
    """
    if kind.resource != "pods":
        return 0
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    grace: Any = asked.get("gracePeriodSeconds")
    if grace is None:
        grace = obj["metadata"].get("deletionGracePeriodSeconds")
    if grace is None:
        grace = spec.get("terminationGracePeriodSeconds", 30)
    return int(min(max(grace, 0), 10**9))


def _set_finalizers(kind: Kind, meta: Object, asked: Object, options: WriteOptions) -> None:
    policy, before = asked.get("propagationPolicy"), meta.get("finalizers") or []
    if asked.get("orphanDependents") is not None:
        policy = "Orphan" if asked["orphanDependents"] else "Background"
    if not policy:
        if any(name in before for name in _POLICIES.values() if name):
            return
        policy = "Orphan" if kind.resource in ORPHANS_BY_DEFAULT else "Background"
        if kind.resource == "jobs.batch":
            options.warnings.append(_JOB_WARNING)
    after = [name for name in before if name not in ("foregroundDeletion", "orphan")]
    if _POLICIES[policy]:
        after.append(_POLICIES[policy])
    meta["finalizers"] = after
    if not after:
        del meta["finalizers"]
