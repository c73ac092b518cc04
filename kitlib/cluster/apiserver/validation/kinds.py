"""Validation: which objects, and which changes of objects, the API server refuses with 422.

Stands for the `Validate*` functions of kube-apiserver, in its words and order, for what learners meet. Types and
unknown fields are `schema.py`'s. Left out: rules of alpha fields, warnings, and CEL.
"""

from __future__ import annotations

from kitlib.cluster.apiserver.apiextensions import definitions
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.apiextensions.schemavalidation import validate
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.validation import objects, pod, workloads
from kitlib.cluster.apiserver.validation.fielderrors import (
    Cause,
    Checks,
    FieldErrors,
    UpdateChecks,
)
from kitlib.cluster.apiserver.validation.metadata import check_metadata
from kitlib.cluster.objects import Object

_CREATE: Checks = {**pod.CREATE, **workloads.CREATE, **objects.CREATE, "CustomResourceDefinition": definitions.check}
_UPDATE: UpdateChecks = {
    **pod.UPDATE,
    **workloads.UPDATE,
    **objects.UPDATE,
    "CustomResourceDefinition": definitions.check_update,
}


def validate_create(kind: Kind, obj: Object) -> list[Cause]:
    """Return what is wrong with a new object.

    Args:
        kind: Kind of the object.
        obj: The object after decoding, defaults and admission.

    Returns:
        Causes `{reason, message, field}` for `errors.invalid`; empty for a valid object.
    """
    found = FieldErrors()
    if isinstance(kind, CustomKind):
        check_metadata(found, kind, obj["metadata"])
        validate(found, kind.schema, obj)
        return found
    if kind.kind == "Event":
        if not kind.group:
            objects.check_event(found, obj)
        return found
    check_metadata(found, kind, obj["metadata"])
    check = _CREATE.get(kind.kind)
    if check is not None:
        check(found, obj)
    if kind.kind == "Pod" and obj["spec"].get("ephemeralContainers"):
        found.forbidden("spec.ephemeralContainers", "cannot be set on create")
    return found


def validate_update(kind: Kind, new: Object, old: Object) -> list[Cause]:
    """Return what is wrong with an object's next state.

    Args:
        kind: Kind of the object.
        new: The next state, with its defaults.
        old: The stored state.

    Returns:
        Causes, as `validate_create`.
    """
    found = FieldErrors()
    if kind.kind == "Event" and not isinstance(kind, CustomKind):
        return found
    if new["metadata"] != old["metadata"]:
        check_metadata(found, kind, new["metadata"])
    if isinstance(kind, CustomKind):
        validate(found, kind.schema, new, old=old)
        return found
    if all(new.get(name) == old.get(name) for name in {*new, *old} - {"metadata", "status"}):
        return found
    create, update = _CREATE.get(kind.kind), _UPDATE.get(kind.kind)
    if create is not None:
        create(found, new)
    if update is not None:
        update(found, new, old)
    return found
