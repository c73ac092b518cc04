"""The OpenAPI v2 document, as much of it as old kubectls need, in gnostic's protobuf.

Stands for kube-apiserver's `/openapi/v2`. kubectl before 1.29 fetches it before every `apply`; before 1.27 it checks
manifests and explains fields by the definitions here, and looks for the `dryRun` parameter of a kind's PATCH, without
which `diff` and `--dry-run=server` are refused. The definitions are those of the v3 documents. Left out: other paths.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

import orjson

from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.documents import openapi
from kitlib.cluster.apiserver.registry import KINDS, Kind

_DOCUMENT_SWAGGER, _DOCUMENT_INFO, _DOCUMENT_PATHS, _DOCUMENT_DEFINITIONS = 1, 2, 8, 9
_INFO_TITLE, _INFO_VERSION = 1, 2
_PATHS_PATH = 2
_NAMED_NAME, _NAMED_VALUE = 1, 2
_PATH_ITEM_PATCH = 8
_OPERATION_PARAMETERS, _OPERATION_EXTENSION = 8, 13
_PARAMETERS_ITEM_PARAMETER, _PARAMETER_NON_BODY, _NON_BODY_QUERY = 1, 2, 3
_QUERY_IN, _QUERY_NAME, _QUERY_TYPE = 2, 4, 6
_ANY_YAML = 2
_DEFINITIONS_NAMED = 1
_SCHEMA_REF, _SCHEMA_FORMAT, _SCHEMA_DESCRIPTION, _SCHEMA_REQUIRED = 1, 2, 4, 19
_SCHEMA_ADDITIONAL, _SCHEMA_TYPE, _SCHEMA_ITEMS, _SCHEMA_PROPERTIES, _SCHEMA_EXTENSION = 21, 22, 23, 25, 31
_ITEM_VALUE = 1
_V3_PREFIX, _V2_PREFIX = "#/components/schemas/", "#/definitions/"


def _field(number: int, content: bytes | str) -> bytes:
    """Return a length-delimited field of a protobuf message."""
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _named(name: str, value: bytes) -> bytes:
    return _field(_NAMED_NAME, name) + _field(_NAMED_VALUE, value)


def _query_parameter(name: str) -> bytes:
    query = _field(_QUERY_IN, "query") + _field(_QUERY_NAME, name) + _field(_QUERY_TYPE, "string")
    parameter = _field(_PARAMETER_NON_BODY, _field(_NON_BODY_QUERY, query))
    return _field(_OPERATION_PARAMETERS, _field(_PARAMETERS_ITEM_PARAMETER, parameter))


def _path(kind: Kind) -> bytes:
    """Return the path of one object of a kind, with its PATCH."""
    prefix = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    identity = orjson.dumps({"group": kind.group, "kind": kind.kind, "version": kind.version}).decode()
    extension = _named("x-kubernetes-group-version-kind", _field(_ANY_YAML, identity))
    patch = _query_parameter("dryRun") + _field(_OPERATION_EXTENSION, extension)
    return _named(f"{prefix}{scope}/{kind.plural}/{{name}}", _field(_PATH_ITEM_PATCH, patch))


def _schema(v3: dict[str, Any]) -> bytes:
    """Return a schema of the v3 documents as gnostic's message, without what old kubectls misread."""
    if v3.get("nullable"):
        return _text(_SCHEMA_DESCRIPTION, v3.get("description"))
    if v3.get("x-kubernetes-preserve-unknown-fields"):
        v3 = {name: value for name, value in v3.items() if name not in ("properties", "items")}
    reference = v3.get("$ref") or next((part["$ref"] for part in v3.get("allOf", []) if "$ref" in part), None)
    message = _text(_SCHEMA_DESCRIPTION, v3.get("description"))
    if reference:
        return _text(_SCHEMA_REF, reference.replace(_V3_PREFIX, _V2_PREFIX)) + message
    kind = "string" if "oneOf" in v3 else v3.get("type")  # a quantity, or a number or string
    message += _text(_SCHEMA_FORMAT, v3.get("format"))
    message += b"".join(_text(_SCHEMA_REQUIRED, name) for name in v3.get("required", []))
    if isinstance(v3.get("additionalProperties"), dict):
        message += _field(_SCHEMA_ADDITIONAL, _field(_ITEM_VALUE, _schema(v3["additionalProperties"])))
    if kind:
        message += _field(_SCHEMA_TYPE, _field(_ITEM_VALUE, kind))
    if "items" in v3:
        message += _field(_SCHEMA_ITEMS, _field(_ITEM_VALUE, _schema(v3["items"])))
    if "properties" in v3:
        named = [_field(_DEFINITIONS_NAMED, _named(name, _schema(one))) for name, one in v3["properties"].items()]
        message += _field(_SCHEMA_PROPERTIES, b"".join(named))
    for name in sorted(name for name in v3 if name.startswith("x-")):
        value = v3[name] if isinstance(v3[name], str) else orjson.dumps(v3[name]).decode()
        message += _field(_SCHEMA_EXTENSION, _named(name, _field(_ANY_YAML, value)))
    return message


def _text(number: int, text: str | None) -> bytes:
    return _field(number, text) if text else b""


def _definitions(group_versions: Iterable[str], custom: tuple[CustomKind, ...] = ()) -> bytes:
    """Return the schemas of some groups; where two share a name, the one that is a kind of its own."""
    schemas: dict[str, Any] = {}
    for group_version in group_versions:
        document = orjson.loads(openapi.v3_document(group_version, custom) or b"{}")
        for name, schema in document["components"]["schemas"].items():
            if name not in schemas or "x-kubernetes-group-version-kind" in schema:
                schemas[name] = schema
    return b"".join(_field(_DEFINITIONS_NAMED, _named(name, _schema(one))) for name, one in sorted(schemas.items()))


def _paths(kinds: Iterable[Kind]) -> bytes:
    return _field(
        _DOCUMENT_PATHS, b"".join(_field(_PATHS_PATH, _path(kind)) for kind in kinds if "patch" in kind.verbs)
    )


@cache
def _own() -> bytes:
    info = _field(_INFO_TITLE, "Kubernetes") + _field(_INFO_VERSION, "v1")
    head = _field(_DOCUMENT_SWAGGER, "2.0") + _field(_DOCUMENT_INFO, info)
    return head + _paths(KINDS) + _field(_DOCUMENT_DEFINITIONS, _definitions(openapi.v3_index()["paths"]))


@lru_cache(maxsize=2)
def document(custom: tuple[CustomKind, ...] = ()) -> bytes:
    """Return the document; what it says of custom resources follows, for parts of a protobuf message add up."""
    if not custom:
        return _own()
    groups = dict.fromkeys(f"apis/{kind.api_version}" for kind in custom)
    return _own() + _paths(custom) + _field(_DOCUMENT_DEFINITIONS, _definitions(groups, custom))
