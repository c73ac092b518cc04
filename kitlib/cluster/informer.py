"""A local, always fresh copy of a resource, and what goes with it.

Stands for client-go's shared informers: one list, then one watch, handlers and indexes. Added to it is what
controllers need against stale reads: `Informers.client` returns a client whose writes enter the cache with
their answer, so that a controller reads its own writes (`ControllerExpectations` of Kubernetes serve that end).
This rests on resource versions that can be compared as numbers, which Kubernetes promises since 1.35.

`WorkQueue`, `Controller`, `EventRecorder` and `Clock` have modules of their own and can be imported from here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kitlib.cluster.client import ApiError, Client
from kitlib.cluster.clock import Clock, SystemClock
from kitlib.cluster.events import EventRecorder
from kitlib.cluster.labels import matches
from kitlib.cluster.objects import Key, Object, key_of
from kitlib.cluster.workqueue import Controller, WorkQueue

__all__ = ["Clock", "Controller", "EventRecorder", "Informer", "Informers", "SystemClock", "WorkQueue"]

log = logging.getLogger(__name__)

Handler = Callable[[str, Any, Any], None]
"""Called with `(type, old, new)`: ADDED (old is None), MODIFIED, or DELETED (new is the final state)."""

Objects = list[Object]

MIN_BACKOFF = 0.1
MAX_BACKOFF = 5.0


def _version(obj: Object) -> int:
    return int(obj["metadata"].get("resourceVersion") or 0)


class _Index:
    """Objects by the values that a function finds in each of them."""

    def __init__(self, values_of: Callable[[Object], Iterable[str]]) -> None:
        self.values_of = values_of
        self.buckets: dict[str, dict[Key, Object]] = {}

    def replace(self, key: Key, old: Object | None, new: Object | None) -> None:
        for value in self.values_of(old) if old is not None else ():
            bucket = self.buckets[value]
            del bucket[key]
            if not bucket:
                del self.buckets[value]
        for value in self.values_of(new) if new is not None else ():
            self.buckets.setdefault(value, {})[key] = new  # type: ignore[assignment]


def _owner_uids(obj: Object) -> Iterable[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()}


def _labels(obj: Object) -> Iterable[str]:
    namespace = obj["metadata"].get("namespace", "")
    return [f"{namespace}/{key}={value}" for key, value in (obj["metadata"].get("labels") or {}).items()]


class Informer:
    """A cache of one resource, kept fresh by a watch while `run` runs.

    Args:
        client: Where to list and watch.
        resource: Plural and group, such as `jobs.batch`.
        namespace: One namespace, or None for all.
        label_selector: Which objects, in the words of `kubectl -l`.
        field_selector: Which objects, such as `spec.nodeName=node-1`.
        clock: For the back-off between attempts to reconnect.
    """

    def __init__(
        self,
        client: Client,
        resource: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.resource = resource
        self._client, self._namespace = client, namespace
        self._selectors = {"label_selector": label_selector, "field_selector": field_selector}
        self._clock = clock or SystemClock()
        self._objects: dict[str, dict[str, Object]] = {}
        self._indexes: dict[str, _Index] = {}
        self._handlers: list[Handler] = []
        self._gone: set[str] = set()
        self._version = ""
        self._synced = asyncio.Event()
        self.add_index("owner", _owner_uids)

    def synced(self) -> bool:
        """Tell whether the first list is in the cache."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for the first list."""
        await self._synced.wait()

    def get(self, namespace: str | None, name: str) -> Object | None:
        """Return one object, read-only, or None; the namespace of a cluster-scoped object is empty."""
        return self._objects.get(namespace or "", {}).get(name)

    def list(self, namespace: str | None = None) -> Objects:
        """Return the objects of a namespace, or all, read-only."""
        if namespace is not None:
            return list(self._objects.get(namespace, {}).values())
        return [obj for objects in self._objects.values() for obj in objects.values()]

    def add_index(self, name: str, values_of: Callable[[Object], Iterable[str]]) -> None:
        """Keep objects findable by the values that `values_of` returns (each at most once); see `indexed`."""
        if name in self._indexes:
            return
        index = self._indexes[name] = _Index(values_of)
        for obj in self.list():
            index.replace(key_of(obj), None, obj)

    def indexed(self, name: str, value: str) -> Objects:
        """Return the objects with this value in the index."""
        return list(self._indexes[name].buckets.get(value, {}).values())

    def owned_by(self, uid: str) -> Objects:
        """Return the objects that name this uid in their `ownerReferences`."""
        return self.indexed("owner", uid)

    def select(self, namespace: str, selector: Mapping[str, Any] | None) -> Objects:
        """Return the objects of a namespace that a `LabelSelector` selects, found by a label index."""
        self.add_index("label", _labels)
        pairs = ((selector or {}).get("matchLabels") or {}).items()
        if pairs:
            buckets = self._indexes["label"].buckets
            found = min((buckets.get(f"{namespace}/{key}={value}", {}) for key, value in pairs), key=len)
            candidates = list(found.values())
        else:
            candidates = self.list(namespace)
        return [obj for obj in candidates if matches(selector, obj["metadata"].get("labels"))]

    def add_handler(self, handler: Handler) -> None:
        """Call `handler(type, old, new)` for each change, and now with ADDED for each object in the cache."""
        self._handlers.append(handler)
        for obj in self.list():
            handler("ADDED", None, obj)

    def observe(self, obj: Object) -> None:
        """Put an object that a write answered with into the cache, unless the cache has a newer one."""
        if any(self._selectors.values()) or self._namespace not in (None, obj["metadata"].get("namespace")):
            return
        passed = self.get(*key_of(obj)) is None and _version(obj) <= int(self._version or 0)
        if not passed:  # else the watch has already seen the object's end
            self._apply("MODIFIED", obj)

    def observe_deleted(self, obj: Object) -> None:
        """Drop an object that a delete removed; late watch events do not bring it back."""
        cached = self.get(*key_of(obj))
        if cached is not None and cached["metadata"].get("uid") == obj["metadata"].get("uid"):
            self._gone.add(cached["metadata"]["uid"])
            self._store(cached, None, obj)

    def empty(self) -> None:
        """Drop every object, as if each had been deleted."""
        for obj in self.list():
            self._store(obj, None, obj)

    async def run(self) -> None:
        """List and watch until cancelled; reconnect with back-off, list again after 410 Gone."""
        backoff = MIN_BACKOFF
        while True:
            since = self._clock.monotonic()
            try:
                await self._list_and_watch()
            except ApiError as error:
                if error.code == 410:
                    self._version = ""
                log.info("watch of %s: %s", self.resource, error)
            except Exception as error:
                log.info("watch of %s: %s: %s", self.resource, type(error).__name__, error)
            lasted = self._clock.monotonic() - since
            backoff = MIN_BACKOFF if lasted > MAX_BACKOFF else min(backoff * 2, MAX_BACKOFF)
            await self._clock.sleep(backoff)

    async def _list_and_watch(self) -> None:
        if not self._version:
            await self._list()
        stream = self._client.watch(self.resource, self._namespace, resource_version=self._version, **self._selectors)
        async for kind, obj in stream:
            if kind != "BOOKMARK":
                self._apply(kind, obj)
            self._version = obj["metadata"]["resourceVersion"]

    async def _list(self) -> None:
        answer = await self._client.list(self.resource, self._namespace, **self._selectors)
        items = answer["items"]
        version = answer["metadata"]["resourceVersion"]
        kind = answer.get("kind", "List").removesuffix("List")
        listed = set()
        self._gone.clear()
        for item in items:
            if "kind" not in item:
                item = {"apiVersion": answer.get("apiVersion", "v1"), "kind": kind, **item}
            listed.add(key_of(item))
            self._apply("MODIFIED", item)
        for obj in self.list():
            if key_of(obj) not in listed and _version(obj) <= int(version or 0):
                self._store(obj, None, obj)
        self._version = version
        self._synced.set()

    def _apply(self, kind: str, obj: Object) -> None:
        uid = obj["metadata"].get("uid")
        cached = self.get(*key_of(obj))
        if kind == "DELETED":
            self._gone.discard(uid)
            if cached is not None and cached["metadata"].get("uid") == uid:
                self._store(cached, None, obj)
        elif uid not in self._gone and (cached is None or _version(obj) > _version(cached)):
            self._store(cached, obj, obj)

    def _store(self, old: Object | None, new: Object | None, final: Object) -> None:
        namespace, name = key = key_of(final)
        if new is None:
            del self._objects[namespace][name]
        else:
            self._objects.setdefault(namespace, {})[name] = new
        for index in self._indexes.values():
            index.replace(key, old, new)
        self._notify("DELETED" if new is None else "MODIFIED" if old is not None else "ADDED", old, final)

    def _notify(self, kind: str, old: Object | None, new: Object) -> None:
        if kind == "MODIFIED" and old and old["metadata"].get("uid") != new["metadata"].get("uid"):
            self._notify("DELETED", old, old)
            kind, old = "ADDED", None
        for handler in self._handlers:
            try:
                handler(kind, old, new)
            except Exception:
                log.exception("handler of %s failed", self.resource)


class Informers:
    """The informers of one process, each resource listed and watched once and shared by all its controllers.

    Args:
        client: Where to list and watch.
        clock: For back-off.
    """

    def __init__(self, client: Client, clock: Clock | None = None) -> None:
        self._client, self._clock = client, clock
        self._informers: dict[str, Informer] = {}
        self._tasks: dict[str, asyncio.Future[None]] = {}
        self._running = False

    def __call__(self, resource: str) -> Informer:
        """Return the informer of a resource."""
        informer = self._informers.get(resource)
        if informer is None:
            informer = self._informers[resource] = Informer(self._client, resource, clock=self._clock)
            if self._running:
                self._tasks[resource] = asyncio.ensure_future(informer.run())
        return informer

    def forget(self, resource: str) -> None:
        """Stop the informer of a resource that is no longer served; its handlers see its last objects DELETED."""
        informer, task = self._informers.pop(resource, None), self._tasks.pop(resource, None)
        if task is not None:
            task.cancel()
        if informer is not None:
            informer.empty()

    def client(self, client: Client) -> Client:
        """Return a client whose writes enter these caches with their answer."""
        return _WriteThrough(client, self._informers)

    async def start(self) -> None:
        """Run the informers and wait until each has its first list."""
        self._running = True
        self._tasks = {name: asyncio.ensure_future(informer.run()) for name, informer in self._informers.items()}
        await asyncio.gather(*(informer.wait_synced() for informer in self._informers.values()))

    def stop(self) -> None:
        """Stop watching."""
        self._running = False
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()


class _WriteThrough:
    """A client that shows the answers of its writes to the informers."""

    def __init__(self, client: Client, informers: Mapping[str, Informer]) -> None:
        self._client, self._informers = client, informers
        self.get, self.list, self.watch = client.get, client.list, client.watch

    async def create(self, resource: str, obj: Object, namespace: str | None = None, **options: Any) -> Object:
        answer = await self._client.create(resource, obj, namespace, **options)
        return answer if options.get("subresource") else self._observe(resource, answer)

    async def update(self, resource: str, obj: Object, **options: Any) -> Object:
        return self._observe(resource, await self._client.update(resource, obj, **options))

    async def patch(self, resource: str, name: str, patch: Any, namespace: str | None = None, **options: Any) -> Object:
        return self._observe(resource, await self._client.patch(resource, name, patch, namespace, **options))

    async def delete(self, resource: str, name: str, namespace: str | None = None, **options: Any) -> Object:
        return self._observe(resource, await self._client.delete(resource, name, namespace, **options))

    def _observe(self, resource: str, answer: Object) -> Object:
        """Cache the answer; the write may have removed an object that only waited for its finalizers."""
        informer = self._informers.get(resource)
        if informer is None or answer.get("kind") == "Status":
            return answer
        if _is_final(answer["metadata"]):
            informer.observe_deleted(answer)
        else:
            informer.observe(answer)
        return answer


def _is_final(metadata: Mapping[str, Any]) -> bool:
    """Tell whether an answer shows an object that the write removed: deleted, nothing left to wait for."""
    waits = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
    return bool(metadata.get("deletionTimestamp")) and not waits
