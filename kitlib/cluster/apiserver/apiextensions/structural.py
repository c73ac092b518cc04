"""What a structural schema does to a custom resource: unknown fields go, defaults come.

Stands for `apiextensions-apiserver/pkg/apiserver/schema` (`pruning`, `defaulting`). Left out: checks of the metadata of
embedded resources.
"""

from __future__ import annotations

from typing import Any

from kitlib.cluster.objects import Object, deep_copy

PRESERVE, EMBEDDED = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
_RESOURCE_FIELDS = ("apiVersion", "kind", "metadata")


def prune(value: Any, schema: Object, unknown: list[str], path: str = "", resource: bool = True) -> None:
    """Drop, in place, the fields that a schema does not specify.

    Args:
        value: A custom resource, or a part of one.
        schema: Its schema.
        unknown: Receives the path of each field that was dropped.
        path: Where the value stands.
        resource: Whether `apiVersion`, `kind` and `metadata` belong to the value whatever the schema says.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            prune(item, schema.get("items") or {}, unknown, f"{path}[{index}]", False)
    elif isinstance(value, dict):
        _prune_object(value, schema, unknown, path, resource or bool(schema.get(EMBEDDED)))


def _prune_object(value: Object, schema: Object, unknown: list[str], path: str, resource: bool) -> None:
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    for name in list(value):
        where = f"{path}.{name}".lstrip(".")
        if resource and name in _RESOURCE_FIELDS:
            continue
        if name in properties:
            prune(value[name], properties[name], unknown, where, False)
        elif isinstance(additional, dict):
            prune(value[name], additional, unknown, where, False)
        elif not additional and not schema.get(PRESERVE):
            del value[name]
            unknown.append(where)


def default(value: Any, schema: Object, root: bool = True) -> None:
    """Fill in, in place, the defaults of a schema; a null that is not allowed counts as absent."""
    if isinstance(value, list):
        items = schema.get("items") or {}
        for index, item in enumerate(value):
            if item is None and "default" in items and not items.get("nullable"):
                value[index] = deep_copy(items["default"])
            default(value[index], items, False)
    elif isinstance(value, dict):
        _default_object(value, schema, root)


def _default_object(value: Object, schema: Object, root: bool) -> None:
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    for name, inner in properties.items():
        if root and name in _RESOURCE_FIELDS:
            continue
        if value.get(name, "") is None and not inner.get("nullable"):
            del value[name]
        if name not in value and "default" in inner:
            value[name] = deep_copy(inner["default"])
    for name, item in value.items():
        found = properties.get(name, additional)
        if isinstance(found, dict) and not (root and name in _RESOURCE_FIELDS):
            default(item, found, False)
