"""The store keeps what etcd keeps: every acknowledged write, one revision for all, a history that ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kitlib.cluster import store as store_module
from kitlib.cluster.store import CompactedError, Entry, Event, Store, StoreError


def config_map(name: str, value: str = "") -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta, "data": {"k": value}}


def put(store: Store, name: str, value: str = "") -> int:
    return store.put("configmaps", "default", config_map(name, value)).revision


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_revisions_grow_by_one_over_all_resources_and_are_the_objects_resource_version(path: Path) -> None:
    store = Store(path)
    first = put(store, "a")
    secret = store.put("secrets", "default", {**config_map("s"), "kind": "Secret"})
    assert secret.revision == first + 1
    assert secret.obj["metadata"]["resourceVersion"] == str(first + 1)
    assert put(store, "a", "new") == first + 2


def test_objects_are_listed_by_namespace_then_by_name(path: Path) -> None:
    store = Store(path)
    for namespace, name in (("b", "x"), ("a", "z"), ("b", "a"), ("a", "y")):
        store.put("configmaps", namespace, {**config_map(name), "metadata": {"name": name, "namespace": namespace}})
    assert [e.namespace + e.name for e in store.entries("configmaps")] == ["ay", "az", "ba", "bx"]
    assert [e.name for e in store.entries("configmaps", "b")] == ["a", "x"]
    assert store.entries("secrets") == []


def test_a_restart_brings_back_objects_revision_and_recent_events(path: Path) -> None:
    store = Store(path)
    start = put(store, "kept", "1")
    put(store, "kept", "2")
    put(store, "gone")
    gone = store.get("configmaps", "default", "gone")
    assert gone is not None
    last = store.delete(gone).revision
    store.close()
    again = Store(path)
    assert again.revision == last
    kept = again.get("configmaps", "default", "kept")
    assert kept is not None and kept.obj["data"] == {"k": "2"} and kept.created == start
    assert again.get("configmaps", "default", "gone") is None
    seen = [(e.entry.name, e.before is None, e.deleted) for e in again.events_after("configmaps", start)]
    assert seen == [("kept", False, False), ("gone", True, False), ("gone", False, True)]


def test_a_deletion_is_a_revision_of_its_own(path: Path) -> None:
    store = Store(path)
    revision = put(store, "a")
    entry = store.get("configmaps", "default", "a")
    assert entry is not None
    assert store.delete(entry).obj["metadata"]["resourceVersion"] == str(revision + 1)


def test_watchers_hear_of_their_resource_only_and_after_the_write_is_kept(path: Path) -> None:
    store, heard = Store(path), []

    def listen(event: Event) -> None:
        with sqlite3.connect(path) as other:
            rows = other.execute("SELECT max(id) FROM kine").fetchone()
        heard.append((event.entry.name, rows[0] == event.revision))

    store.subscribe("configmaps", listen)
    put(store, "a")
    store.put("secrets", "default", {**config_map("s"), "kind": "Secret"})
    store.unsubscribe("configmaps", listen)
    put(store, "b")
    assert heard == [("a", True)]


def test_the_past_can_be_listed_until_it_is_compacted(path: Path) -> None:
    store = Store(path)
    put(store, "changed", "old")
    then = put(store, "deleted")
    put(store, "changed", "new")
    put(store, "later")
    entry = store.get("configmaps", "default", "deleted")
    assert entry is not None
    store.delete(entry)
    past = store.entries_at("configmaps", None, then)
    assert [(e.name, e.obj["data"]["k"]) for e in past] == [("changed", "old"), ("deleted", "")]
    store.compact(then + 1)
    with pytest.raises(CompactedError, match="too old resource version"):
        store.entries_at("configmaps", None, then)


def test_compaction_keeps_current_objects_and_forgets_the_rest(path: Path) -> None:
    store = Store(path, history=10)
    put(store, "still")
    for number in range(100):
        put(store, "busy", str(number))
    assert store.compacted > 0
    with pytest.raises(CompactedError):
        store.events_after("configmaps", 1)
    rows = sqlite3.connect(path).execute("SELECT count(*) FROM kine").fetchone()[0]
    assert rows <= 22
    store.close()
    again = Store(path, history=10)
    assert again.revision == 101
    assert [(e.name, e.obj["data"]["k"]) for e in again.entries("configmaps")] == [("busy", "99"), ("still", "")]


def test_big_objects_have_a_shorter_history(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "HISTORY_BYTES", 1 << 20)
    store = Store(path)
    for number in range(100):
        put(store, "big", str(number) + "x" * 100_000)
    assert 0 < sum(len(event.entry.raw) for event in store._events) <= 1 << 20
    assert store.events_after("configmaps", 99)
    store.close()


def test_a_restart_after_the_newest_object_was_deleted_and_compacted_never_reuses_a_revision(path: Path) -> None:
    store = Store(path)
    put(store, "a")
    entry = store.get("configmaps", "default", "a")
    assert entry is not None
    last = store.delete(entry).revision
    store.compact(last)
    store.close()
    again = Store(path)
    assert again.revision == last and put(again, "b") == last + 1


def test_the_state_file_is_private(path: Path) -> None:
    put(Store(path), "a")
    assert {p.name: p.stat().st_mode & 0o077 for p in path.parent.iterdir()} == dict.fromkeys(
        (p.name for p in path.parent.iterdir()), 0
    )


@pytest.mark.parametrize("content", [b"no database, but some text " * 40, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_state_file_is_named_with_the_mend(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"state\.db.*kit down --purge"):
        Store(path)
    assert path.read_bytes() == content


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (id INTEGER)")
    with pytest.raises(StoreError, match="not a state file of the kit"):
        Store(path)
    assert sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


def test_a_state_file_of_a_later_format_is_refused(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="format 99"):
        Store(path)


def test_a_damaged_object_is_refused_at_start(path: Path) -> None:
    store = Store(path)
    put(store, "a")
    store.close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE kine SET value = '{\"kind\":'")
    with pytest.raises(StoreError, match="kit down --purge"):
        Store(path)


def test_a_full_disk_refuses_the_write_and_changes_nothing(path: Path) -> None:
    store = Store(path)
    before = put(store, "a", "old")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="cannot be written: database or disk is full"):
        put(store, "a", "x" * 100_000)
    assert store.revision == before
    kept = store.get("configmaps", "default", "a")
    assert kept is not None and kept.obj["data"] == {"k": "old"}
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert put(store, "a", "new") == before + 1


WRITER = """
import sys
from pathlib import Path
from kitlib.cluster.store import Store
store = Store(Path(sys.argv[1]), history=200)
number = 0
while True:
    meta = {"name": f"n{number % 50}", "namespace": "default"}
    entry = store.put("configmaps", "default", {"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta, "n": number})
    print(entry.revision, flush=True)
    number += 1
"""


def test_sigkill_at_any_moment_loses_no_acknowledged_write(path: Path) -> None:
    acknowledged = 0
    for lines in (1, 137, 1001):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(lines):
            acknowledged = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split("\n")
        writer.wait()
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1])])
        store = Store(path, history=200)
        assert store.revision >= acknowledged
        newest = max(entry.revision for entry in store.entries("configmaps"))
        assert newest == store.revision
        store.close()


def test_objects_of_old_events_are_decoded_when_they_are_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    for number in range(300):
        body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "n"}}
        store.put("configmaps", "n", {**body, "data": {"number": str(number)}})
    events = store.events_after("configmaps", 0)
    assert [event.entry.obj["data"]["number"] for event in events] == [str(number) for number in range(300)]
    first = events[1].before
    assert first is not None and first.obj["kind"] == "ConfigMap" and first.obj["metadata"]["resourceVersion"] == "1"
    assert store.entries_at("configmaps", "n", 10)[0].obj["data"] == {"number": "9"}
    store.close()


def test_events_that_nobody_looks_at_are_kept_as_json_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    for number in range(300):
        body = {"kind": "Event", "apiVersion": "v1", "metadata": {"name": f"e{number:03}", "namespace": "n"}}
        store.put("events", "n", body)
    decoded = [entry for entry in store.entries("events") if is_decoded(entry)]
    assert len(decoded) < 150
    assert store.entries("events")[0].obj["metadata"]["name"] == "e000"
    store.close()


def is_decoded(entry: Entry) -> bool:
    try:
        object.__getattribute__(entry, "obj")
    except AttributeError:
        return False
    return True
