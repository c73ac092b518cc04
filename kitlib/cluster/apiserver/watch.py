"""Watches: the stream of changes that informers live on.

Stands for the watch cache of k8s.io/apiserver. A watch starts with the current objects or after a known
revision, follows its selectors (an object that stops matching is DELETED for this watcher), sends bookmarks, and ends
after its timeout, when its reader is too slow, or when a custom resource is no longer served as it was.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from kitlib.cluster.apiserver import errors, selectors, versions
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.options import ListOptions
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.objects import Object
from kitlib.cluster.store import CompactedError, Entry, Event, Store

BOOKMARK_SECONDS = 60.0
MAX_BACKLOG = 20_000
MAX_BACKLOG_BYTES = 64 << 20
"""A watcher that is further behind, in changes or in bytes, is cut off and has to list again."""


class Change(NamedTuple):
    """One line of a watch.

    Attributes:
        type: ADDED, MODIFIED, DELETED or BOOKMARK.
        entry: The object's state.
        event: The write behind it, whose encoding all watchers share; None for the initial objects.
    """

    type: str
    entry: Entry
    event: Event | None = None


class Watch:
    """One watcher; iterate over `batches()`.

    Args:
        store: Where events come from.
        kind: Kind that the path names.
        namespace: Only of this one; None for all.
        options: Selectors, start, timeout, bookmarks.

    Attributes:
        on_overrun: Called when the watcher is too far behind, which may be stuck in sending to its reader.

    Raises:
        ApiError: 400, a selector cannot be read; 410, the start is too old; 504, it is in the future.
    """

    def __init__(self, store: Store, kind: Kind, namespace: str | None, options: ListOptions) -> None:
        """Start to listen; nothing is lost from here on."""
        self._store = store
        self._kind = kind
        self._namespace = namespace
        self._options = options
        self._resource = versions.storage(kind).resource
        more = kind.selectable if isinstance(kind, CustomKind) else ()
        self._test = selectors.predicate(self._resource, options.label_selector, options.field_selector, more)
        self._backlog: deque[Change] = deque()
        self._backlog_bytes = 0
        self._wake = asyncio.Event()
        self.revision = store.revision
        self.overrun = False
        self._ended = False
        self.on_overrun: Callable[[], None] = lambda: None
        self._begin()
        store.subscribe(self._resource, self._listen)
        if isinstance(kind, CustomKind):
            kind.watches.add(self._end)

    def _begin(self) -> None:
        options = self._options
        if options.revision > self._store.revision:
            raise errors.revision_ahead(options.revision, self._store.revision)
        if options.send_initial_events or (options.revision == 0 and options.send_initial_events is None):
            for entry in self._store.entries(self._resource, self._namespace):
                if self._test is None or self._test(entry.obj):
                    self._backlog.append(Change("ADDED", entry))
        elif options.revision:
            self._replay(options.revision)

    def _replay(self, revision: int) -> None:
        try:
            events = self._store.events_after(self._resource, revision)
        except CompactedError as error:
            raise errors.expired(str(error)) from error
        for event in events:
            self._listen(event)

    def _listen(self, event: Event) -> None:
        change = None if self.overrun else self._seen(event)
        if change is not None:
            self._backlog.append(change)
            self._backlog_bytes += len(change.entry.raw)
            self.overrun = len(self._backlog) > MAX_BACKLOG or self._backlog_bytes > MAX_BACKLOG_BYTES
            self._wake.set()
            if self.overrun:
                self._backlog.clear()
                self.on_overrun()

    def _seen(self, event: Event) -> Change | None:
        """Return what this watcher sees of a write: nothing, or an object that appears, changes or leaves."""
        if self._namespace is not None and event.entry.namespace != self._namespace:
            return None
        test = self._test
        was = event.before is not None and (test is None or test(event.before.obj))
        stays = not event.deleted and (test is None or test(event.entry.obj))
        if stays:
            return Change("MODIFIED" if was else "ADDED", event.entry, event)
        if not was or event.before is None:
            return None
        if event.deleted:
            return Change("DELETED", event.entry, event)
        return Change("DELETED", event.before.at(event.revision))

    def close(self) -> None:
        """Stop listening."""
        self._store.unsubscribe(self._resource, self._listen)
        if isinstance(self._kind, CustomKind):
            self._kind.watches.discard(self._end)

    def _end(self) -> None:
        """End the stream after what is already in it."""
        self._ended = True
        self._wake.set()

    async def batches(self) -> AsyncIterator[list[Change] | Object]:
        """Yield lists of changes as they come, and bookmark objects; ends when the watch ends."""
        timeout = self._options.timeout_seconds or random.randint(1800, 3600)
        loop = asyncio.get_running_loop()
        end = loop.time() + max(timeout, 0)
        bookmarks = self._options.allow_watch_bookmarks
        if self._backlog:
            yield self._drain()
        if self._options.send_initial_events and bookmarks:
            yield self._bookmark(self.revision, initial=True)
        while not self.overrun and not self._ended and loop.time() < end:
            quiet = await self._wait(min(BOOKMARK_SECONDS, end - loop.time()))
            if not quiet:
                yield self._drain()
            elif bookmarks and not self._ended:
                yield self._bookmark(self._store.revision)
        if self._backlog:
            yield self._drain()

    async def _wait(self, seconds: float) -> bool:
        """Wait for changes; True when there were none in this time."""
        if not self._backlog:
            self._wake.clear()
            handle = asyncio.get_running_loop().call_later(seconds, self._wake.set)
            await self._wake.wait()
            handle.cancel()
        return not self._backlog

    def _drain(self) -> list[Change]:
        changes = list(self._backlog)
        self._backlog.clear()
        self._backlog_bytes = 0
        return changes

    def _bookmark(self, revision: int, initial: bool = False) -> Object:
        meta: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        return {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": meta}
