"""Decoding: what of a request's JSON is an object of its kind.

Stands for kube-apiserver's strict JSON decoder: unknown fields, values of the wrong type, stored forms of quantities
and times, empty fields left out. For each model a table "field to decoder" is compiled when it is first
needed. Left out: duplicate keys, and the defaults and rules beyond types (see `defaults.py`, `validation.py`).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import cache
from typing import Any

from kitlib.cluster import quantity
from kitlib.cluster.apiserver import errors, models
from kitlib.cluster.apiserver.apiextensions import structural
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.models import Model, Type
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.client import ApiError
from kitlib.cluster.objects import Object

MAX_DEPTH = 100
"""Deepest nesting of lists and objects that a request may have."""

_META = "V1ObjectMeta"

Path = tuple[Any, ...]
"""Where a value stands: `(parent path, field name or index)`; empty at the top."""

Decoder = Callable[[Any, Path, "list[str]"], Any]

_GO_NAMES = {"int32": "int32", "int64": "int64", "float": "float64", "bool": "bool", "string": "string"}
_GO_NAMES |= {
    "any": "interface {}",
    "time": "v1.Time",
    "micro-time": "v1.MicroTime",
    "quantity": "resource.Quantity",
    "bytes": "[]uint8",
}
_GO_NAMES |= {"int-or-string": "intstr.IntOrString"}


class DecodeError(Exception):
    """A value that is not of its field's type; the text is Go's.

    Args:
        text: What the decoder of JSON says.
        converted: What the converter says by which a strategic merge patch becomes an object; None says the same.
    """

    def __init__(self, text: str, converted: str | None = None) -> None:
        super().__init__(text)
        self.converted = converted or text


def _steps(path: Path) -> list[Any]:
    steps: list[Any] = []
    while path:
        path, step = path
        steps.append(step)
    return steps[::-1]


def _dotted(path: Path) -> str:
    """Return the path with indexes, as strict errors name it: `spec.containers[0].image`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in _steps(path))
    return text.lstrip(".")


def _described(value: Any) -> str:
    names = ((str, "string"), (bool, "bool"), (dict, "object"), (list, "array"))
    found = [name for cls, name in names if isinstance(value, cls)]
    return found[0] if found else "number"


def _go_type(kind: Type) -> str:
    if isinstance(kind, tuple):
        return ("[]" if kind[0] == "list" else "map[string]") + _go_type(kind[1])
    return _GO_NAMES.get(kind) or f"v1.{models.short_name(kind)}"


def _mismatch(value: Any, kind: Type, path: Path, owner: str) -> DecodeError:
    described = _described(value)
    if described == "number" and kind in ("int32", "int64"):
        described = f"number {value}"
    names = ".".join(str(step) for step in _steps(path) if not isinstance(step, int))
    where = f"Go struct field {owner}.{names}" if names else "Go value"
    text = f"json: cannot unmarshal {described} into {where} of type {_go_type(kind)}"
    return DecodeError(text, _not_converted(value, kind))


def _not_converted(value: Any, kind: Type) -> str:
    names = {str: "string", bool: "bool", dict: "map", list: "slice", int: "int64", float: "float64"}
    found = names.get(type(value), "invalid")
    if isinstance(kind, tuple):
        return f"cannot restore {'slice' if kind[0] == 'list' else 'map'} from {found}"
    if kind not in _GO_NAMES:
        return f"cannot restore struct from: {found}"
    if found in ("int64", "float64") and kind in ("string", "int32", "int64"):
        return f"cannot convert {found} to {kind}"
    return f"unrecognized type: {_go_type(kind)}"


def _decode_any(value: Any, path: Path, unknown: list[str]) -> Any:
    return value


def _decode_quantity(value: Any, path: Path, unknown: list[str]) -> Any:
    try:
        return quantity.canonical(value)
    except ValueError as error:
        raise DecodeError(str(error)) from None


def _decode_int_or_string(value: Any, path: Path, unknown: list[str]) -> Any:
    if isinstance(value, str) or (type(value) is int and -(2**31) <= value < 2**31):
        return value
    described = f"number {value}" if _described(value) == "number" else _described(value)
    raise DecodeError(f"json: cannot unmarshal {described} into Go value of type int32")


def _decode_bytes(value: Any, path: Path, unknown: list[str]) -> Any:
    if not isinstance(value, str):
        raise DecodeError(f"json: cannot unmarshal {_described(value)} into Go value of type []uint8")
    try:
        base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        bad = re.search(r"[^A-Za-z0-9+/]", value)
        raise DecodeError(f"illegal base64 data at input byte {bad.start() if bad else len(value)}") from None
    return value


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _instant(value: Any) -> datetime:
    if not isinstance(value, str):
        raise DecodeError(f"json: cannot unmarshal {_described(value)} into Go value of type string")
    match = _RFC3339.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        micros = (match[2] or "")[:6].ljust(6, "0")
        zone = "+00:00" if match[3] == "Z" else match[3]
        return datetime.fromisoformat(f"{match[1]}.{micros}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        layout = "2006-01-02T15:04:05Z07:00"
        text = f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"'
        raise DecodeError(text) from None


def _decode_time(value: Any, path: Path, unknown: list[str]) -> Any:
    if isinstance(value, str) and _TIME.fullmatch(value):
        _instant(value)
        return value
    return f"{_instant(value):%Y-%m-%dT%H:%M:%SZ}".rjust(20, "0")


def _decode_micro_time(value: Any, path: Path, unknown: list[str]) -> Any:
    return f"{_instant(value):%Y-%m-%dT%H:%M:%S.%fZ}".rjust(27, "0")


def _integer(bits: str, owner: str) -> Decoder:
    limit = 2**31 if bits == "int32" else 2**63

    def decode_integer(value: Any, path: Path, unknown: list[str]) -> Any:
        if type(value) is int and -limit <= value < limit:
            return value
        raise _mismatch(value, bits, path, owner)

    return decode_integer


def _plain(kind: str, classes: tuple[type, ...], owner: str) -> Decoder:
    def decode_plain(value: Any, path: Path, unknown: list[str]) -> Any:
        if type(value) in classes:
            return value
        raise _mismatch(value, kind, path, owner)

    return decode_plain


_SPECIAL: dict[str, Decoder] = {
    "any": _decode_any,
    "quantity": _decode_quantity,
    "int-or-string": _decode_int_or_string,
    "bytes": _decode_bytes,
    "time": _decode_time,
    "micro-time": _decode_micro_time,
}
_PLAIN: dict[str, tuple[type, ...]] = {"string": (str,), "bool": (bool,), "float": (int, float)}


def _list_of(kind: Type, owner: str) -> Decoder:
    decode_item = _decoder(kind[1], owner)

    def decode_list(value: Any, path: Path, unknown: list[str]) -> Any:
        if type(value) is not list:
            raise _mismatch(value, kind, path, owner)
        for index, item in enumerate(value):
            value[index] = decode_item(_zero(kind[1]) if item is None else item, (path, index), unknown)
        return value

    return decode_list


def _map_of(kind: Type, owner: str) -> Decoder:
    decode_item = _decoder(kind[1], owner)

    def decode_map(value: Any, path: Path, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise _mismatch(value, kind, path, owner)
        for name, item in value.items():
            if type(name) is not str:
                raise DecodeError(f"json: cannot unmarshal {_described(name)} into Go value of type string")
            value[name] = decode_item(_zero(kind[1]) if item is None else item, (path, name), unknown)
        return value

    return decode_map


def _zero(kind: Type) -> Any:
    """Return what Go makes of a null in a list or map."""
    if isinstance(kind, tuple):
        return [] if kind[0] == "list" else {}
    zeros: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "bool": False, "float": 0.0, "bytes": ""}
    zeros |= {"quantity": "0", "int-or-string": 0, "any": None, "time": "1970-01-01T00:00:00Z"}
    return zeros.get(kind, {}) if kind in models.SCALARS else {}


def _decoder(kind: Type, owner: str) -> Decoder:
    if isinstance(kind, tuple):
        return _list_of(kind, owner) if kind[0] == "list" else _map_of(kind, owner)
    if kind in _PLAIN:
        return _plain(kind, _PLAIN[kind], owner)
    if kind in ("int32", "int64"):
        return _integer(kind, owner)
    return _SPECIAL.get(kind) or _struct(kind, owner)


def _struct(name: str, owner: str) -> Decoder:
    """Return the decoder of a model; its fields are looked up at the first value, for models may be recursive."""

    def decode_struct(value: Any, path: Path, unknown: list[str]) -> Any:
        rules = _rules(name)
        if rules is None:
            return value
        if type(value) is not dict:
            raise _mismatch(value, name, path, owner)
        return _fill(rules, value, path, unknown)

    return decode_struct


def _fill(rules: dict[str, tuple[type | None, Decoder, bool]], value: Object, path: Path, unknown: list[str]) -> Object:
    """Decode a struct's fields in place and leave out what Go would leave out.

    A rule is (class of values that need no decoder, decoder, whether an empty list or map is kept).
    """
    gone = []
    for name, item in value.items():
        rule = rules.get(name)
        if rule is None:
            unknown.append(_dotted((path, name)))
            gone.append(name)
        elif item is None:
            gone.append(name)
        elif type(item) is not rule[0]:
            decoded = rule[1](item, (path, name), unknown)
            if decoded is not item:
                value[name] = decoded
            elif not item and not rule[2]:
                gone.append(name)
    for name in gone:
        del value[name]
    return value


@cache
def _rules(name: str) -> dict[str, tuple[type | None, Decoder, bool]] | None:
    model = models.load(name)
    return None if model is None else {field.name: _rule(field, model) for field in model.fields.values()}


def _decode_schema(value: Any, path: Path, unknown: list[str]) -> Any:
    """Decode a part of a CustomResourceDefinition's schema for which the client has no type: a schema, or a boolean."""
    return value if isinstance(value, bool) else _struct("V1JSONSchemaProps", "JSONSchemaProps")(value, path, unknown)


def _rule(field: models.Field, model: Model) -> tuple[type | None, Decoder, bool]:
    if model.short == "JSONSchemaProps" and field.name in ("items", "additionalProperties"):
        return None, _decode_schema, True
    direct = {"string": str, "bool": bool}.get(field.type) if isinstance(field.type, str) else None
    return direct, _decoder(field.type, model.short), isinstance(field.type, str) or field.required


def too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Tell whether lists and objects nest deeper than `limit`; every later step may then recurse."""
    level: list[Any] = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for item in level:
            values: Iterable[Any] = item.values() if type(item) is dict else item
            inner += [child for child in values if type(child) is dict or type(child) is list]
        if not inner:
            return False
        level = inner
    return True


def decode(kind: Kind, obj: Any, field_validation: str = "Strict") -> list[str]:
    """Decode an object in place: drop unknown and empty fields, store quantities and times in their canonical form.

    Args:
        kind: The kind that the request's path names.
        obj: The request's JSON.
        field_validation: `Strict`, `Warn` or `Ignore`, as in the query parameter.

    Returns:
        Warnings, such as `unknown field "spec.replica"` (with `Warn` only).

    Raises:
        ApiError: 400: a value of the wrong type, or, with `Strict`, an unknown field.
    """
    prefix = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
    try:
        warnings = unknown_fields(kind, obj)
    except DecodeError as error:
        raise errors.bad_request(f"{prefix}: {error}") from None
    if warnings and field_validation == "Strict":
        raise errors.bad_request(f"{prefix}: strict decoding error: {', '.join(warnings)}")
    return warnings if field_validation == "Warn" else []


def unknown_fields(kind: Kind, obj: Any) -> list[str]:
    """Decode as `decode` does, and return `unknown field "..."` for each one that was dropped.

    Raises:
        DecodeError: A value has the wrong type; the text is Go's.
    """
    if type(obj) is dict and too_deep(obj):
        raise DecodeError(f"json: exceeded max depth of {MAX_DEPTH}")
    unknown: list[str] = []
    if models.load(kind.model) is None and type(obj) is dict:
        _struct(_META, "")(obj.setdefault("metadata", {}), ((), "metadata"), unknown)
    _struct(kind.model, "")(obj, (), unknown)
    if isinstance(kind, CustomKind):
        structural.prune(obj, kind.schema, unknown)
    return [f'unknown field "{name}"' for name in unknown]


def decode_patched(
    kind: Kind, obj: Object, patch: Any, field_validation: str = "Strict", strategic: bool = False
) -> list[str]:
    """Decode the outcome of a patch; the same faults as in `decode` get the words that a patch gets.

    Args:
        kind: Kind of the object.
        obj: The patched object; decoded in place.
        patch: The patch as it was sent: a dict, or the text of a JSON patch.
        strategic: Whether it was a strategic merge patch.
        field_validation: `Strict`, `Warn` or `Ignore`.

    Returns:
        Warnings, as `decode`.

    Raises:
        ApiError: 422 with the patch in its message.
    """
    try:
        warnings = unknown_fields(kind, obj)
        text = f"strict decoding error: {', '.join(warnings)}"
        failed = bool(warnings) and field_validation == "Strict"
    except DecodeError as error:
        text, failed = error.converted if strategic else str(error), True
    if failed:
        raise _invalid_patch(patch, text)
    return warnings if field_validation == "Warn" else []


def _invalid_patch(patch: Any, text: str) -> ApiError:
    message = f"Invalid value: {go_quote(go_format(patch))}: {text}"
    cause = {"reason": "FieldValueInvalid", "message": message, "field": "patch"}
    return ApiError(errors.status(422, "Invalid", f' "" is invalid: patch: {message}', {"causes": [cause]}))


def go_format(value: Any) -> str:
    """Return a JSON value as Go's `%+v` prints it, such as `map[a:1 b:[x y] c:<nil>]`."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{name}:{go_format(item)}" for name, item in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_format(item) for item in value) + "]"
    named = {None: "<nil>", True: "true", False: "false"}
    return named[value] if value is None or isinstance(value, bool) else str(value)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def go_quote(text: str) -> str:
    """Return a string as Go's `%q` prints it."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{ord(c):04x}") for c in text) + '"'
