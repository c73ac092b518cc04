"""What CustomResourceDefinitions make the API server serve.

Stands for the controllers of apiextensions-apiserver (naming, establishing, finalizing) and for its handler's table of
served kinds. The definitions live in the store; after each change of one the table is made anew, at once, and its
status is brought up to date in the next turn of the event loop. Left out: conversion by webhooks (versions differ in
their schemas alone) and the condition that tells why a schema is not structural (such a definition is refused).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable

from kitlib.cluster.apiserver import deletion, registry
from kitlib.cluster.apiserver.apiextensions import definitions
from kitlib.cluster.apiserver.apiextensions.customkind import DEFINITIONS, CustomKind, kinds_of
from kitlib.cluster.apiserver.options import WriteOptions
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.rest import REST
from kitlib.cluster.apiserver.validation.fielderrors import FieldErrors
from kitlib.cluster.client import ApiError
from kitlib.cluster.clock import rfc3339_now
from kitlib.cluster.objects import Object, condition_true, deep_copy
from kitlib.cluster.store import Entry, Event, StoreError

_KIND = registry.lookup(DEFINITIONS)
_ACCEPTED = ("True", "NoConflicts", "no conflicts found")
_ESTABLISHED = ("True", "InitialNamesAccepted", "the initial names have been accepted")
_REFUSED = ("False", "NotAccepted", "not all names are accepted")
_AT_ONCE = 500
"""How many objects of a dying definition are deleted before other requests get their turn."""

log = logging.getLogger(__name__)


class CustomResources:
    """The kinds that definitions add to those of the registry.

    Args:
        rest: Where objects are kept.

    Attributes:
        kinds: Every served version of every established definition, as discovery orders them.
    """

    def __init__(self, rest: REST) -> None:
        """Serve what the store has definitions of."""
        self.kinds: tuple[CustomKind, ...] = ()
        self._rest = rest
        self._by_definition: dict[str, tuple[CustomKind, ...]] = {}
        self._by_path: dict[tuple[str, str, str], CustomKind] = {}
        self._settling = False
        for entry in rest.store.entries(DEFINITIONS):
            self._serve(entry.name, entry.obj)
        rest.store.subscribe(DEFINITIONS, self._changed)

    def by_path(self, group: str, version: str, plural: str) -> CustomKind | None:
        """Return the kind that a definition serves under this group, version and plural, or None."""
        return self._by_path.get((group, version, plural))

    def lookup(self, resource: str) -> Kind:
        """Return a kind of the registry or of a definition, as `registry.lookup` does.

        Raises:
            KeyError: No such resource.
        """
        found = self._by_definition.get(resource)
        return found[0] if found else registry.lookup(resource)

    # -- the table

    def _changed(self, event: Event) -> None:
        self._serve(event.entry.name, None if event.deleted else event.entry.obj)
        self._settle_soon()

    def _serve(self, name: str, definition: Object | None) -> None:
        """Serve a definition's kinds; what is no longer as it was is taken away, and its watches end."""
        found = kinds_of(definition) if definition is not None and _is_served(definition) else ()
        made = tuple(sorted(found, key=lambda kind: _rank(kind.version)))
        present = self._by_definition.get(name, ())
        if [kind.stamp for kind in made] == [kind.stamp for kind in present]:
            return
        self._by_definition[name] = made
        if not made:
            del self._by_definition[name]
            self._rest.store.unsubscribe(name, self._object_changed)
        else:
            self._rest.store.subscribe(name, self._object_changed)
        served = [kind for kinds in self._by_definition.values() for kind in kinds]
        self.kinds = tuple(sorted(served, key=lambda kind: (kind.group, _rank(kind.version), kind.plural)))
        self._by_path = {(kind.group, kind.version, kind.plural): kind for kind in served}
        for kind in present:
            for end in tuple(kind.watches):
                end()

    def _object_changed(self, event: Event) -> None:
        if event.deleted:
            self._settle_soon()

    # -- the status of definitions

    def _settle_soon(self) -> None:
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        try:
            self.settle()
        except (ApiError, StoreError) as error:  # the API server's housekeeping tries again
            log.warning("custom resources: %s", error)

    def settle(self) -> None:
        """Give each definition the status that it should have, and end those that are being deleted.

        Raises:
            StoreError: The disk is full or read-only.
        """
        for entry in self._rest.store.entries(DEFINITIONS):
            current = self._rest.store.get(DEFINITIONS, "", entry.name)
            if current is None:
                continue
            if current.obj["metadata"].get("deletionTimestamp"):
                self._finalize(current)
            else:
                self._establish(current)

    def _establish(self, entry: Entry) -> None:
        """Accept names that no other definition of the group has, and serve the kinds once all are accepted."""
        spec, status = entry.obj["spec"], entry.obj.get("status") or {}
        accepted = status.get("acceptedNames") or {}
        if spec.get("names") == accepted or not _is_valid(entry.obj):
            return
        names, problem = self._names(entry, spec["names"], accepted)
        conditions = {"NamesAccepted": problem or _ACCEPTED}
        if not condition_true(entry.obj, "Established"):
            conditions["Established"] = _REFUSED if problem else _ESTABLISHED
        found = _with_conditions(entry.obj, conditions)
        found["status"]["acceptedNames"] = names
        if found["status"] != status:
            self._rest.commit(_KIND, entry, found, WriteOptions())

    def _names(self, entry: Entry, wanted: Object, accepted: Object) -> tuple[Object, tuple[str, str, str] | None]:
        """Return the names that a definition may have, and why it may not have all that it wants."""
        others = [
            (each.obj.get("status") or {}).get("acceptedNames") or {}
            for each in self._rest.store.entries(DEFINITIONS)
            if each.name != entry.name and each.obj["spec"].get("group") == entry.obj["spec"]["group"]
        ]
        names: Object = {"kind": "", "plural": "", **accepted}
        problem: tuple[str, str, str] | None = None
        for fields in (("plural", "singular", "shortNames"), ("kind", "listKind")):
            used = {word for other in others for field in fields for word in _words(other.get(field))}
            for field in fields:
                taken = [word for word in _words(wanted.get(field)) if word in used]
                if not taken:
                    names[field] = wanted.get(field)
                    continue
                texts = [f'"{word}" is already in use' for word in taken]
                text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
                problem = ("False", f"{field[0].upper()}{field[1:]}Conflict", text)
        names["categories"] = wanted.get("categories")
        return {field: value for field, value in names.items() if value is not None}, problem

    def _finalize(self, entry: Entry) -> None:
        """Delete the objects of a definition that is being deleted; when none is left, let it go."""
        finalizers = entry.obj["metadata"].get("finalizers") or ()
        if deletion.CLEANUP not in finalizers:
            return
        kinds, options = self._by_definition.get(entry.name), WriteOptions(field_manager="kube-apiserver")
        left = self._rest.store.entries(entry.name)
        for each in left[:_AT_ONCE]:
            if not kinds:
                self._rest.store.delete(each)
            elif not each.obj["metadata"].get("deletionTimestamp"):
                deletion.delete(self._rest, kinds[0], each.namespace, each.name, {}, options)
        if left:
            return  # the end of the last one brings us back
        found = entry.copy()
        found["metadata"]["finalizers"] = [name for name in finalizers if name != deletion.CLEANUP]
        self._rest.commit(_KIND, entry, found, options)


def _words(value: Iterable[str] | str | None) -> Iterable[str]:
    return [value] if isinstance(value, str) else value or ()


def _is_served(definition: Object) -> bool:
    """Whether a definition is established; whoever may write its status may also have taken names out of it."""
    names = (definition.get("status") or {}).get("acceptedNames") or {}
    return condition_true(definition, "Established") and all(
        names.get(field) for field in ("plural", "singular", "kind", "listKind")
    )


def _is_valid(definition: Object) -> bool:
    """Whether a definition has been completed and checked; one in an old state file may not have been."""
    completed, found = deep_copy(definition), FieldErrors()
    definitions.set_defaults(completed)
    definitions.check(found, completed)
    return not found and completed == definition


def _with_conditions(definition: Object, conditions: dict[str, tuple[str, str, str]]) -> Object:
    found = deep_copy(definition)
    present = found.setdefault("status", {}).setdefault("conditions", [])
    for name, (status, reason, message) in conditions.items():
        old = next((each for each in present if each["type"] == name), None)
        if old is None:
            old = {"type": name}
            present.append(old)
        if old.get("status") != status:
            old["lastTransitionTime"] = rfc3339_now()
        old.update(status=status, reason=reason, message=message)
    return found


def _rank(version: str) -> tuple[int, int, int, int, str]:
    """Order versions by preference: v2, v1, v1beta2, v1alpha1, then names of other forms."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return 1, 0, 0, 0, version
    stability = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return 0, stability, -int(match[1]), -int(match[3] or 0), ""
