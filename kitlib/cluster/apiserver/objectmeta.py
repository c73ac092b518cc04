"""What every object has: type, name, revision, finalizers, and what an update may do to them.

Stands for `BeforeCreate` and `BeforeUpdate` of k8s.io/apiserver's `registry/rest`.
"""

from __future__ import annotations

from kitlib.cluster.apiserver import errors
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.objects import Object
from kitlib.cluster.store import Entry

_ORDER = (
    *"name generateName namespace uid resourceVersion generation creationTimestamp deletionTimestamp".split(),
    *"deletionGracePeriodSeconds labels annotations ownerReferences finalizers managedFields".split(),
)


def ordered(obj: Object) -> Object:
    """Return an object with its fields in the order in which Kubernetes writes them."""
    meta = obj["metadata"]
    known = {field: meta[field] for field in _ORDER if field in meta}
    return {"kind": obj["kind"], "apiVersion": obj["apiVersion"], **obj, "metadata": {**known, **meta}}


def check_type(kind: Kind, obj: Object) -> None:
    """Hold an object's `apiVersion` and `kind` against the path; absent ones are filled in.

    Raises:
        ApiError: 400.
    """
    api_version = obj.setdefault("apiVersion", kind.api_version) or kind.api_version
    name = obj.setdefault("kind", kind.kind) or kind.kind
    if api_version != kind.api_version:
        raise errors.bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version ({kind.api_version})"
        )
    if name != kind.kind:
        raise errors.bad_request(
            f'{name} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"the kind in the data does not match the expected kind"
        )
    obj["apiVersion"], obj["kind"] = api_version, name
    if obj.get("metadata") is None:
        obj["metadata"] = {}


def check_name(obj: Object, namespace: str, name: str) -> None:
    """Hold an object's name and namespace against the path; absent ones are filled in.

    Raises:
        ApiError: 400.
    """
    meta = obj.setdefault("metadata", {})
    if (meta.setdefault("name", name) or name) != name:
        raise errors.bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
    if namespace and meta.setdefault("namespace", namespace) != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if not namespace:
        meta.pop("namespace", None)
    meta["name"] = name


def check_revision(kind: Kind, entry: Entry, meta: Object) -> None:
    """Hold the `resourceVersion` and `uid` that a writer read against the current ones.

    Raises:
        ApiError: 409 Conflict.
    """
    revision, uid = meta.get("resourceVersion"), meta.get("uid")
    if uid and uid != entry.obj["metadata"]["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {entry.obj['metadata']['uid']}"
        raise errors.conflict(kind, entry.name, why)
    if revision and revision != "0" and revision != str(entry.revision):
        raise errors.conflict(kind, entry.name)


def carry_over(new: Object, old: Object) -> None:
    """Take the metadata that no client may change from the current object."""
    meta, before = new["metadata"], old["metadata"]
    meta.pop("selfLink", None)
    for field in (
        "uid",
        "creationTimestamp",
        "generation",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ):
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
    if meta.get("managedFields") is None and "managedFields" in before:
        meta["managedFields"] = before["managedFields"]


def new_finalizers(meta: Object, before: Object) -> list[errors.Cause]:
    """Return what is wrong when an object that is being deleted gets more finalizers."""
    if not before.get("deletionTimestamp"):
        return []
    added = [each for each in meta.get("finalizers") or () if each not in (before.get("finalizers") or ())]
    if not added:
        return []
    names = ", ".join(f'"{each}"' for each in added)
    message = (
        "Forbidden: no new finalizers can be added if the object is being deleted, "
        f"found new finalizers []string{{{names}}}"
    )
    return [{"reason": "FieldValueForbidden", "message": message, "field": "metadata.finalizers"}]


def is_same(new: Object, old: Object) -> bool:
    """Whether an update changes nothing but the times in managedFields; such a one is not written."""
    if new.keys() != old.keys() or any(new[field] != old[field] for field in new if field != "metadata"):
        return False
    meta, before = new["metadata"], old["metadata"]
    if {**meta, "managedFields": None} != {**before, "managedFields": None}:
        return False
    return _owners(meta) == _owners(before)


def _owners(meta: Object) -> list[Object]:
    return [{**each, "time": None} for each in meta.get("managedFields") or ()]
