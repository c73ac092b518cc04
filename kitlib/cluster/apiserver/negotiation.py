"""Which format a client sends and which one it wants.

Stands for k8s.io/apiserver's content negotiation: JSON, YAML and (as input) protobuf; objects as they are, as
a Table that kubectl prints, or with their metadata alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from kitlib.cluster.apiserver import errors, protobuf, schema
from kitlib.cluster.apiserver.rest import APPLY_PATCH, PATCH_TYPES
from kitlib.cluster.objects import Object

PROTOBUF = "application/vnd.kubernetes.protobuf"
_JSON = ("application/json", "application/*", "*/*")
_YAML = ("application/yaml", "text/yaml", "application/x-yaml")
_TRANSFORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


class Accepted(NamedTuple):
    """What a client wants to read.

    Attributes:
        transform: `Table`, `PartialObjectMetadata`, `PartialObjectMetadataList`, or empty for objects as they are.
        yaml: Whether as YAML.
        group_version: Version of the Table, such as `meta.k8s.io/v1`.
    """

    transform: str = ""
    yaml: bool = False
    group_version: str = "meta.k8s.io/v1"


@lru_cache(maxsize=256)
def accepted(header: str) -> Accepted:
    """Return the first entry of an `Accept` header that this server can serve.

    Raises:
        ApiError: 406, there is none.
    """
    for part in header.split(",") if header.strip() else ("*/*",):
        media, *rest = (word.strip() for word in part.split(";"))
        parameters = dict(word.partition("=")[::2] for word in rest)
        transform = parameters.get("as", "")
        if transform and (transform not in _TRANSFORMS or parameters.get("v") not in ("v1", "v1beta1")):
            continue
        if media in _JSON or media in _YAML:
            return Accepted(transform, media in _YAML, f"meta.k8s.io/{parameters.get('v', 'v1')}")
    raise errors.not_acceptable()


def media_type(header: str) -> str:
    """Return a `Content-Type` without its parameters; JSON when there is none."""
    return header.partition(";")[0].strip().lower() or "application/json"


def encode(obj: Any, as_yaml: bool) -> bytes:
    """Return an object in the format that the client wants."""
    if not as_yaml:
        return orjson.dumps(obj)
    from kitlib.cluster.apiserver import yamlformat

    return yamlformat.encode(obj)


def decode_object(body: bytes, content_type: str, expected: str) -> Object:
    """Read a request's object.

    Args:
        body: The bytes.
        content_type: Media type without parameters.
        expected: Kind that the path names, for messages.

    Raises:
        ApiError: 400, it cannot be read or is no object; 415, the format is unknown.
    """
    readers: dict[str, Callable[[bytes], Any]] = {"application/json": orjson.loads, PROTOBUF: protobuf.decode}
    readers.update(dict.fromkeys(_YAML, load_yaml))
    reader = readers.get(content_type)
    if reader is None:
        raise errors.unsupported_media_type()
    found = _read(reader, body, expected)
    if not isinstance(found, dict):
        raise errors.bad_request(f"couldn't get version/kind; json parse error: the body is no {expected} object")
    return found


def decode_patch(body: bytes, content_type: str) -> Any:
    """Read a patch.

    Raises:
        ApiError: 400, it cannot be read; 415, no such kind of patch.
    """
    if content_type not in PATCH_TYPES:
        raise errors.unsupported_media_type(", ".join(PATCH_TYPES))
    if content_type != APPLY_PATCH:
        return _read(orjson.loads, body, "patch")
    found = _read(load_yaml, body, "apply configuration")
    if not isinstance(found, dict):
        raise errors.bad_request("error decoding YAML: the apply configuration is no object")
    return found


def _read(reader: Callable[[bytes], Any], body: bytes, expected: str) -> Any:
    try:
        found = reader(body)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        text = " ".join(str(error).split())[:300]
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {expected}): "
            f"couldn't get version/kind; json parse error: {text}"
        ) from error
    if isinstance(found, (dict, list)) and schema.too_deep(found):
        raise errors.bad_request(f"json: exceeded max depth of {schema.MAX_DEPTH}")
    return found


def load_yaml(body: bytes) -> Any:
    """Read YAML, or JSON, which it contains.

    Raises:
        ValueError: It is neither.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        from kitlib.cluster.apiserver import yamlformat  # hardly any client sends it

        return yamlformat.decode(body)
