"""A kind that a CustomResourceDefinition defines, in one of its versions.

Stands for the per-version `crdInfo` of apiextensions-apiserver's handler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import orjson

from kitlib.cluster.apiserver.registry import ALL_VERBS, Kind
from kitlib.cluster.objects import Object

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
"""The resource of the definitions themselves."""

_AGE: Object = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


@dataclass(frozen=True, eq=False)
class CustomKind(Kind):
    """One served version of a defined kind; a changed definition makes new ones.

    Attributes:
        schema: The version's structural schema, read-only.
        storage_version: The version in which its objects are stored.
        is_view: Whether stored objects may have another version or an older schema, so that reading converts them.
        stamp: Changes with the definition.
        list_name: Name of the kind's List.
        columns: `additionalPrinterColumns`, or the age.
        scale: The paths of the scale subresource, if there is one.
        selectable: Fields that a field selector may name.
        deprecation: Warning for whoever uses this version; empty for none.
        watches: What is called when the kind is no longer served, or served another way.
    """

    schema: Object = field(default_factory=dict)
    storage_version: str = ""
    is_view: bool = False
    stamp: str = ""
    list_name: str = ""
    columns: tuple[Object, ...] = ()
    scale: Object | None = None
    selectable: tuple[str, ...] = ()
    deprecation: str = ""
    watches: set[Callable[[], None]] = field(default_factory=set)

    # two kinds are never equal, for what is kept by kind must not outlive it
    __hash__ = object.__hash__

    @property
    def list_kind(self) -> str:
        """Name of the kind's List."""
        return self.list_name


def kinds_of(definition: Object) -> Iterator[CustomKind]:
    """Yield the kinds that a definition serves, under the names that it has been given."""
    meta, spec = definition["metadata"], definition["spec"]
    names = definition["status"]["acceptedNames"]
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        warning = (
            f"{spec['group']}/{version['name']} {names['kind']} is deprecated" if version.get("deprecated") else ""
        )
        yield CustomKind(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            singular=names["singular"],
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            verbs=ALL_VERBS,
            subresources=tuple(name for name in ("status", "scale") if name in subresources),
            model="",
            schema=(version.get("schema") or {}).get("openAPIV3Schema") or {},
            storage_version=storage,
            is_view=len(spec["versions"]) > 1 or meta.get("generation", 1) > 1,
            stamp=hashlib.sha256(orjson.dumps([meta["uid"], spec, names])).hexdigest(),
            list_name=names["listKind"],
            columns=tuple(version.get("additionalPrinterColumns") or (_AGE,)),
            scale=subresources.get("scale"),
            selectable=tuple(item["jsonPath"][1:] for item in version.get("selectableFields") or ()),
            deprecation=version.get("deprecationWarning", warning) if version.get("deprecated") else "",
        )
