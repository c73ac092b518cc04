"""YAML as Kubernetes reads and writes it."""

from __future__ import annotations

import re
from typing import Any

import orjson
import yaml

from kitlib.cluster.apiserver import schema

MAX_EVENTS = 200_000
_TAG = "tag:yaml.org,2002:"
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class _Loader(yaml.CSafeLoader):
    """Times stay text."""


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


def encode(obj: Any) -> bytes:
    """Return an object as YAML."""
    text: str = yaml.safe_dump(obj, default_flow_style=False, sort_keys=False, allow_unicode=True)
    return text.encode()


def decode(body: bytes) -> Any:
    """Read YAML.

    Raises:
        ValueError: It is none, or more than a server should build.
    """
    try:
        _check(body)
        return orjson.loads(orjson.dumps(yaml.load(body, Loader=_Loader), option=orjson.OPT_NON_STR_KEYS))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _check(body: bytes) -> None:
    """Refuse, before it is built, what costs too much: aliases, which can unfold without end, depth, and length."""
    depth = 0
    for count, event in enumerate(yaml.parse(body, Loader=_Loader)):
        if count > MAX_EVENTS:
            raise ValueError(f"yaml: more than {MAX_EVENTS} tokens; send an object of this size as JSON")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("yaml: aliases are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > schema.MAX_DEPTH:
            raise ValueError(f"yaml: exceeded max depth of {schema.MAX_DEPTH}")
