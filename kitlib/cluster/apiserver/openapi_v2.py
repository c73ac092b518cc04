"""The OpenAPI v2 document, as much of it as old kubectls need, in gnostic's protobuf.

Stands for kube-apiserver's `/openapi/v2`. kubectl before 1.29 fetches it before every `apply` and is content with a
document without schemas; before 1.27 it also looks here for the `dryRun` parameter of a kind's PATCH, without which
`diff` and `--dry-run=server` are refused. Left out: everything else, so `explain` of kubectl before 1.27 finds nothing.
"""

from __future__ import annotations

from functools import cache

import orjson

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


@cache
def document() -> bytes:
    """Return the document."""
    info = _field(_INFO_TITLE, "Kubernetes") + _field(_INFO_VERSION, "v1")
    paths = b"".join(_field(_PATHS_PATH, _path(kind)) for kind in KINDS if "patch" in kind.verbs)
    head = _field(_DOCUMENT_SWAGGER, "2.0") + _field(_DOCUMENT_INFO, info)
    return head + _field(_DOCUMENT_PATHS, paths) + _field(_DOCUMENT_DEFINITIONS, b"")
