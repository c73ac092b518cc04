"""The three patches that change a part of an object: JSON merge, JSON, strategic merge.

Stands for apimachinery's `jsonmergepatch` and `strategicpatch` and for the patch handler around them. A strategic merge
patch knows how each list merges (see `models.py`) and obeys the directives `$patch`, `$retainKeys`,
`$setElementOrder/x` and `$deleteFromPrimitiveList/x`. No function changes its input. Server-side apply, the fourth, is
in `apply.py`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import jsonpatch
import jsonpointer
import orjson

from kitlib.cluster.apiserver import errors, models
from kitlib.cluster.apiserver.models import SCALARS, Field
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.schema import go_format, too_deep
from kitlib.cluster.client import ApiError
from kitlib.cluster.objects import Object, deep_copy

MAX_OPERATIONS = 10_000
MAX_COPIED_BYTES = 3 << 20

_REJECTED = "the server rejected our request due to an error in our request"


def clone(value: Any) -> Any:
    """Return a deep copy of a JSON value.

    Raises:
        ApiError: 400: not a JSON value, such as a text that is not Unicode.
    """
    try:
        return deep_copy(value)
    except (TypeError, ValueError) as error:
        raise errors.bad_request(f"not a JSON value: {error}") from None


def _patch_object(patch: Any) -> Object:
    if not isinstance(patch, dict):
        kinds = {list: "array", str: "string", bool: "bool", int: "number", float: "number"}
        found = kinds.get(type(patch), "value")
        raise errors.bad_request(f"json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
    if too_deep(patch):
        raise errors.bad_request("the patch is nested too deeply")
    return patch


def json_merge_patch(doc: Object, patch: Any) -> Object:
    """Apply a JSON merge patch (RFC 7386): null deletes, objects merge, everything else replaces.

    Args:
        doc: The object; not changed.
        patch: The patch.

    Returns:
        A new object that shares nothing with either.

    Raises:
        ApiError: 400: the patch is no object.
    """
    merged: Object = clone(doc)
    _merge_json(merged, clone(_patch_object(patch)))
    return merged


def _merge_json(target: Object, patch: Object) -> None:
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(name), dict):
                target[name] = {}
            _merge_json(target[name], value)
        else:
            target[name] = value


def json_patch(doc: Object, operations: Any) -> Object:
    """Apply a JSON patch (RFC 6902).

    Args:
        doc: The object; not changed.
        operations: List of operations.

    Returns:
        A new object.

    Raises:
        ApiError: 400: no list of operations; 413: too many, or copies without end; 422: an operation failed.
    """
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise errors.bad_request("json: cannot unmarshal the body into Go value of type jsonpatch.Patch")
    if len(operations) > MAX_OPERATIONS:
        text = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise ApiError(errors.status(413, "RequestEntityTooLarge", text))
    try:
        result: Object = _apply(clone(doc), operations)
    except (jsonpatch.JsonPatchConflict, jsonpatch.JsonPatchTestFailed, jsonpointer.JsonPointerException):
        raise ApiError(errors.status(422, "Invalid", _REJECTED, {})) from None
    except (jsonpatch.JsonPatchException, TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise errors.bad_request(f"invalid JSON patch: {error}") from None
    if not isinstance(result, dict):
        raise errors.bad_request("the patched object is not a JSON object")
    return result


def _apply(doc: Any, operations: list[Object]) -> Any:
    copied = 0
    for operation in operations:
        if operation.get("op") == "copy":
            copied += len(orjson.dumps(jsonpointer.resolve_pointer(doc, operation["from"])))
            if copied > MAX_COPIED_BYTES:
                raise errors.too_large()
        doc = jsonpatch.JsonPatch([operation]).apply(doc, in_place=True)
    return clone(doc)


def strategic_merge_patch(kind: Kind, doc: Object, patch: Any) -> Object:
    """Apply a strategic merge patch, the one of `kubectl apply`, `edit`, `set image`.

    Args:
        kind: Kind of the object; says how its lists merge.
        doc: The object; not changed.
        patch: The patch with its directives.

    Returns:
        A new object.

    Raises:
        ApiError: 400: the patch does not fit the kind.
    """
    return _merge(clone(doc), clone(_patch_object(patch)), kind.model)


_ORDER, _DELETE, _RETAIN, _DIRECTIVE = "$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys", "$patch"


def _merge(target: Object, patch: Object, model_name: str) -> Object:
    """Merge a patch into an object that may be changed."""
    directive = patch.pop(_DIRECTIVE, "merge")
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    if directive != "merge":
        raise errors.bad_request(f"Unknown patch type found: {go_format(directive)}")
    model = models.load(model_name)
    fields = model.fields if model is not None else {}
    _retain_keys(target, patch)
    orders = {name.partition("/")[2]: patch.pop(name) for name in list(patch) if name.startswith(_ORDER)}
    for name in [name for name in patch if name.startswith(_DELETE)]:
        gone, listed = patch.pop(name), name.partition("/")[2]
        if isinstance(target.get(listed), list) and isinstance(gone, list):
            unwanted = {_hashable(item) for item in gone}
            target[listed] = [item for item in target[listed] if _hashable(item) not in unwanted]
    for name, value in patch.items():
        _merge_field(target, name, value, fields.get(name), orders.pop(name, None))
    for name, order in orders.items():
        field = fields.get(name)
        if field is not None and isinstance(target.get(name), list):
            target[name] = _ordered(target[name], target[name], field.merge_key, _order_keys(order, field.merge_key))
    return target


def _retain_keys(target: Object, patch: Object) -> None:
    keep = patch.pop(_RETAIN, None)
    if keep is None:
        return
    if not isinstance(keep, list):
        raise errors.bad_request("$retainKeys must be a list of field names")
    for name in [name for name in target if name not in keep]:
        del target[name]


def _model_of(field: Field | None) -> str:
    kind = field.type if field is not None else ""
    while isinstance(kind, tuple):
        kind = kind[1]
    return "" if kind in SCALARS else kind


def _merge_field(target: Object, name: str, value: Any, field: Field | None, order: Any) -> None:
    present = target.get(name)
    if value is None:
        target.pop(name, None)
    elif isinstance(value, dict):
        is_map = field is not None and isinstance(field.type, tuple)
        target[name] = _merge(present if isinstance(present, dict) else {}, value, "" if is_map else _model_of(field))
    elif isinstance(value, list) and field is not None and (field.merge_key or field.set):
        old = present if isinstance(present, list) else []
        target[name] = _merge_list(old, value, field, order)
    else:
        target[name] = value


def _merge_list(old: list[Any], patch: list[Any], field: Field, order: Any) -> list[Any]:
    if field.set:
        known = {_hashable(item) for item in old}
        merged = old + [item for item in patch if _hashable(item) not in known]
    else:
        merged = _merge_objects(old, patch, field)
    return merged if order is None else _ordered(merged, old, field.merge_key, _order_keys(order, field.merge_key))


def _key(item: Any, merge_key: str) -> Any:
    if not merge_key:
        return item
    if not isinstance(item, dict) or merge_key not in item:
        raise errors.bad_request(f"map: {go_format(item)} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _merge_objects(old: list[Any], patch: list[Any], field: Field) -> list[Any]:
    """Merge a list of objects by its key; an item with `$patch: delete` removes its namesake."""
    replace = [item for item in patch if isinstance(item, dict) and item.get(_DIRECTIVE) == "replace"]
    if replace:
        return [item for item in patch if item not in replace or len(item) > 1 and not item.pop(_DIRECTIVE, None)]
    merge_key, model = field.merge_key, _model_of(field)
    merged: dict[int, Any] = dict(enumerate(old))
    places: dict[Any, list[int]] = {}
    for place, item in merged.items():
        if isinstance(item, dict):
            places.setdefault(_hashable(item.get(merge_key)), []).append(place)
    for number, item in enumerate(patch, start=len(old)):
        key = _hashable(_key(item, merge_key))
        found = places.get(key, [])
        if item.get(_DIRECTIVE) == "delete":
            for place in places.pop(key, ()):
                del merged[place]
        elif found:
            merged[found[0]] = _merge(merged[found[0]], item, model)
        else:
            merged[number] = _merge({}, item, model)
            places[key] = [number]
    return list(merged.values())


def _hashable(value: Any) -> Any:
    """Return what stands for a JSON value as a dictionary's key."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if isinstance(value, (dict, list)) else value


def _order_keys(order: Any, merge_key: str) -> list[Any]:
    if not isinstance(order, list):
        raise errors.bad_request("$setElementOrder must be a list")
    return [_key(item, merge_key) for item in order]


def _ordered(merged: list[Any], old: list[Any], merge_key: str, order: list[Any]) -> list[Any]:
    """Put listed items in the patch's order; the others keep their place among what the server had."""
    wanted = _places(order)
    keyed = [(_hashable(_key(item, merge_key)), item) for item in merged]
    listed = deque(sorted((pair for pair in keyed if pair[0] in wanted), key=lambda pair: wanted[pair[0]]))
    others = deque(pair for pair in keyed if pair[0] not in wanted)
    server = _places([_key(item, merge_key) for item in old])
    result: list[Any] = []
    while others and listed:
        left, right = server.get(others[0][0]), server.get(listed[0][0])
        before = left is not None and right is not None and left < right
        result.append((others if before else listed).popleft()[1])
    return result + [item for _, item in [*listed, *others]]


def _places(keys: list[Any]) -> dict[Any, int]:
    """Return where each key stands first."""
    places: dict[Any, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(_hashable(key), place)
    return places
