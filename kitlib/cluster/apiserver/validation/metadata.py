"""Rules for the metadata of every object.

Stands for `ValidateObjectMeta` of apimachinery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.validation.fielderrors import (
    FieldErrors,
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


def check_metadata(found: FieldErrors, kind: Kind, meta: Object) -> None:
    """Check what every object has: names, labels, annotations, owners, finalizers."""
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
