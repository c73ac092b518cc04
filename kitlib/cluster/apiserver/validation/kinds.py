"""Validation: which objects, and which changes of objects, the API server refuses with 422.

Stands for the `Validate*` functions of kube-apiserver, in its words and order, for what learners meet. Types and
unknown fields are `schema.py`'s. Left out: rules of alpha fields, warnings, and CEL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
    check_annotations,
    check_labels,
    dns_1035_label,
    dns_label,
    dns_subdomain,
    path_segment,
    qualified_name,
)
from kitlib.cluster.objects import Object

_RBAC = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
_NAMES: dict[str, Callable[[str], Iterator[str]]] = {
    **dict.fromkeys(_RBAC, path_segment),
    "APIService": path_segment,
    "Namespace": dns_label,
    "Service": dns_1035_label,
}


def _check_metadata(found: FieldErrors, kind: Kind, meta: Object) -> None:
    check_name = dns_subdomain if isinstance(kind, CustomKind) else _NAMES.get(kind.kind, dns_subdomain)
    prefix, name = meta.get("generateName"), meta.get("name")
    if prefix:
        shown = prefix[:-1] + "a" if prefix.endswith("-") else prefix
        found.each("metadata.generateName", prefix, check_name(shown))
    if not name:
        found.required("metadata.name", "name or generateName is required")
    elif not prefix or not name.startswith(prefix[:58]):
        found.each("metadata.name", name, check_name(name))
    check_labels(found, meta.get("labels"), "metadata.labels")
    check_annotations(found, meta.get("annotations"), "metadata.annotations")
    _check_owners(found, meta)
    for finalizer in meta.get("finalizers") or ():
        found.each("metadata.finalizers", finalizer, qualified_name(finalizer))


def _check_owners(found: FieldErrors, meta: Object) -> None:
    owners = meta.get("ownerReferences") or ()
    for index, owner in enumerate(owners):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                text = "version must not be empty" if name == "apiVersion" else "must not be empty"
                found.invalid(f"metadata.ownerReferences[{index}].{name}", "", text)
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        names = [f"{owner.get('kind')}/{owner.get('name')}" for owner in controllers]
        both = f"{names[0]} and {names[1]}"
        text = f'Only one reference can have Controller set to true. Found "true" in references for {both}'
        found.invalid("metadata.ownerReferences", list(owners), text)


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
        _check_metadata(found, kind, obj["metadata"])
        validate(found, kind.schema, obj)
        return found
    if kind.kind == "Event":
        if not kind.group:
            objects.check_event(found, obj)
        return found
    _check_metadata(found, kind, obj["metadata"])
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
        _check_metadata(found, kind, new["metadata"])
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
