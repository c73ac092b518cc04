"""Cells of `kubectl get` for custom resources, and the simple JSON paths that name them.

Stands for `apiextensions-apiserver/pkg/registry/customresource/tableconvertor` and, of client-go's `jsonpath`, for
names, indexes, `[*]` and filters such as `[?(@.type=="Ready")]`, which is what definitions use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

from kitlib.cluster.apiserver.printers.durations import Moment
from kitlib.cluster.objects import Object

_STEP = re.compile(
    r"""\.?(?P<name>(?:\\.|[^.\[\]\\])+)|\[(?:'(?P<quoted>[^']*)'|(?P<index>-?\d+)|(?P<all>\*)"""
    r"""|\?\(@\.(?P<key>[\w.]+)\s*(?P<operator>==|!=)\s*(?P<wanted>"[^"]*"|'[^']*'|[\w.-]+)\))\]"""
)


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[re.Match[str], ...] | None:
    """Return the steps of a path; None when it is none of ours."""
    steps, at = [], 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return None
        steps.append(step)
        at = step.end()
    return tuple(steps)


def find(obj: Any, path: str) -> list[Any]:
    """Return what a path such as `.status.conditions[?(@.type=="Ready")].status` leads to."""
    steps, found = _steps(path), [obj]
    for step in steps or ():
        found = [value for each in found for value in _follow(each, step)]
    return found if steps else []


def _follow(value: Any, step: re.Match[str]) -> Iterator[Any]:
    name = step["quoted"] if step["quoted"] is not None else step["name"]
    if name is not None:
        name = re.sub(r"\\(.)", r"\1", name)
        if isinstance(value, dict) and name == "*":
            yield from value.values()
        elif isinstance(value, dict) and name in value:
            yield value[name]
    elif isinstance(value, list) and step["index"]:
        yield from value[int(step["index"]) :][:1]
    elif isinstance(value, (list, dict)) and step["all"]:
        yield from value.values() if isinstance(value, dict) else value
    elif isinstance(value, list):
        wanted = step["wanted"].strip("\"'")
        for item in value:
            if any(_text(each) == wanted for each in find(item, f".{step['key']}")) == (step["operator"] == "=="):
                yield item


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def cells(columns: tuple[Object, ...], obj: Object, now: Moment) -> list[Any]:
    """Return the cells of a custom resource: its name, then one for each column."""
    return [obj["metadata"]["name"], *(_cell(column, find(obj, column["jsonPath"]), now) for column in columns)]


def _cell(column: Object, found: list[Any], now: Moment) -> Any:
    if not found or found[0] is None:
        return None
    value, kind = found[0], column["type"]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "string":
        return _text(value)
    if kind == "date":
        age = now.since(value) if isinstance(value, str) else None
        return "<invalid>" if age == "<unknown>" else age
    if kind in ("integer", "number"):
        return (int(value) if kind == "integer" else float(value)) if number else None
    return value if isinstance(value, bool) else None


def definitions(columns: tuple[Object, ...]) -> list[Object]:
    """Return the column definitions of a Table."""
    found: list[Object] = [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}]
    for column in columns:
        text = f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
        shown = {"name": column["name"], "type": column["type"], "format": column.get("format", "")}
        description = column.get("description") or text
        found.append({**shown, "description": description, "priority": column.get("priority", 0)})
    return found
