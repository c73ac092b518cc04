"""Events: what a component tells people about an object.

Stands for client-go's `tools/record` (old style: `source`, `count`, first and last time) and `tools/events`
(new style, which the scheduler uses: `eventTime`, `action`, `series`). A repeated Event raises a count instead of
making another one; the tenth similar Event in ten minutes becomes `(combined from similar events)`; of one object
at most 25 Events in a burst are written, then one every five minutes (old style only).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import OrderedDict
from typing import Any

from kitlib.cluster.client import ApiError, Client
from kitlib.cluster.clock import Clock, SystemClock, rfc3339, rfc3339_micro
from kitlib.cluster.objects import Object

log = logging.getLogger(__name__)

QUEUE_LIMIT = 1000
CACHE_LIMIT = 1024
"""How many Events are known again; client-go's 4096 would take megabytes for each recorder."""
SIMILAR_LIMIT = 10
SIMILAR_SECONDS = 600.0
SERIES_SECONDS = 360.0
ATTEMPTS = 5
BURST = 25
REFILL_SECONDS = 300.0


class EventRecorder:
    """Records Events in the background; it never blocks its caller and never fails.

    Args:
        client: Where Events go.
        component: Reported as `source.component`, such as `kubelet`.
        host: Reported as `source.host`.
        clock: For timestamps.
    """

    def __init__(self, client: Client, component: str, host: str = "", clock: Clock | None = None) -> None:
        """Start empty; the writer starts with the first Event."""
        self._client, self._component, self._host = client, component, host
        self._clock = clock or SystemClock()
        self._queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue(QUEUE_LIMIT)
        self._writer: asyncio.Task[None] | None = None
        self._known: OrderedDict[tuple[str, ...], Object] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, ...], tuple[float, float]] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], tuple[float, set[str]]] = OrderedDict()

    def event(self, obj: Object, kind: str, reason: str, message: str, *, field_path: str = "") -> None:
        """Record an Event in the old style.

        Args:
            obj: The object it is about, with `apiVersion` and `kind`, or a reference to it.
            kind: `Normal` or `Warning`.
            reason: Why, in CamelCase.
            message: The sentence for people.
            field_path: Part of the object, such as `spec.containers{web}`.
        """
        if not self._within_burst(obj):
            return
        now = rfc3339(self._clock.now())
        event = self._event(obj, kind, reason, field_path)
        source = {"component": self._component, "host": self._host} if self._host else {"component": self._component}
        event.update(message=message, source=source, firstTimestamp=now, lastTimestamp=now, count=1)
        self._put("count", event)

    def _within_burst(self, obj: Object) -> bool:
        """Take a token from the object's bucket; False when it is empty (`EventSourceObjectSpamFilter`)."""
        about, now = object_reference(obj), self._clock.now()
        key = (about["kind"], about.get("namespace", ""), about["name"], about.get("uid", ""))
        tokens, since = self._buckets.get(key, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - since) / REFILL_SECONDS)
        self._remember(self._buckets, key, (tokens - 1 if tokens >= 1 else tokens, now))
        return tokens >= 1

    def event_with_action(self, obj: Object, kind: str, reason: str, action: str, message: str) -> None:
        """Record an Event in the style of events.k8s.io.

        Args:
            obj: The object it is about, with `apiVersion` and `kind`, or a reference to it.
            kind: `Normal` or `Warning`.
            reason: Why, in CamelCase.
            action: What was done, such as `Binding`.
            message: The sentence for people.
        """
        event = self._event(obj, kind, reason, "")
        event.update(message=message, action=action, eventTime=rfc3339_micro(self._clock.now()), source={})
        event.update(firstTimestamp=None, lastTimestamp=None, reportingInstance=self._host or self._component)
        self._put("series", event)

    def _event(self, obj: Object, kind: str, reason: str, field_path: str) -> Object:
        reference = object_reference(obj)
        if field_path:
            reference["fieldPath"] = field_path
        namespace = reference.get("namespace") or "default"
        suffix = f"{int(self._clock.now() * 1e9) + random.randrange(1000):x}"
        metadata = {"name": f"{reference['name']}.{suffix}", "namespace": namespace}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": metadata,
            "involvedObject": reference,
            "type": kind,
            "reason": reason,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "eventTime": None,
        }

    def _put(self, style: str, event: Object) -> None:
        if self._queue.full():
            log.info("%s: too many Events, dropped: %s", self._component, event["message"])
            return
        self._queue.put_nowait((style, event))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_all())

    async def flush(self) -> None:
        """Wait until every recorded Event is written or given up."""
        if self._writer is not None and not self._writer.done():
            await self._queue.join()

    async def close(self) -> None:
        """Stop the writer; unwritten Events are lost."""
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer

    async def _write_all(self) -> None:
        while True:
            style, event = await self._queue.get()
            try:
                await self._write_with_retry(style, event)
            finally:
                self._queue.task_done()

    async def _write_with_retry(self, style: str, event: Object) -> None:
        for attempt in range(ATTEMPTS):
            try:
                await self._write(style, event)
                return
            except ApiError as error:
                log.info("%s: Event refused: %s", self._component, error)
                return
            except Exception as error:
                log.info("%s: Event not written: %s", self._component, error)
                await self._clock.sleep(min(0.2 * 2**attempt, 5.0))

    async def _write(self, style: str, event: Object) -> None:
        if style == "count":
            self._combine(event)
        key = _identity(event)
        known = self._known.get(key)
        if known is None or not await self._repeat(style, known, event):
            created = await self._client.create("events", event, event["metadata"]["namespace"])
            known = _remembered(event, created.get("metadata") or event["metadata"])
        self._remember(self._known, key, known)

    async def _repeat(self, style: str, known: Object, event: Object) -> bool:
        """Raise the count of a known Event in place; False when it is gone or too old."""
        patch = self._count(known, event) if style == "count" else self._series(known)
        if not patch:
            return False
        try:
            await self._client.patch("events", known["metadata"]["name"], patch, known["metadata"]["namespace"])
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        known.update(patch)
        return True

    def _count(self, known: Object, event: Object) -> Object:
        patch: Object = {"count": known["count"] + 1, "lastTimestamp": event["lastTimestamp"]}
        return {**patch, "message": event["message"]} if event["message"] != known["message"] else patch

    def _series(self, known: Object) -> Object:
        now = self._clock.now()
        series = known.get("series") or {"count": 1}
        if now - known.get("seen", now) > SERIES_SECONDS:
            return {}
        known["seen"] = now
        return {"series": {"count": series["count"] + 1, "lastObservedTime": rfc3339_micro(now)}}

    def _combine(self, event: Object) -> None:
        """Give the tenth similar Event of ten minutes the message that all later ones share."""
        now = self._clock.now()
        key = _identity({**event, "message": ""})
        since, messages = self._similar.get(key, (now, set()))
        if now - since > SIMILAR_SECONDS:
            messages = set()
        messages.add(event["message"])
        self._remember(self._similar, key, (now, messages))
        if len(messages) >= SIMILAR_LIMIT:
            messages.pop()
            event["message"] = f"(combined from similar events): {event['message']}"

    @staticmethod
    def _remember(cache: OrderedDict[tuple[str, ...], Any], key: tuple[str, ...], value: Any) -> None:
        cache[key] = value
        cache.move_to_end(key)
        if len(cache) > CACHE_LIMIT:
            cache.popitem(last=False)


def _remembered(event: Object, metadata: Object) -> Object:
    """Return what is needed to know an Event again, much less than all of it."""
    kept: Object = {field: event[field] for field in ("count", "message", "series") if field in event}
    return {**kept, "metadata": {field: metadata[field] for field in ("name", "namespace")}}


def object_reference(obj: Object) -> Object:
    """Return the `ObjectReference` of an object; a reference is returned as a copy."""
    if "metadata" not in obj:
        return dict(obj)
    metadata = obj["metadata"]
    reference = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion") if key in metadata}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **reference}


def _identity(event: Object) -> tuple[str, ...]:
    about = event["involvedObject"]
    message = event["message"]
    combined = message.startswith("(combined")
    changed = about.get("resourceVersion", "") if "action" in event else ""
    return (
        about.get("kind", ""),
        about.get("namespace", ""),
        about["name"],
        about.get("uid", ""),
        about.get("fieldPath", ""),
        changed,
        event["type"],
        event["reason"],
        "(combined)" if combined else message,
    )
