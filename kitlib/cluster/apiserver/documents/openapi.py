"""OpenAPI documents: what `kubectl explain` shows and by what `kubectl apply` sees which parameters the server knows.

Stands for kube-apiserver's `/openapi/v3`. Documents are made of the models of the official client, one per group and
version, when asked for. Left out: responses and parameters that no client of the kit reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.metadata import version

import orjson

from kitlib.cluster.apiserver import models
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.models import SCALARS, Field, Type
from kitlib.cluster.apiserver.registry import KINDS, Kind
from kitlib.cluster.config import KUBERNETES_VERSION
from kitlib.cluster.objects import Object

_META = frozenset(
    "Condition DeleteOptions FieldSelectorRequirement LabelSelector LabelSelectorRequirement ListMeta"
    " ManagedFieldsEntry ObjectMeta OwnerReference Preconditions Status StatusCause StatusDetails".split()
)
_APIMACHINERY = "io.k8s.apimachinery.pkg"
_INT_OR_STRING, _QUANTITY = f"{_APIMACHINERY}.util.intstr.IntOrString", f"{_APIMACHINERY}.api.resource.Quantity"
_TIME, _MICRO_TIME = f"{_APIMACHINERY}.apis.meta.v1.Time", f"{_APIMACHINERY}.apis.meta.v1.MicroTime"

_INT_OR_STRING_TEXT = "IntOrString is a type that can hold an int32 or a string."
_QUANTITY_TEXT = "Quantity is a fixed-point representation of a number, such as 100m, 1.5 or 1Gi."
_NAMED: dict[str, Object] = {
    _INT_OR_STRING: {
        "description": _INT_OR_STRING_TEXT,
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
    _QUANTITY: {"description": _QUANTITY_TEXT, "oneOf": [{"type": "string"}, {"type": "number"}]},
    _TIME: {"description": "Time in RFC 3339.", "type": "string", "format": "date-time"},
    _MICRO_TIME: {"description": "Time in RFC 3339 with microseconds.", "type": "string", "format": "date-time"},
}
_SCALAR_SCHEMAS: dict[str, Object] = {
    "string": {"type": "string"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "float": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "any": {"type": "object"},
}
_SCALAR_REFERENCES = {"time": _TIME, "micro-time": _MICRO_TIME, "quantity": _QUANTITY, "int-or-string": _INT_OR_STRING}


@lru_cache(maxsize=2)
def _groups(custom: tuple[CustomKind, ...]) -> dict[str, list[Kind]]:
    found: dict[str, list[Kind]] = {}
    for kind in (*KINDS, *custom):
        found.setdefault(f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}", []).append(kind)
    return found


@cache
def _etag(group_version: str, *stamps: str) -> str:
    text = f"{group_version} {KUBERNETES_VERSION} {version('kubernetes')} {' '.join(stamps)}"
    return hashlib.sha256(text.encode()).hexdigest().upper()


def v3_index(custom: tuple[CustomKind, ...] = ()) -> Object:
    """Return the index of `/openapi/v3`: a URL per group and version, with a hash that changes with the document."""
    paths = {}
    for name, kinds in _groups(custom).items():
        tag = _etag(name, *(kind.stamp for kind in kinds if isinstance(kind, CustomKind)))
        paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={tag}"}
    return {"paths": paths}


@lru_cache(maxsize=4)
def v3_document(group_version: str, custom: tuple[CustomKind, ...] = ()) -> bytes | None:
    """Return the OpenAPI v3 document of one group and version.

    Args:
        group_version: As in the index: `api/v1`, `apis/apps/v1`.
        custom: What CustomResourceDefinitions define.

    Returns:
        The document as JSON, or None when nothing of that name is served.
    """
    kinds = _groups(custom).get(group_version)
    if kinds is None:
        return None
    schemas: Object = {}
    for kind in kinds:
        if isinstance(kind, CustomKind):
            _add_custom(schemas, kind)
        else:
            _add_model(schemas, kind.model, kind)
    paths = {path: item for kind in kinds for path, item in _paths(group_version, kind)}
    head = {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION}}
    return orjson.dumps({**head, "paths": paths, "components": {"schemas": {**_NAMED, **schemas}}})


@cache
def _core_models() -> frozenset[str]:
    """Return the names of every model that the core group's kinds are made of."""
    found: set[str] = set()
    pending = [kind.model for kind in KINDS if not kind.group]
    while pending:
        name = pending.pop()
        model = models.load(name) if name not in found else None
        found.add(name)
        pending += [kind for field in model.fields.values() for kind in _models_in(field.type)] if model else []
    return frozenset(found)


def _models_in(kind: Type) -> Iterator[str]:
    while isinstance(kind, tuple):
        kind = kind[1]
    if kind not in SCALARS:
        yield kind


def _schema_name(model: str, kind: Kind) -> str:
    short = models.short_name(model)
    if short in _META:
        return f"{_APIMACHINERY}.apis.meta.v1.{short}"
    if isinstance(kind, CustomKind):
        return f"{'.'.join(reversed(kind.group.split('.')))}.{kind.version}.{kind.kind}"
    group = "core" if model in _core_models() or not kind.group else kind.group.partition(".")[0]
    return f"io.k8s.api.{group}.{kind.version}.{short}"


def _add_model(schemas: Object, name: str, kind: Kind) -> None:
    """Add the schema of a model and of every model that it refers to."""
    key, model = _schema_name(name, kind), models.load(name)
    if key in schemas:
        return
    if model is None:
        schemas[key] = {"type": "object"}
        return
    own, texts = models.descriptions(name)
    schema: Object = {"type": "object"}
    schemas[key] = schema
    if name == kind.model:
        schema["description"] = own
    schema["properties"] = {
        field.name: _property(field, texts.get(field.name, ""), kind) for field in model.fields.values()
    }
    if model.short == "JSONSchemaProps":  # a default, for one, may be any JSON
        for found in schema["properties"].values():
            _drop_any(found)
    required = [field.name for field in model.fields.values() if field.required]
    if required:
        schema["required"] = required
    if name == kind.model:
        identity = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        schema["x-kubernetes-group-version-kind"] = [identity]
    for field in model.fields.values():
        for inner in _models_in(field.type):
            _add_model(schemas, inner, kind)


_TYPE_FIELDS = ("apiVersion", "kind")


def _add_custom(schemas: Object, kind: CustomKind) -> None:
    """Add the schema of a custom resource, with the fields that every object has."""
    _add_model(schemas, "V1ObjectMeta", kind)
    texts = models.descriptions("V1Pod")[1]
    common: Object = {name: {"type": "string", "description": texts.get(name, "")} for name in _TYPE_FIELDS}
    metadata = {"$ref": f"#/components/schemas/{_schema_name('V1ObjectMeta', kind)}"}
    common["metadata"] = {"allOf": [metadata], "description": texts.get("metadata", "")}
    identity = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    schemas[_schema_name("", kind)] = {
        **kind.schema,
        "properties": {**common, **(kind.schema.get("properties") or {}), "metadata": common["metadata"]},
        "x-kubernetes-group-version-kind": [identity],
    }


def _drop_any(schema: Object) -> None:
    inner = schema.get("items", schema)
    if inner.get("type") == "object" and len(inner.keys() - {"description"}) == 1:
        del inner["type"]


def _property(field: Field, text: str, kind: Kind) -> Object:
    """Return the schema of one field; the client describes a field that holds a model at the model alone."""
    schema = _type_schema(field.type, kind)
    text = text or next((models.descriptions(name)[0] for name in _models_in(field.type)), "")
    if "$ref" in schema:
        schema = {"allOf": [schema], "default": {}}
    if text:
        schema["description"] = text
    if field.merge_key:
        schema["x-kubernetes-patch-merge-key"] = field.merge_key
    if field.merge_key or field.set or field.retain_keys:
        parts = ["merge"] * bool(field.merge_key or field.set) + ["retainKeys"] * field.retain_keys
        schema["x-kubernetes-patch-strategy"] = ",".join(parts)
    if field.type[0] == "list":
        schema["x-kubernetes-list-type"] = _list_type(field)
    if any(field.map_keys):
        schema["x-kubernetes-list-map-keys"] = list(field.map_keys)
    return schema


def _list_type(field: Field) -> str:
    if not field.map_keys:
        return "atomic"
    return "map" if any(field.map_keys) else "set"


def _type_schema(kind: Type, owner: Kind) -> Object:
    if isinstance(kind, tuple):
        inner = _type_schema(kind[1], owner)
        if "$ref" in inner:
            inner = {"allOf": [inner], "default": {}}
        if kind[0] == "list":
            return {"type": "array", "items": inner}
        return {"type": "object", "additionalProperties": inner}
    if kind in _SCALAR_SCHEMAS:
        return dict(_SCALAR_SCHEMAS[kind])
    return {"$ref": f"#/components/schemas/{_SCALAR_REFERENCES.get(kind) or _schema_name(kind, owner)}"}


_METHODS = {"create": "post", "list": "get", "get": "get", "update": "put", "patch": "patch", "delete": "delete"}
_QUERY = ("dryRun", "fieldManager", "fieldValidation")


def _paths(group_version: str, kind: Kind) -> Iterator[tuple[str, Object]]:
    """Yield the paths of a kind with their operations."""
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    collection = f"/{group_version}{scope}/{kind.plural}"
    yield collection, _operations(kind, ("list", "create"))
    if kind.namespaced:
        yield f"/{group_version}/{kind.plural}", _operations(kind, ("list",))
    if kind.stored:
        yield f"{collection}/{{name}}", _operations(kind, ("get", "update", "patch", "delete"))


def _operations(kind: Kind, verbs: tuple[str, ...]) -> Object:
    identity = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    reference = {"$ref": f"#/components/schemas/{_schema_name(kind.model, kind)}"}
    content = {"application/json": {"schema": reference}}
    operations: Object = {}
    for verb in verbs:
        if verb not in kind.verbs:
            continue
        operation: Object = {
            "operationId": f"{verb}{kind.group.partition('.')[0].title()}{kind.version.title()}{kind.kind}",
            "x-kubernetes-action": {"create": "post", "update": "put"}.get(verb, verb),
            "x-kubernetes-group-version-kind": identity,
            "responses": {"200": {"description": "OK", "content": content}},
        }
        if verb in ("create", "update", "patch"):
            string = {"type": "string", "uniqueItems": True}
            operation["parameters"] = [{"name": name, "in": "query", "schema": string} for name in _QUERY]
        operations[_METHODS[verb]] = operation
    return operations
