"""Garbage collector: deletes what has lost its owner.

Stands for `pkg/controller/garbagecollector`. The rules: an object none of whose owners exists is deleted (that is
background deletion, and it also clears up after mistyped uids); an owner with the finalizer `foregroundDeletion`
stays until its dependents with `blockOwnerDeletion` are gone; one with the finalizer `orphan` stays until its
dependents no longer name it. The graph of owners is the uid index of the shared informers. An absence is checked with
the API before anything is deleted, for a cache may lag. Custom resources are watched from the time when their
CustomResourceDefinition is established; which of their objects are gone is remembered, for nobody can be asked once the
definition is gone too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial

from kitlib.cluster.client import ApiError, ignoring
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.controllers.resources import (
    CLUSTER_RESOURCES,
    DEFINITIONS,
    NAMESPACED_RESOURCES,
    custom_resource_of,
    is_namespaced,
    is_served,
    resource_of,
)
from kitlib.cluster.informer import Controller, Informer
from kitlib.cluster.objects import Key, Object, is_deleting, key_of

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
NodeKey = tuple[str, Key]
"""Resource, and namespace and name."""

ABSENT_OWNERS = 500
"""How many owners that are gone are remembered, as in Kubernetes."""


def owners_of(obj: Object) -> list[Object]:
    """Return the owner references."""
    return obj["metadata"].get("ownerReferences") or []


def waits_for(obj: Object, finalizer: str) -> bool:
    """Tell whether the object is being deleted and this finalizer holds it."""
    return is_deleting(obj) and finalizer in (obj["metadata"].get("finalizers") or ())


class GarbageCollector(Controller):
    """See the module's docstring.

    Args:
        ctx: The controller's context.
        resources: What to watch.
    """

    name = "garbage-collector-controller"

    def __init__(self, ctx: Context, resources: Iterable[str] = (*NAMESPACED_RESOURCES, *CLUSTER_RESOURCES)) -> None:
        super().__init__(ctx.clock, workers=20)
        self._ctx = ctx
        self._informers: dict[str, Informer] = {}
        self._absent: deque[str] = deque(maxlen=ABSENT_OWNERS)
        for resource in resources:
            self._watch(resource)
        self._definitions = ctx.informers(DEFINITIONS)
        self._definitions.add_handler(self._definition_changed)

    def _watch(self, resource: str) -> None:
        if resource not in self._informers:
            self._informers[resource] = self._ctx.informers(resource)
            self._informers[resource].add_handler(partial(self._changed, resource))

    def _definition_changed(self, kind: str, _: Object | None, definition: Object) -> None:
        resource = definition["metadata"]["name"]
        if kind == "DELETED":
            self._ctx.informers.forget(resource)
            self._informers.pop(resource, None)
        elif is_served(definition):
            self._watch(resource)

    def _resource_of(self, reference: Object) -> str | None:
        api_version, kind = reference["apiVersion"], reference["kind"]
        return resource_of(api_version, kind) or custom_resource_of(api_version, kind, self._definitions)

    def _changed(self, resource: str, kind: str, old: Object | None, new: Object) -> None:
        if kind == "DELETED":
            for dependent in self._dependents(new):
                self.queue.add(dependent)
                if new["metadata"]["uid"] not in self._absent:
                    self._absent.append(new["metadata"]["uid"])
            self._queue_waiting_owners(new)
        elif waits_for(new, FOREGROUND) or waits_for(new, ORPHAN):
            self.queue.add((resource, key_of(new)))
        elif owners_of(new) and (old is None or owners_of(old) != owners_of(new)):
            self.queue.add((resource, key_of(new)))
        if kind == "MODIFIED" and old is not None and owners_of(old) != owners_of(new):
            self._queue_waiting_owners(old)

    def _queue_waiting_owners(self, dependent: Object) -> None:
        for reference in owners_of(dependent):
            owner = self._cached_owner(dependent, reference)
            if owner is not None and (waits_for(owner, FOREGROUND) or waits_for(owner, ORPHAN)):
                self.queue.add((self._resource_of(reference), key_of(owner)))

    def _dependents(self, owner: Object) -> list[NodeKey]:
        uid = owner["metadata"]["uid"]
        return [(resource, key_of(obj)) for resource, inf in self._informers.items() for obj in inf.owned_by(uid)]

    def _cached(self, node: NodeKey) -> Object | None:
        informer = self._informers.get(node[0])
        return informer.get(*node[1]) if informer else None

    def _cached_owner(self, dependent: Object, reference: Object) -> Object | None:
        """Return the owner from the cache when it is the very object that the reference means."""
        informer = self._informers.get(self._resource_of(reference) or "")
        if informer is None:
            return None
        namespace = dependent["metadata"].get("namespace", "")
        owner = informer.get(namespace, reference["name"]) or informer.get("", reference["name"])
        return owner if owner is not None and owner["metadata"]["uid"] == reference["uid"] else None

    async def reconcile(self, key: NodeKey) -> None:
        """Look at one object: as an owner that waits for its dependents, else as a dependent."""
        obj = self._cached(key)
        if obj is None:
            return
        if waits_for(obj, ORPHAN):
            await self._orphan_dependents(key[0], obj)
        elif waits_for(obj, FOREGROUND):
            await self._collect_dependents(key[0], obj)
        elif not is_deleting(obj):
            await self._collect(key[0], obj)

    async def _orphan_dependents(self, resource: str, owner: Object) -> None:
        uid = owner["metadata"]["uid"]
        for dependent_resource, key in self._dependents(owner):
            dependent = self._cached((dependent_resource, key))
            if dependent is not None:
                await self._drop_references(dependent_resource, dependent, {uid})
        await self._remove_finalizer(resource, owner, ORPHAN)

    async def _collect_dependents(self, resource: str, owner: Object) -> None:
        uid = owner["metadata"]["uid"]
        blocking = False
        for node in self._dependents(owner):
            dependent = self._cached(node)
            if dependent is None:
                continue
            reference = next(item for item in owners_of(dependent) if item["uid"] == uid)
            blocking = blocking or bool(reference.get("blockOwnerDeletion"))
            if not is_deleting(dependent):
                self.queue.add(node)
        if not blocking:
            await self._remove_finalizer(resource, owner, FOREGROUND)

    async def _collect(self, resource: str, obj: Object) -> None:
        """Delete an object without a living owner; drop references to dead owners from one with a living owner."""
        solid = False
        dangling: set[str] = set()
        waiting: set[str] = set()
        for reference in owners_of(obj):
            state = await self._owner_state(obj, reference)
            solid = solid or state == "solid"
            if state != "solid":
                (dangling if state == "absent" else waiting).add(reference["uid"])
        if solid and (dangling or waiting):
            await self._drop_references(resource, obj, dangling | waiting)
        elif not solid and waiting:
            policy = "Foreground" if self._dependents(obj) else "Background"
            await self._delete(resource, obj, policy)
        elif not solid and dangling:
            await self._delete(resource, obj, _policy_of(obj))

    async def _owner_state(self, obj: Object, reference: Object) -> str:
        """Return `solid`, `waiting` (for its dependents to go) or `absent`; an unknown kind counts as solid."""
        resource = self._resource_of(reference)
        owner = self._cached_owner(obj, reference)
        if owner is None and reference["uid"] in self._absent:
            return "absent"
        if resource is None or resource not in self._informers:
            return "solid"
        if owner is None:
            owner = await self._live_owner(resource, obj, reference)
        if owner is None:
            return "absent"
        return "waiting" if waits_for(owner, FOREGROUND) else "solid"

    async def _live_owner(self, resource: str, obj: Object, reference: Object) -> Object | None:
        namespaced = is_namespaced(resource, self._definitions)
        namespace = obj["metadata"].get("namespace") if namespaced else None
        if namespace is None and namespaced:
            return None
        try:
            owner = await self._ctx.client.get(resource, reference["name"], namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return owner if owner["metadata"]["uid"] == reference["uid"] else None

    async def _delete(self, resource: str, obj: Object, policy: str) -> None:
        namespace, name = key_of(obj)
        uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
        with ignoring(404):
            await self._ctx.client.delete(
                resource, name, namespace or None, uid=uid, resource_version=version, propagation_policy=policy
            )

    async def _drop_references(self, resource: str, obj: Object, uids: set[str]) -> None:
        kept = [reference for reference in owners_of(obj) if reference["uid"] not in uids]
        await self._patch(resource, obj, {"ownerReferences": kept or None})

    async def _remove_finalizer(self, resource: str, obj: Object, finalizer: str) -> None:
        kept = [item for item in obj["metadata"]["finalizers"] if item != finalizer]
        await self._patch(resource, obj, {"finalizers": kept or None})

    async def _patch(self, resource: str, obj: Object, changes: Object) -> None:
        namespace, name = key_of(obj)
        metadata = {"uid": obj["metadata"]["uid"], "resourceVersion": obj["metadata"]["resourceVersion"], **changes}
        with ignoring(404):
            await self._ctx.client.patch(resource, name, {"metadata": metadata}, namespace or None)


def _policy_of(obj: Object) -> str:
    finalizers = obj["metadata"].get("finalizers") or ()
    return "Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background"
