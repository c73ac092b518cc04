"""Which format a client sends and which one it wants.

Stands for k8s.io/apiserver's content negotiation: JSON, YAML and (as input) protobuf; objects as they are, as
a Table that kubectl prints, or with their metadata alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import yaml

from kitlib.cluster.apiserver import errors, protobuf, schema
from kitlib.cluster.apiserver.rest import APPLY_PATCH, PATCH_TYPES
from kitlib.cluster.objects import Object

MAX_YAML_EVENTS = 200_000
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
    text: str = yaml.safe_dump(obj, default_flow_style=False, sort_keys=False, allow_unicode=True)
    return text.encode()


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
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())[:300]
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {expected}): "
            f"couldn't get version/kind; json parse error: {text}"
        ) from error
    if isinstance(found, (dict, list)) and schema.too_deep(found):
        raise errors.bad_request(f"json: exceeded max depth of {schema.MAX_DEPTH}")
    return found


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: times stay text."""


_TAG = "tag:yaml.org,2002:"
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


def _number(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> Any:
    """Read a number; `1:30` is none (base 60 is YAML 1.1's alone, and a long one would never end)."""
    if _BASE_60.fullmatch(node.value):
        return node.value
    return loader.construct_yaml_int(node) if node.tag == f"{_TAG}int" else loader.construct_yaml_float(node)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
for _name in ("int", "float"):
    _Loader.add_constructor(f"{_TAG}{_name}", _number)


def load_yaml(body: bytes) -> Any:
    """Read YAML, or JSON, which it contains.

    Raises:
        ValueError: It is neither.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    _check_yaml(body)
    return orjson.loads(orjson.dumps(yaml.load(body, Loader=_Loader), option=orjson.OPT_NON_STR_KEYS))


def _check_yaml(body: bytes) -> None:
    """Refuse, before it is built, what costs too much: aliases, which can unfold without end, depth, and length."""
    depth = 0
    for count, event in enumerate(yaml.parse(body, Loader=_Loader)):
        if count > MAX_YAML_EVENTS:
            raise ValueError(f"yaml: more than {MAX_YAML_EVENTS} tokens; send an object of this size as JSON")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("yaml: aliases are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > schema.MAX_DEPTH:
            raise ValueError(f"yaml: exceeded max depth of {schema.MAX_DEPTH}")
