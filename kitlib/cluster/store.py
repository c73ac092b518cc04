"""Versioned objects, their history and its watchers, kept in one SQLite file.

Stands for etcd behind kube-apiserver's watch cache. The table has the shape of kine's: every write is a row
whose id is the cluster-wide revision that clients see as `resourceVersion`. Current objects and the most recent
events live in memory; the file is read at start alone. A write is one committed transaction in SQLite's
write-ahead log before it shows in memory or reaches a watcher (about 10 microseconds), so a killed process loses
no acknowledged write; the log is synced to the disk at checkpoints, in a thread. Left out: leases (Events
are aged by the API server), and more than one writer.

Objects that the store hands out are shared: read them, never change them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

import orjson

from kitlib.cluster.objects import Object

APPLICATION_ID = 0x6B697473
SCHEMA_VERSION = 1
HISTORY = 1000
"""How many of the latest events stay at least, as in kine: a watch may start from any of them."""
HISTORY_BYTES = 64 << 20
"""How much of them may be held in memory, in bytes of JSON: big objects have a shorter history."""
_CHECKPOINT_EVERY = 2000
_RECENT = 128
"""How many of the latest events keep their objects decoded; those of older ones are decoded when they are asked for."""
_SELDOM_READ = frozenset({"events"})
"""Resources with many objects that hardly anybody looks at: their current ones, too, are decoded when asked for."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kine (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, created INTEGER NOT NULL, deleted INTEGER NOT NULL,
    create_revision INTEGER NOT NULL, prev_revision INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS compact (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
INSERT OR IGNORE INTO compact VALUES (1, 0);
"""


class StoreError(Exception):
    """The state file cannot be opened or written; the message names the file and the mend."""


class CompactedError(Exception):
    """A revision is older than the history that is kept.

    Attributes:
        revision: What was asked for.
        oldest: The oldest revision that is still known.
    """

    def __init__(self, revision: int, oldest: int) -> None:
        self.revision = revision
        self.oldest = oldest
        super().__init__(f"too old resource version: {revision} ({oldest})")


class Entry:
    """One state of one object.

    Attributes:
        resource: Such as `deployments.apps`.
        namespace: Empty for cluster-scoped objects.
        name: Object name.
        revision: Revision of the write that made this state.
        created: Revision of the object's creation.
        obj: The object with `metadata.resourceVersion`, shared and read-only.
        raw: The object as JSON without `kind` and `apiVersion`, as lists show it.
    """

    __slots__ = ("created", "head", "name", "namespace", "obj", "raw", "resource", "revision")

    def __init__(self, resource: str, namespace: str, revision: int, created: int, obj: Object) -> None:
        """Stamp the object with its revision and encode it once for all readers."""
        self.resource = resource
        self.namespace = namespace
        self.name: str = obj["metadata"]["name"]
        self.revision = revision
        self.created = created
        self.obj = obj
        obj["metadata"]["resourceVersion"] = str(revision)
        raw = orjson.dumps({k: v for k, v in obj.items() if k != "kind" and k != "apiVersion"})
        self.raw = bytes(memoryview(raw))  # a copy of its own size: orjson's answer keeps a buffer of many times that
        self.head = _head(obj["kind"], obj["apiVersion"])

    @property
    def json(self) -> bytes:
        """The whole object as JSON."""
        return self.head + self.raw[1:]

    def forget(self) -> None:
        """Keep the object as JSON alone."""
        with suppress(AttributeError):
            del self.obj

    def __getattr__(self, name: str) -> Object:
        """Decode an object that was forgotten."""
        if name != "obj":
            raise AttributeError(name)
        self.obj = self.copy()
        return self.obj

    def copy(self) -> Object:
        """Return a copy of the object that the caller may change."""
        obj: Object = orjson.loads(self.json)
        return obj

    def at(self, revision: int) -> Entry:
        """Return the same state under a later revision, as watchers see the last state of a deleted object."""
        return Entry(self.resource, self.namespace, revision, self.created, self.copy())

    @property
    def key(self) -> str:
        """Name in the table, as in etcd."""
        return f"/registry/{self.resource}/{self.namespace}/{self.name}"


class Event:
    """One write as watchers see it.

    Attributes:
        revision: The write's revision.
        before: State before, or None when the object was created.
        entry: State after; of a deleted object the last state, under the revision of its deletion.
        deleted: Whether the object is gone.
        encoded: What watchers sent for this event, kept so that all of them share one encoding.
    """

    __slots__ = ("before", "deleted", "encoded", "entry", "revision")

    def __init__(self, before: Entry | None, entry: Entry, deleted: bool) -> None:
        self.revision = entry.revision
        self.before = before
        self.entry = entry
        self.deleted = deleted
        self.encoded: dict[str, bytes] = {}

    def fade(self) -> None:
        """Free what only those need who watch closely."""
        self.encoded = {}
        if self.before is not None:
            self.before.forget()
        if self.deleted or self.entry.resource in _SELDOM_READ:
            self.entry.forget()


Listener = Callable[[Event], None]
_Names = dict[str, Entry]


class Store:
    """All objects of a cluster.

    Args:
        path: The SQLite file; made, mode 0600, when it does not exist.
        history: How many of the latest events are kept for watches.

    Raises:
        StoreError: The file is corrupt, not of this kit, or cannot be written.
    """

    def __init__(self, path: Path, history: int = HISTORY) -> None:
        """Open the file and read the current objects and the latest events."""
        self.path = path
        self.revision = 0
        self.compacted = 0
        self._history = history
        self._events: deque[Event] = deque()
        self._event_bytes = 0
        self._objects: dict[str, dict[str, _Names]] = {}
        self._listeners: dict[str, set[Listener]] = {}
        self._pending = 0
        self._checkpoint: threading.Thread | None = None
        try:
            self._db = self._open()
            self._load()
        except (sqlite3.Error, OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: {error}; move the file away or run `kit down --purge`") from error

    def _open(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=2)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if tables and application != APPLICATION_ID:
            raise StoreError(f"{self.path} is not a state file of the kit; move it away")
        if tables and version != SCHEMA_VERSION:
            raise StoreError(f"{self.path} has format {version}, not {SCHEMA_VERSION}; run `kit down --purge`")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA cache_size = -256")  # KiB: nothing is read here but at the start
        if not tables:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.executescript(_SCHEMA)
        db.execute("UPDATE compact SET revision = revision")  # fails here and now on a read-only disk

    def _load(self) -> None:
        self.compacted = self._db.execute("SELECT revision FROM compact").fetchone()[0]
        self.revision = self.compacted
        columns = "id, name, deleted, create_revision, value"
        for revision, name, deleted, created, value in self._db.execute(f"SELECT {columns} FROM kine ORDER BY id"):
            _, _, resource, namespace, _ = name.split("/", 4)
            entry = Entry(resource, namespace, revision, created, orjson.loads(value))
            self._apply(Event(self.get(resource, namespace, entry.name), entry, bool(deleted)))

    def _apply(self, event: Event) -> None:
        entry = event.entry
        names = self._objects.setdefault(entry.resource, {}).setdefault(entry.namespace, {})
        if event.deleted:
            names.pop(entry.name, None)
            if not names:
                del self._objects[entry.resource][entry.namespace]
        else:
            names[entry.name] = entry
        self.revision = event.revision
        if event.revision > self.compacted:
            self._events.append(event)
            self._event_bytes += len(entry.raw)
            if len(self._events) > _RECENT:
                self._events[-_RECENT].fade()
        else:
            event.fade()

    def close(self) -> None:
        """Move the log into the file and close it."""
        if self._checkpoint is not None:
            self._checkpoint.join()
        self._db.close()

    # -- reading

    def get(self, resource: str, namespace: str, name: str) -> Entry | None:
        """Return the current state of an object, or None."""
        return self._objects.get(resource, {}).get(namespace, {}).get(name)

    def entries(self, resource: str, namespace: str | None = None) -> list[Entry]:
        """Return the current objects of a resource in etcd's order: by namespace, then by name.

        Args:
            resource: Such as `pods`.
            namespace: Only of this one; None for all.
        """
        return list(_ordered(self._objects.get(resource, {}), namespace))

    def entries_at(self, resource: str, namespace: str | None, revision: int) -> list[Entry]:
        """Return the objects as they were at a revision.

        Raises:
            CompactedError: The revision is older than the history.
        """
        if revision < self.compacted:
            raise CompactedError(revision, self.compacted)
        past: dict[str, _Names] = {ns: dict(names) for ns, names in self._objects.get(resource, {}).items()}
        for event in reversed(self._events):
            if event.revision <= revision:
                break
            if event.entry.resource == resource:
                names = past.setdefault(event.entry.namespace, {})
                if event.before is None:
                    names.pop(event.entry.name, None)
                else:
                    names[event.entry.name] = event.before
        return list(_ordered(past, namespace))

    def events_after(self, resource: str, revision: int) -> list[Event]:
        """Return a resource's events later than a revision, oldest first.

        Raises:
            CompactedError: The revision is older than the history.
        """
        if revision < self.compacted:
            raise CompactedError(revision, self.compacted)
        found: list[Event] = []
        for event in reversed(self._events):
            if event.revision <= revision:
                break
            if event.entry.resource == resource:
                found.append(event)
        return found[::-1]

    def subscribe(self, resource: str, listener: Listener) -> None:
        """Call `listener` with every later event of a resource; it must not block and not raise."""
        self._listeners.setdefault(resource, set()).add(listener)

    def unsubscribe(self, resource: str, listener: Listener) -> None:
        """Undo `subscribe`."""
        self._listeners.get(resource, set()).discard(listener)

    # -- writing

    def put(self, resource: str, namespace: str, obj: Object) -> Entry:
        """Write an object's new state; the caller has compared revisions and gives the object away.

        Args:
            resource: Such as `pods`.
            namespace: Empty for cluster-scoped objects.
            obj: The whole object; gets its `metadata.resourceVersion`.

        Raises:
            StoreError: The disk is full or read-only; nothing changed.
        """
        before = self.get(resource, namespace, obj["metadata"]["name"])
        revision = self.revision + 1
        entry = Entry(resource, namespace, revision, before.created if before else revision, obj)
        self._commit(Event(before, entry, False))
        return entry

    def delete(self, entry: Entry) -> Entry:
        """Remove an object; returns its last state under the revision of the deletion.

        Raises:
            StoreError: The disk is full or read-only; nothing changed.
        """
        before = self.get(entry.resource, entry.namespace, entry.name)
        gone = entry.at(self.revision + 1)
        self._commit(Event(before, gone, True))
        return gone

    def _commit(self, event: Event) -> None:
        entry, before = event.entry, event.before
        row = (
            entry.revision,
            entry.key,
            before is None,
            event.deleted,
            entry.created,
            before.revision if before else 0,
            entry.json,
        )
        try:
            self._db.execute("INSERT INTO kine VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be written: {error}; free space, then try again") from error
        self._apply(event)
        for listener in tuple(self._listeners.get(entry.resource, ())):
            listener(event)
        self._housekeep()

    def _housekeep(self) -> None:
        self._pending += 1
        if len(self._events) >= 1.5 * self._history:
            self.compact(self._events[-self._history].revision - 1)
        elif self._event_bytes > HISTORY_BYTES and len(self._events) > 1:
            self.compact(self._events[len(self._events) // 2].revision - 1)
        if self._pending >= _CHECKPOINT_EVERY:
            self._pending = 0
            self._checkpoint = threading.Thread(target=self._move_log, name="checkpoint", daemon=True)
            self._checkpoint.start()

    def _move_log(self) -> None:
        try:
            with closing(sqlite3.connect(self.path, timeout=0)) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            pass  # the log stays longer; the next checkpoint tries again

    def compact(self, revision: int) -> None:
        """Forget history up to a revision: superseded states and deletions; current objects stay."""
        try:
            self._db.execute("BEGIN")
            superseded = "SELECT prev_revision FROM kine WHERE id BETWEEN ? AND ?"
            span = (self.compacted + 1, revision)
            self._db.execute(f"DELETE FROM kine WHERE id IN ({superseded})", span)
            self._db.execute("DELETE FROM kine WHERE deleted AND id BETWEEN ? AND ?", span)
            self._db.execute("UPDATE compact SET revision = ?", (revision,))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return  # a full disk: history stays longer, the next write tries again
        self.compacted = revision
        while self._events and self._events[0].revision <= revision:
            self._event_bytes -= len(self._events.popleft().entry.raw)


@cache
def _head(kind: str, api_version: str) -> bytes:
    return orjson.dumps({"kind": kind, "apiVersion": api_version})[:-1] + b","


def _ordered(namespaces: dict[str, _Names], namespace: str | None) -> Iterator[Entry]:
    wanted = sorted(namespaces) if namespace is None else [namespace]
    for each in wanted:
        names = namespaces.get(each, {})
        for name in sorted(names):
            yield names[name]
