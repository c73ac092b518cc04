"""Validation of a value by its structural schema, in the words of Kubernetes.

Stands for kube-openapi's `pkg/validation` and for the way in which apiextensions-apiserver reports what it finds. What
an update leaves as it was is not complained about again (ratcheting). Left out: the rules of
`x-kubernetes-validations` (CEL), formats that nobody meets, and patterns in syntax that Python does not have.
"""

from __future__ import annotations

import binascii
import ipaddress
import math
import re
import signal
from base64 import b64decode
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from kitlib.cluster.apiserver.validation.fielderrors import FieldErrors
from kitlib.cluster.objects import Object

UNKNOWN: Any = object()
"""The old value of something that is new."""

_PATTERN_SECONDS = 0.1

_UUID = re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_RFC3339 = re.compile(r"(?i)\d{4}-\d\d-\d\dt\d\d:\d\d:\d\d(\.\d+)?(z|[-+]\d\d:\d\d)", re.ASCII)


def validate(found: FieldErrors, schema: Object, value: Any, path: str = "", old: Any = UNKNOWN) -> None:
    """Check a value.

    Args:
        found: Receives what is wrong.
        schema: The schema.
        value: The value, pruned and with its defaults.
        path: Where it stands; empty at the root.
        old: The value before an update; what is equal to it is not checked.
    """
    if old is not UNKNOWN and value == old and type(value) is type(old):
        return
    _check_type(found, schema, value, path)
    if value is None:
        return
    _check_junctors(found, schema, value, path)
    if isinstance(value, str):
        _check_string(found, schema, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(found, schema, value, path)
    elif isinstance(value, list):
        _check_list(found, schema, value, path)
    if "enum" in schema and not any(value == each and type(value) is type(each) for each in schema["enum"]):
        shown = [each if isinstance(each, str) else orjson.dumps(each).decode() for each in schema["enum"]]
        found.not_supported(_shown(path), value, shown)
    if isinstance(value, dict):
        _check_object(found, schema, value, path, old)


def _shown(path: str) -> str:
    return path or "<nil>"


def type_name(value: Any) -> str:
    """Return the JSON type of a value as schemas name it."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    names = {type(None): "null", bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _check_type(found: FieldErrors, schema: Object, value: Any, path: str) -> None:
    wanted = "integer,string" if schema.get("x-kubernetes-int-or-string") else schema.get("type", "")
    actual = type_name(value)
    if not wanted or actual in wanted.split(",") or (actual, wanted) == ("integer", "number"):
        return
    if actual == "null" and schema.get("nullable"):
        return
    text = f'{path} in body must be of type {wanted}: "{actual}"'
    found.append({"reason": "FieldValueTypeInvalid", "message": f'Invalid value: "{actual}": {text}', "field": path})


def _valid(schema: Object, value: Any) -> bool:
    errors = FieldErrors()
    validate(errors, schema, value)
    return not errors


def _check_junctors(found: FieldErrors, schema: Object, value: Any, path: str) -> None:
    if schema.get("anyOf") and not any(_valid(each, value) for each in schema["anyOf"]):
        found.invalid(_shown(path), value, f'"{path}" must validate at least one schema (anyOf)')
    if schema.get("oneOf"):
        count = sum(_valid(each, value) for each in schema["oneOf"])
        if count != 1:
            text = "Found none valid" if count == 0 else f"Found {count} valid alternatives"
            found.invalid(_shown(path), value, f'"{path}" must validate one and only one schema (oneOf). {text}')
    for each in schema.get("allOf") or ():
        before = len(found)
        validate(found, each, value, path)
        if len(found) > before:
            found.invalid(_shown(path), value, f'"{path}" must validate all the schemas (allOf)')
    if "not" in schema and _valid(schema["not"], value):
        found.invalid(_shown(path), value, f'"{path}" must not validate the schema (not)')


@lru_cache(maxsize=512)
def pattern(text: str) -> re.Pattern[str] | None:
    r"""Return Go's regular expression for Python; None for one with parts that Python lacks, such as `\p{L}`.

    Raises:
        re.error: It is none.
    """
    if re.search(r"\\[pPQCz]|\[\[:", text):
        return None
    return re.compile(text, re.ASCII)


def _found(expression: re.Pattern[str], value: str) -> bool:
    """Tell whether a text has a pattern; no, when that takes too long: Go's time is linear, Python's is not always."""

    def give_up(*_: object) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _PATTERN_SECONDS)
    try:
        return expression.search(value) is not None
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _check_string(found: FieldErrors, schema: Object, value: str, path: str) -> None:
    length, least, most = len(value), schema.get("minLength"), schema.get("maxLength")
    if most is not None and length > most:
        found.too_long(_shown(path), most)
    if least is not None and length < least:
        found.invalid(_shown(path), value, f"{path} in body should be at least {least} chars long")
    expression = pattern(schema["pattern"]) if schema.get("pattern") else None
    if expression is not None and not _found(expression, value):
        found.invalid(_shown(path), value, f"{path} in body should match '{schema['pattern']}'")
    wanted = schema.get("format", "")
    if wanted in _FORMATS and not _has_format(_FORMATS[wanted], value):
        text = f"Invalid value: {orjson.dumps(value).decode()}: {path} in body must be of type {wanted}: "
        message = text + orjson.dumps(value).decode()
        found.append({"reason": "FieldValueTypeInvalid", "message": message, "field": path})


def _has_format(parse: Callable[[str], Any], value: str) -> bool:
    try:
        return parse(value) is not None
    except (ValueError, binascii.Error):
        return False


def _date_time(value: str) -> datetime | None:
    return datetime.fromisoformat(value[:19].upper()) if _RFC3339.fullmatch(value) else None


_FORMATS: dict[str, Callable[[str], Any]] = {
    "date": date.fromisoformat,
    "date-time": _date_time,
    "datetime": _date_time,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "cidr": lambda value: ipaddress.ip_interface(value) if "/" in value else None,
    "uuid": _UUID.fullmatch,
    "byte": lambda value: b64decode(value, validate=True),
    "email": re.compile(r"[^@\s]+@[^@\s]+").fullmatch,
}


def _number(value: float) -> str:
    """Return a bound as Go's `%v` prints it."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e21 else f"{value:g}"


def _check_number(found: FieldErrors, schema: Object, value: float, path: str) -> None:
    most, least, factor = schema.get("maximum"), schema.get("minimum"), schema.get("multipleOf")
    if factor and abs(math.remainder(value, factor)) > 1e-9 * abs(factor):
        found.invalid(_shown(path), value, f"{path} in body should be a multiple of {_number(factor)}")
    if most is not None:
        strict = bool(schema.get("exclusiveMaximum"))
        if value > most or (strict and value == most):
            words = "less than" if strict else "less than or equal to"
            found.invalid(_shown(path), value, f"{path} in body should be {words} {_number(most)}")
    if least is not None:
        strict = bool(schema.get("exclusiveMinimum"))
        if value < least or (strict and value == least):
            words = "greater than" if strict else "greater than or equal to"
            found.invalid(_shown(path), value, f"{path} in body should be {words} {_number(least)}")


def _too_many(found: FieldErrors, path: str, count: int, most: int) -> None:
    message = f"Too many: {count}: must have at most {most} items"
    found.append({"reason": "FieldValueTooMany", "message": message, "field": _shown(path)})


def _check_list(found: FieldErrors, schema: Object, value: list[Any], path: str) -> None:
    for index, item in enumerate(value):
        validate(found, schema.get("items") or {}, item, f"{path}[{index}]")
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        found.invalid(_shown(path), len(value), f"{path} in body should have at least {least} items")
    if most is not None and len(value) > most:
        _too_many(found, path, len(value), most)
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    if kind not in ("set", "map"):
        return
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        by = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
        mark = orjson.dumps(by, option=orjson.OPT_SORT_KEYS)
        if mark in seen:
            found.duplicate(f"{path}[{index}]", by)
        seen.add(mark)


def _check_object(found: FieldErrors, schema: Object, value: Object, path: str, old: Any) -> None:
    least, most = schema.get("minProperties"), schema.get("maxProperties")
    if most is not None and len(value) > most:
        _too_many(found, path, len(value), most)
    if least is not None and len(value) < least:
        found.invalid(_shown(path), len(value), f"{path} in body should have at least {least} properties")
    for name in schema.get("required") or ():
        if name not in value:
            found.required(f"{path}.{name}".lstrip("."))
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    before = old if isinstance(old, dict) else {}
    for name, item in value.items():
        inner = properties.get(name, additional)
        if isinstance(inner, dict):
            validate(found, inner, item, f"{path}.{name}".lstrip("."), before.get(name, UNKNOWN))
