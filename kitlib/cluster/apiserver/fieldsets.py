"""Sets of fields in the form of `managedFields`, and how two states of an object differ.

Stands for the structured-merge-diff library. A set is the JSON of FieldsV1: `{"f:spec": {"f:replicas": {}}}`; `f:` is a
field, `k:` an item of an associative list, `v:` a member of a set, `.` the node itself beside its children.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from kitlib.cluster.apiserver import models
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.models import SCALARS, Field, Type
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.objects import Object

Path = tuple[str, ...]
"""Such as `("f:spec", "f:replicas")`."""

_DEFAULT_KEYS = {"protocol": "TCP"}
_UNTRACKED = frozenset(
    "name namespace creationTimestamp selfLink uid generation managedFields resourceVersion deletionTimestamp"
    " deletionGracePeriodSeconds".split()
)


class Shape:
    """What a value is made of: a struct, a map, an associative list, a set, or one atom.

    Attributes:
        fields: Of a struct, by JSON name.
        item: Type of the values of a map or list.
        keys: Of an associative list; `("",)` for a set.
    """

    __slots__ = ("_children", "fields", "item", "keys")

    def __init__(self, kind: Type, field: Field | None) -> None:
        """Work out the shape of a value of this type in this field."""
        self._children: dict[str, Shape] = {}
        self.fields: dict[str, Any] | None = None
        self.item: Any = None
        self.keys: tuple[str, ...] = ()
        if field is not None and field.atomic:
            return
        if isinstance(kind, tuple):
            self.item = kind[1]
            self.keys = field.map_keys if field is not None and kind[0] == "list" else ()
        elif kind not in SCALARS:
            model = models.load(kind)
            self.fields = model.fields if model is not None else None

    def child(self, name: str) -> Shape:
        """Return the shape of a field of a struct or of a value of a map or list."""
        name = name if self.fields is not None else ""
        found = self._children.get(name)
        if found is None:
            found = self._child(name)
            if found is not _ATOM:
                self._children[name] = found
        return found

    def _child(self, name: str) -> Shape:
        if self.fields is not None:
            field = self.fields.get(name)
            return Shape(field.type, field) if field is not None else _ATOM
        return Shape(self.item, None) if self.item is not None else _ATOM

    def is_object(self, value: Any) -> bool:
        """Whether a value is tracked field by field."""
        return isinstance(value, dict) and (self.fields is not None or self.item is not None)

    def is_list(self, value: Any) -> bool:
        """Whether a value is tracked item by item."""
        return isinstance(value, list) and bool(self.keys)

    def key(self, item: Any) -> str:
        """Return how FieldsV1 names an item of a list."""
        if self.keys == ("",):
            return "v:" + orjson.dumps(item).decode()
        if len(self.keys) == 1:
            value = item.get(self.keys[0])
            if type(value) is str and value.isalnum():
                return f'k:{{"{self.keys[0]}":"{value}"}}'
        found = {key: item.get(key, _DEFAULT_KEYS.get(key)) for key in sorted(self.keys)}
        return "k:" + orjson.dumps({key: value for key, value in found.items() if value is not None}).decode()


_ATOM = Shape("any", None)
_DEDUCED: Object = {"x-kubernetes-preserve-unknown-fields": True}
"""The schema of a value of which nothing is known: its objects are owned field by field, its lists as a whole."""


class StructuralShape(Shape):
    """The shape of a value that the structural schema of a custom resource describes."""

    __slots__ = ()

    def __init__(self, schema: Object, resource: bool = False) -> None:
        """Work out which parts are owned by themselves; `resource` is a whole object, with metadata."""
        super().__init__("any", None)
        if schema.get("x-kubernetes-map-type") == "atomic":
            return
        kind, properties = schema.get("x-kubernetes-list-type"), schema.get("properties") or {}
        self.keys = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if kind == "map" else ("",) * (kind == "set")
        if properties or resource:
            self.fields = properties
        else:
            self.item = schema.get("items") or schema.get("additionalProperties")
        if resource:
            self._children = {"metadata": Shape("V1ObjectMeta", None)}
        elif self.fields is None and (self.item is True or schema.get("x-kubernetes-preserve-unknown-fields")):
            self.item = _DEDUCED

    def is_list(self, value: Any) -> bool:
        """Whether a value is tracked item by item; what is applied has not been validated yet."""
        return super().is_list(value) and (self.keys == ("",) or all(isinstance(item, dict) for item in value))

    def _child(self, name: str) -> Shape:
        found = self.item if self.fields is None else self.fields.get(name, _DEDUCED)
        return StructuralShape(found) if found else _ATOM


@cache
def _root(model: str) -> Shape:
    return Shape(model, None)


_CUSTOM: WeakKeyDictionary[CustomKind, Shape] = WeakKeyDictionary()


def _custom_root(kind: CustomKind) -> Shape:
    found = _CUSTOM.get(kind)
    if found is None:
        found = _CUSTOM[kind] = StructuralShape(kind.schema, resource=True)
    return found


def root(kind: Kind) -> Shape:
    """Return the shape of an object of a kind."""
    return _custom_root(kind) if isinstance(kind, CustomKind) else _root(kind.model)


def is_set(value: Any) -> bool:
    """Whether a JSON value is a set: objects all the way down."""
    return isinstance(value, dict) and all(is_set(inner) for inner in value.values())


def _named(value: Any, shape: Shape) -> dict[str, tuple[Any, Shape]]:
    """Return the children of a tracked value by their names in FieldsV1."""
    if isinstance(value, dict):
        return {f"f:{name}": (item, shape.child(name)) for name, item in value.items()}
    inner = _ATOM if shape.keys == ("",) else shape.child("")
    return {shape.key(item): (item, inner) for item in value}


def _tracked(value: Any, shape: Shape) -> bool:
    return bool(value) and (shape.is_object(value) or shape.is_list(value))


def _collect(value: Any, shape: Shape) -> Object:
    if not _tracked(value, shape):
        return {}
    if isinstance(value, dict):
        return {
            f"f:{name}": _collect(item, shape.child(name)) if isinstance(item, (dict, list)) else {}
            for name, item in value.items()
        }
    inner = _ATOM if shape.keys == ("",) else shape.child("")
    return {shape.key(item): {".": {}, **fields} if (fields := _collect(item, inner)) else {} for item in value}


def _stripped(obj: Object, subresource: str) -> Object:
    """Return the part of an object whose owners are kept."""
    meta = {name: value for name, value in obj["metadata"].items() if name not in _UNTRACKED}
    skipped = {"apiVersion", "kind", "metadata"} | ({"status"} if not subresource else set())
    rest = {name: value for name, value in obj.items() if name not in skipped}
    return {**({"metadata": meta} if meta else {}), **rest}


def fields_of(kind: Kind, obj: Object, subresource: str = "") -> Object:
    """Return the set of all fields that an object has."""
    found = _collect(_stripped(obj, subresource or _owns_all(kind)), root(kind))
    return {name: value for name, value in found.items() if value}


def _owns_all(kind: Kind) -> str:
    return "" if "status" in kind.subresources else "all"


def difference(kind: Kind, old: Object, new: Object, subresource: str = "") -> tuple[list[Path], list[Path]]:
    """Return the fields that are new or changed, and those that are gone."""
    changed: list[Path] = []
    removed: list[Path] = []
    before, after = (_stripped(obj, subresource or _owns_all(kind)) for obj in (old, new))
    if before != after:
        _compare(before, after, root(kind), (), changed, removed)
    return changed, removed


def _compare(old: Any, new: Any, shape: Shape, path: Path, changed: list[Path], removed: list[Path]) -> None:
    if not (_tracked(old, shape) and _tracked(new, shape)):
        changed.extend(paths(_collect(new, shape), path))
        return
    before, after = _named(old, shape), _named(new, shape)
    removed.extend((*path, name) for name in before if name not in after)
    for name, (value, inner) in after.items():
        if name not in before:
            leaves = list(paths(_collect(value, inner), (*path, name)))
            changed.extend(leaves if name[0] != "k" else [(*path, name), *leaves])
        elif before[name][0] != value:
            _compare(before[name][0], value, inner, (*path, name), changed, removed)


def paths(fields: Object, prefix: Path = ()) -> Iterator[Path]:
    """Yield the members of a set below a prefix; an empty set is the prefix itself."""
    if not fields and prefix:
        yield prefix
    for name, inner in fields.items():
        if name == ".":
            yield prefix
        else:
            yield from paths(inner, (*prefix, name))


def node(fields: Object, path: Path) -> Object | None:
    """Return what a set holds at and below a path, None for nothing."""
    found: Object | None = fields
    for name in path:
        found = found.get(name) if found is not None else None
        if found is None:
            return None
    return found


def has(fields: Object, path: Path) -> bool:
    """Whether a path is a member of a set."""
    found = node(fields, path)
    return found is not None and (not found or "." in found)


def insert(fields: Object, path: Path) -> None:
    """Add a member to a set, in place."""
    at = fields
    for depth, name in enumerate(path):
        inner = at.get(name)
        if inner is None:
            inner = at[name] = {}
        elif not inner and depth < len(path) - 1:
            inner["."] = {}
        at = inner
    if at:
        at["."] = {}


def discard(fields: Object, path: Path, below: bool = False) -> None:
    """Remove a member from a set, in place, with `below` also everything under it."""
    if len(path) > 1:
        inner = fields.get(path[0])
        if inner:
            discard(inner, path[1:], below)
            if not inner:
                del fields[path[0]]
        return
    found = fields.get(path[0])
    if found is None:
        return
    found.pop(".", None)
    if below or not found:
        del fields[path[0]]


def path_text(path: Path) -> str:
    """Return a path as messages show it, such as `.spec.template.spec.containers[name="web"].image`."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            keys = orjson.loads(step[2:])
            text += "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in keys.items()) + "]"
        else:
            text += f"[{step[2:]}]"
    return text
