"""Lists, pages, selectors, revisions and watches, as informers and kubectl rely on them."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from apiharness import API, config_map, deployment, pod

from kitlib.cluster.apiserver import watch as watching
from kitlib.cluster.client import ApiError, Client, HTTPClient

CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


async def some(api: API, *names: str, **meta: Any) -> None:
    for name in names:
        assert (await api.post(CMS, config_map(name, **meta))).code == 201


async def test_items_of_a_list_carry_no_kind_but_the_list_does(api: API) -> None:
    await some(api, "b", "a")
    listed = await api.get(CMS)
    assert listed.body["kind"] == "ConfigMapList" and listed.body["apiVersion"] == "v1"
    assert listed.names == ["a", "b"] and "kind" not in listed.body["items"][0]
    assert (await api.get("/api/v1/namespaces/nope/configmaps")).body["items"] == []


async def test_a_list_comes_in_pages_of_one_revision(api: API) -> None:
    await some(api, "a", "b", "c", "d", "e")
    first = await api.get(f"{CMS}?limit=2")
    meta = first.body["metadata"]
    assert first.names == ["a", "b"] and meta["remainingItemCount"] == 3
    await api.delete(f"{CMS}/d")
    await some(api, "bb")
    second = await api.get(f"{CMS}?limit=2&continue={meta['continue']}")
    assert second.names == ["c", "d"] and second.body["metadata"]["resourceVersion"] == meta["resourceVersion"]
    third = await api.get(f"{CMS}?limit=2&continue={second.body['metadata']['continue']}")
    assert third.names == ["e"] and "continue" not in third.body["metadata"]


async def test_a_page_of_a_forgotten_revision_is_410(api: API) -> None:
    await some(api, "a", "b")
    token = (await api.get(f"{CMS}?limit=1")).body["metadata"]["continue"]
    await some(api, "c")
    api.store.compact(api.store.revision)
    late = await api.get(f"{CMS}?limit=1&continue={token}")
    assert late.code == 410 and late.body["reason"] == "Expired"
    assert (await api.get(f"{CMS}?continue=rubbish")).code == 400


async def test_an_exact_revision_shows_the_past_and_a_later_one_must_be_waited_for(api: API) -> None:
    await some(api, "a")
    then = api.store.revision
    await some(api, "b")
    exact = await api.get(f"{CMS}?resourceVersion={then}&resourceVersionMatch=Exact")
    assert exact.names == ["a"]
    ahead = await api.get(f"{CMS}?resourceVersion={then + 1000}")
    assert ahead.code == 504 and ahead.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert (await api.get(f"{CMS}?resourceVersion=0")).names == ["a", "b"]
    assert (await api.get(f"{CMS}?resourceVersionMatch=Exact")).code == 422


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=web", ["a"]),
        ("tier==web", ["a"]),
        ("tier!=web", ["b", "c"]),
        ("tier in (web,db)", ["a", "b"]),
        ("tier notin (web)", ["b", "c"]),
        ("tier", ["a", "b"]),
        ("!tier", ["c"]),
        ("tier,n>1", ["b"]),
        ("n<2", ["a"]),
        ("tier in (web),n=1", ["a"]),
    ],
)
async def test_label_selectors(api: API, selector: str, names: list[str]) -> None:
    await some(api, "a", labels={"tier": "web", "n": "1"})
    await some(api, "b", labels={"tier": "db", "n": "2"})
    await some(api, "c")
    assert (await api.get(f"{CMS}?labelSelector={quote(selector)}")).names == names


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("in (x)", "unable to parse requirement: found '(', expected"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a===b", "unable to parse requirement: found '=', expected: identifier"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a='b'", "unable to parse requirement: values[0][a]: Invalid value: \"'b'\": a valid label must be"),
        ("_a=b", 'unable to parse requirement: key: Invalid value: "_a": name part must consist of'),
    ],
)
async def test_a_selector_that_cannot_be_read_is_400(api: API, selector: str, words: str) -> None:
    refused = await api.get(f"{CMS}?labelSelector={quote(selector)}")
    assert refused.code == 400 and words in refused.message


async def test_field_selectors_know_the_fields_of_their_kind(api: API) -> None:
    await api.post(PODS, pod("p1", nodeName="n1"))
    await api.post(PODS, pod("p2"))
    await api.patch(f"{PODS}/p1/status", {"status": {"phase": "Running"}})
    assert (await api.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")).names == ["p1"]
    assert (await api.get("/api/v1/pods?fieldSelector=status.phase!%3DRunning,spec.nodeName!%3Dn1")).names == ["p2"]
    assert (await api.get(f"{PODS}?fieldSelector=metadata.name%3Dp2")).names == ["p2"]
    refused = await api.get(f"{PODS}?fieldSelector=spec.image%3Dx")
    assert refused.code == 400 and refused.message == "field label not supported: spec.image"


async def test_a_watch_from_a_revision_sees_what_came_after_it(api: API) -> None:
    await some(api, "before")
    start = (await api.get(CMS)).body["metadata"]["resourceVersion"]
    await some(api, "a")
    await api.patch(f"{CMS}/a", {"data": {"k": "2"}})
    await api.delete(f"{CMS}/a")
    seen = await api.watch(f"{CMS}?watch=1&resourceVersion={start}", 3)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in seen] == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
    ]
    revisions = [int(e["object"]["metadata"]["resourceVersion"]) for e in seen]
    assert revisions == sorted(revisions) and revisions[-1] == api.store.revision
    assert seen[0]["object"]["kind"] == "ConfigMap"


async def test_a_watch_without_a_revision_starts_with_the_current_objects(api: API) -> None:
    await some(api, "a", "b")
    task = asyncio.ensure_future(api.watch(f"{CMS}?watch=true", 3))
    await _watched(api)
    await some(api, "c")
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in await task] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("ADDED", "c"),
    ]


async def _watched(api: API, watchers: int = 1) -> None:
    """Wait until so many watch ConfigMaps."""
    for _ in range(6000):
        if len(api.store._listeners.get("configmaps", ())) == watchers:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"not {watchers} watchers")


async def test_a_watchlist_marks_the_end_of_the_initial_objects(api: API) -> None:
    await some(api, "a")
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    seen = await api.watch(f"{CMS}?{query}", 2)
    assert [e["type"] for e in seen] == ["ADDED", "BOOKMARK"]
    meta = seen[1]["object"]["metadata"]
    assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert meta["resourceVersion"] == str(api.store.revision)
    alone = await api.get(f"{CMS}?watch=1&sendInitialEvents=true")
    assert alone.code == 422


async def test_watchers_get_bookmarks_when_nothing_happens(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_SECONDS", 0.05)
    start = api.store.revision
    task = asyncio.ensure_future(api.watch(f"{CMS}?watch=1&allowWatchBookmarks=true&resourceVersion={start}", 1))
    await _watched(api)
    await api.post("/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}})
    (bookmark,) = await task
    assert bookmark["type"] == "BOOKMARK" and int(bookmark["object"]["metadata"]["resourceVersion"]) >= start


async def test_an_object_that_leaves_the_selector_is_deleted_and_one_that_enters_is_added(api: API) -> None:
    await some(api, "a", labels={"in": "yes"})
    await some(api, "b")
    start = api.store.revision
    await api.patch(f"{CMS}/a", {"metadata": {"labels": {"in": "no"}}})
    await api.patch(f"{CMS}/b", {"metadata": {"labels": {"in": "yes"}}})
    await api.patch(f"{CMS}/a", {"data": {"k": "unseen"}})
    await api.delete(f"{CMS}/a")
    await api.patch(f"{CMS}/b", {"data": {"k": "seen"}})
    seen = await api.watch(f"{CMS}?watch=1&labelSelector=in%3Dyes&resourceVersion={start}", 3)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in seen] == [
        ("DELETED", "a"),
        ("ADDED", "b"),
        ("MODIFIED", "b"),
    ]
    left = seen[0]["object"]["metadata"]
    assert left["labels"] == {"in": "yes"} and left["resourceVersion"] == str(start + 1)


async def test_a_watch_from_a_forgotten_revision_is_one_error_event(api: API) -> None:
    await some(api, "a")
    old = api.store.revision
    await some(api, "b")
    api.store.compact(api.store.revision)
    (event,) = await api.watch(f"{CMS}?watch=1&resourceVersion={old}", 2)
    assert event["type"] == "ERROR" and event["object"]["code"] == 410 and event["object"]["reason"] == "Expired"
    assert event["object"]["message"] == f"too old resource version: {old} ({api.store.revision})"


async def test_a_watch_from_the_future_is_refused(api: API) -> None:
    refused = await api.get(f"{CMS}?watch=1&resourceVersion={api.store.revision + 100}")
    assert refused.code == 504 and "Too large resource version" in refused.message


async def test_a_watch_ends_after_its_timeout(api: API) -> None:
    assert await api.watch(f"{CMS}?watch=1&timeoutSeconds=1&resourceVersion={api.store.revision}", 1) == []


async def test_a_watcher_that_goes_away_is_forgotten(api: API) -> None:
    task = asyncio.ensure_future(api.watch(f"{CMS}?watch=1&resourceVersion={api.store.revision}", 1))
    await _watched(api)
    task.cancel()
    await _watched(api, 0)


async def test_a_single_object_can_be_watched_by_its_path(api: API) -> None:
    await some(api, "a", "b")
    task = asyncio.ensure_future(api.watch(f"{CMS}/b?watch=1", 2))
    await _watched(api)
    await api.patch(f"{CMS}/a", {"data": {"k": "2"}})
    await api.patch(f"{CMS}/b", {"data": {"k": "2"}})
    assert [e["object"]["metadata"]["name"] for e in await task] == ["b", "b"]


async def test_tables_are_listed_and_watched(api: API) -> None:
    await api.post("/apis/apps/v1/namespaces/default/deployments", deployment())
    path = "/apis/apps/v1/namespaces/default/deployments"
    table = (await api.get(path, Accept=TABLE)).body
    assert table["kind"] == "Table" and table["rows"][0]["cells"][0] == "web"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    (event,) = await api.watch(f"{path}?watch=1", 1, Accept=TABLE)
    assert event["object"]["kind"] == "Table" and event["object"]["rows"][0]["cells"][0] == "web"


@pytest.mark.parametrize("transport", ["in-process", "https"])
async def test_both_transports_deliver_the_same_watch(api: API, http: HTTPClient, transport: str) -> None:
    client: Client = http if transport == "https" else api.client
    await client.create("configmaps", config_map("a"), "default")
    start = (await client.list("configmaps", "default"))["metadata"]["resourceVersion"]
    seen: list[tuple[str, str]] = []

    async def follow() -> None:
        async for kind, obj in client.watch("configmaps", resource_version=start):
            seen.append((kind, obj["metadata"]["name"]))
            if len(seen) == 3:
                return

    task = asyncio.ensure_future(follow())
    await _watched(api)
    await client.patch("configmaps", "a", {"data": {"k": "2"}}, "default")
    await client.create("configmaps", config_map("b"), "default")
    await client.delete("configmaps", "a", "default")
    await asyncio.wait_for(task, 60)
    assert seen == [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    api.store.compact(api.store.revision)
    with pytest.raises(ApiError) as expired:
        async for _ in client.watch("configmaps", resource_version=start):
            pass
    assert expired.value.code == 410


async def test_twenty_watchers_miss_nothing_while_sixteen_writers_write(api: API) -> None:
    await some(api, *(f"c{number:02}" for number in range(16)))
    start = api.store.revision
    watchers = [asyncio.ensure_future(api.watch(f"{CMS}?watch=1&resourceVersion={start}", 160)) for _ in range(20)]

    async def write(number: int) -> None:
        for value in range(10):
            await api.patch(f"{CMS}/c{number:02}", {"data": {"k": f"new-{value}"}})

    await asyncio.gather(*(write(number) for number in range(16)))
    for lines in await asyncio.gather(*watchers):
        assert [int(e["object"]["metadata"]["resourceVersion"]) for e in lines] == list(range(start + 1, start + 161))
