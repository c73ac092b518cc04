from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lab import FakeClock, Lab, deployment, settle

from kitlib.cluster.client import ApiError
from kitlib.cluster.informer import Controller, EventRecorder, Informer, Informers, WorkQueue


def config_map(name: str, value: str = "") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


async def test_an_informer_tells_of_every_change_once(lab: Lab) -> None:
    seen: list[tuple[str, str]] = []
    informer = Informer(lab.client, "configmaps", "default")
    informer.add_handler(lambda kind, old, new: seen.append((kind, new["metadata"]["name"])))
    await lab.client.create("configmaps", config_map("before"), "default")
    lab.spawn(informer.run())
    await informer.wait_synced()
    await lab.client.create("configmaps", config_map("after"), "default")
    await lab.client.patch("configmaps", "after", {"data": {"value": "2"}}, "default")
    await lab.client.delete("configmaps", "before", "default")

    async def settled() -> bool:
        return len(seen) == 4

    await lab.until(settled)
    assert seen == [("ADDED", "before"), ("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "before")]
    assert [item["metadata"]["name"] for item in informer.select("default", {"matchLabels": {"app": "after"}})] == [
        "after"
    ]


async def test_a_write_is_in_the_cache_when_its_answer_is(lab: Lab) -> None:
    informers = Informers(lab.client)
    maps = informers("configmaps")
    seen: list[str] = []
    maps.add_handler(lambda kind, old, new: seen.append(kind))
    await informers.start()
    before = len(seen)
    client = informers.client(lab.client)
    await client.create("configmaps", config_map("mine"), "default")
    assert maps.get("default", "mine") is not None
    await client.patch("configmaps", "mine", {"data": {"value": "2"}}, "default")
    assert maps.get("default", "mine")["data"] == {"value": "2"}  # type: ignore[index]
    await settle(200)
    assert seen[before:] == ["ADDED", "MODIFIED"], "the watch repeats neither"
    informers.stop()


class BrokenClient:
    """An API that answers the first watches with an error."""

    def __init__(self) -> None:
        self.lists = 0
        self.errors: list[Exception] = [
            ConnectionError("gone away"),
            ApiError({"code": 410, "reason": "Expired", "message": "too old resource version"}),
        ]

    async def list(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.lists += 1
        items = [config_map(f"map-{self.lists}")]
        for item in items:
            item["metadata"].update(uid=item["metadata"]["name"], resourceVersion=str(self.lists * 10))
        return {"kind": "ConfigMapList", "metadata": {"resourceVersion": str(self.lists * 10)}, "items": items}

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        if self.errors:
            raise self.errors.pop(0)
        await asyncio.Event().wait()
        yield "BOOKMARK", {}


async def test_an_informer_watches_on_after_a_lost_connection_and_lists_again_after_410() -> None:
    clock, client = FakeClock(), BrokenClient()
    informer = Informer(client, "configmaps", clock=clock)  # type: ignore[arg-type]
    task = asyncio.ensure_future(informer.run())
    await settle()
    await clock.advance(0.3)
    assert client.lists == 1 and len(client.errors) == 0
    await clock.advance(0.5)
    assert client.lists == 2
    assert [item["metadata"]["name"] for item in informer.list()] == ["map-2"]
    task.cancel()


async def test_a_key_is_queued_once_and_never_worked_on_twice_at_a_time() -> None:
    queue = WorkQueue(FakeClock())
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 1 and queue._ready.empty()
    queue.done("a")
    assert await queue.get() == "a"


async def test_a_failing_key_comes_back_after_5_ms_doubling() -> None:
    clock = FakeClock()
    start, calls = clock.now(), []

    class Failing(Controller):
        async def reconcile(self, key: str) -> None:
            calls.append(round((clock.now() - start) * 1000))
            raise ApiError({"code": 409, "reason": "Conflict"})

    controller = Failing(clock)
    task = asyncio.ensure_future(controller.run())
    controller.queue.add("a")
    await clock.advance(0.08)
    assert calls == [0, 5, 15, 35, 75]
    task.cancel()


async def test_repeated_events_become_a_count_and_similar_ones_are_combined(lab: Lab) -> None:
    recorder = EventRecorder(lab.client, "test-controller")
    obj = await lab.client.create("deployments.apps", deployment("web"), "default")
    for _ in range(3):
        recorder.event(obj, "Normal", "Again", "the same")
    await recorder.flush()
    (event,) = [item for item in await lab.list("events") if item["reason"] == "Again"]
    assert (event["count"], event["source"]) == (3, {"component": "test-controller"})
    for number in range(15):
        recorder.event(obj, "Normal", "Scaling", f"to {number}")
    await recorder.flush()
    events = [item for item in await lab.list("events") if item["reason"] == "Scaling"]
    combined = [item for item in events if item["message"].startswith("(combined from similar events): ")]
    assert len(events) == 10 and [item["count"] for item in combined] == [6]
    assert combined[0]["message"].endswith("to 14")
    await recorder.close()
