"""Server-side apply, and who owns which field.

Stands for `k8s.io/apimachinery/pkg/util/managedfields`. Every writer's fields are kept in `metadata.managedFields`; an
apply takes fields over only when nobody else owns them with another value, and removes those that it no longer names
and nobody else owns. An ordinary update is tracked along what it changed, so that a status patch costs next to nothing.
Left out: the conversion between versions, and the first apply's `before-first-apply`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kitlib.cluster.apiserver import errors, fieldsets
from kitlib.cluster.apiserver.fieldsets import Path, Shape
from kitlib.cluster.apiserver.patch import clone
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.client import ApiError
from kitlib.cluster.clock import rfc3339_now
from kitlib.cluster.objects import Object

MAX_UPDATE_MANAGERS = 10
_ANCIENT = "ancient-changes"


def _entry(manager: str, operation: str, api_version: str, fields: Object, subresource: str) -> Object:
    entry = {"manager": manager, "operation": operation, "apiVersion": api_version, "time": rfc3339_now()}
    if subresource:
        entry["subresource"] = subresource
    return {**entry, "fieldsType": "FieldsV1", "fieldsV1": fields}


def _identity(entry: Object) -> tuple[Any, ...]:
    names = ("manager", "operation", "apiVersion", "subresource")
    version = names if entry.get("operation") == "Update" else ("manager", "operation", "subresource")
    return tuple(entry.get(name) or "" for name in version)


def _fields(entry: Object) -> Object:
    fields = entry.get("fieldsV1")
    return fields if isinstance(fields, dict) else {}


def track_update(
    kind: Kind, old: Object | None, new: Object, manager: str, operation: str = "Update", subresource: str = ""
) -> None:
    """Record in `new` that a manager wrote the fields in which it differs from `old`.

    Args:
        kind: Kind of the object.
        old: The stored state; None for a new object. Not changed.
        new: The state to store; its `metadata.managedFields` is replaced.
        manager: Field manager; an empty one leaves no trace.
        operation: `Update`.
        subresource: Such as `status`.
    """
    meta = new["metadata"]
    entries = _entries(new, old)
    if old is None:
        fields = fieldsets.fields_of(kind, new, subresource)
        meta["managedFields"] = [_entry(manager, operation, kind.api_version, fields, subresource)] if manager else []
    else:
        changed, removed = fieldsets.difference(kind, old, new, subresource)
        if changed or removed:
            mine = _entry(manager, operation, kind.api_version, {}, subresource)
            entries = _record(entries, mine, changed, removed)
        meta["managedFields"] = entries
    if not meta["managedFields"]:
        del meta["managedFields"]


def _entries(obj: Object, old: Object | None = None) -> list[Object]:
    """Return an object's managedFields; what a user wrote there counts only when it is well-formed."""
    entries: list[Object] = obj["metadata"].get("managedFields") or []
    if old is not None and entries == old["metadata"].get("managedFields"):
        return entries
    return [entry for entry in entries if entry.get("manager") and fieldsets.is_set(entry.get("fieldsV1"))]


def _record(entries: list[Object], mine: Object, changed: list[Path], removed: list[Path]) -> list[Object]:
    """Give changed fields to one manager and take them, and removed ones, from the others."""
    identity, found, result = _identity(mine), mine, []
    for entry in entries:
        fields, is_mine = _fields(entry), _identity(entry) == identity
        lost = [path for path in changed if not is_mine and fieldsets.has(fields, path)]
        gone = [path for path in removed if fieldsets.node(fields, path) is not None]
        if lost or gone:
            fields = clone(fields)
            _discard(fields, lost, gone)
            entry = {**entry, "fieldsV1": fields}
        if is_mine:
            found = {**mine, "fieldsV1": fields}
        elif fields:
            result.append(entry)
    if changed and mine["manager"]:
        found["fieldsV1"] = _with(_fields(found), changed)
    return _capped([*result, found] if _fields(found) else result)


def _discard(fields: Object, lost: Iterable[Path], gone: Iterable[Path]) -> None:
    for path in lost:
        fieldsets.discard(fields, path)
    for path in gone:
        fieldsets.discard(fields, path, below=True)


def _with(fields: Object, added: Iterable[Path]) -> Object:
    """Return a set with more members; the same set when it has them all."""
    missing = [path for path in added if not fieldsets.has(fields, path)]
    if not missing:
        return fields
    grown: Object = clone(fields)
    for path in missing:
        fieldsets.insert(grown, path)
    return grown


def _capped(entries: list[Object]) -> list[Object]:
    """Merge the oldest updates into one entry when there are too many."""
    updates = [entry for entry in entries if entry.get("operation") == "Update"]
    surplus = len(updates) - MAX_UPDATE_MANAGERS
    if surplus <= 0:
        return entries
    oldest = sorted(updates, key=lambda entry: str(entry.get("time", "")))[: surplus + 1]
    fields: Object = {}
    for entry in oldest:
        fields = _with(fields, fieldsets.paths(_fields(entry)))
    merged = {**oldest[-1], "manager": _ANCIENT, "fieldsV1": fields}
    merged.pop("subresource", None)
    return [merged, *(entry for entry in entries if entry not in oldest)]


def server_side_apply(
    kind: Kind, live: Object | None, applied: Object, manager: str, force: bool, subresource: str = ""
) -> Object:
    """Merge an applied configuration into an object.

    Args:
        kind: Kind of the object.
        live: The stored state, None when the object does not exist. Not changed.
        applied: The decoded configuration. Not changed.
        manager: Field manager, as `kubectl`.
        force: Take over fields that others own.
        subresource: Such as `status`.

    Returns:
        The merged object with its new `metadata.managedFields`.

    Raises:
        ApiError: 400, the configuration has managedFields; 409, another manager owns a field with another value;
            422, no manager.
    """
    if not manager:
        text = "Required value: is required for apply patch"
        raise errors.invalid_options("PatchOptions", "fieldManager", text, "FieldValueRequired")
    if applied["metadata"].get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    fields = fieldsets.fields_of(kind, applied, subresource)
    mine = _entry(manager, "Apply", kind.api_version, fields, subresource)
    if live is None:
        created: Object = clone(applied)
        created["metadata"]["managedFields"] = [mine]
        return created
    shape = fieldsets.root(kind)
    merged: Object = _merge(clone(live), clone(applied), shape)
    entries = _entries(live, live)
    previous = next((entry for entry in entries if _identity(entry) == _identity(mine)), None)
    others = [entry for entry in entries if entry is not previous]
    changed, _ = fieldsets.difference(kind, live, merged, subresource)
    others = _settle(others, changed, force)
    if previous is not None:
        dropped = [path for path in fieldsets.paths(_fields(previous)) if not fieldsets.has(fields, path)]
        _prune(merged, shape, dropped, others)
        if _fields(previous) == fields and not changed:
            mine["time"] = previous.get("time", mine["time"])
    merged["metadata"]["managedFields"] = [mine, *others]
    return merged


def _settle(others: list[Object], changed: list[Path], force: bool) -> list[Object]:
    """Raise the conflicts of a change with other managers, or with `force` take the fields from them."""
    conflicts = [(entry, path) for entry in others for path in changed if fieldsets.has(_fields(entry), path)]
    if conflicts and not force:
        raise _conflict(conflicts)
    result = []
    for entry in others:
        lost = [path for owner, path in conflicts if owner is entry]
        if lost:
            fields = clone(_fields(entry))
            _discard(fields, lost, ())
            entry = {**entry, "fieldsV1": fields}
        if _fields(entry):
            result.append(entry)
    return result


def _manager_text(entry: Object) -> str:
    text = f'"{entry["manager"]}"'
    if entry.get("subresource"):
        text += f' with subresource "{entry["subresource"]}"'
    return f"{text} using {entry.get('apiVersion', '')}" if entry.get("operation") == "Update" else text


def _conflict(conflicts: list[tuple[Object, Path]]) -> ApiError:
    shown = [(_manager_text(entry), fieldsets.path_text(path)) for entry, path in conflicts]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": path} for owner, path in shown
    ]
    if len(shown) == 1:
        message = f"Apply failed with 1 conflict: conflict with {shown[0][0]}: {shown[0][1]}"
    else:
        lines = []
        for owner in sorted({owner for owner, _ in shown}):
            lines += [f"conflicts with {owner}:", *(f"- {path}" for name, path in shown if name == owner)]
        message = f"Apply failed with {len(shown)} conflicts: " + "\n".join(lines)
    return ApiError(errors.status(409, "Conflict", message, {"causes": causes}))


def _merge(live: Any, applied: Any, shape: Shape) -> Any:
    """Merge applied values into live ones that may be changed."""
    if shape.is_object(applied) and isinstance(live, dict):
        for name, value in applied.items():
            live[name] = _merge(live.get(name), value, shape.child(name))
        return live
    if not (shape.is_list(applied) and shape.is_list(live)):
        return applied
    places = {shape.key(item): index for index, item in enumerate(live)}
    for item in applied:
        index = places.get(shape.key(item))
        if index is None:
            live.append(item)
        elif shape.keys != ("",):
            live[index] = _merge(live[index], item, shape.child(""))
    return live


def _prune(obj: Object, shape: Shape, dropped: list[Path], others: list[Object]) -> None:
    """Remove the fields that a manager no longer applies and nobody else owns."""
    for path in sorted(dropped, key=len):
        if not any(fieldsets.node(_fields(entry), path) is not None for entry in others):
            _remove(obj, shape, path)


def _remove(value: Any, shape: Shape, path: Path) -> None:
    step, rest = path[0], path[1:]
    if shape.is_list(value):
        found = [index for index, item in enumerate(value) if shape.key(item) == step]
        if not found:
            return
        if not rest:
            del value[found[0]]
        elif rest[0][2:] not in shape.keys:
            _remove(value[found[0]], shape.child(""), rest)
    elif isinstance(value, dict) and step[2:] in value:
        name = step[2:]
        if rest:
            _remove(value[name], shape.child(name), rest)
        if not rest or value[name] in ({}, []):
            del value[name]
