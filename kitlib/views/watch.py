"""List and watch one resource in a background thread, as an informer does.

Follows Kubernetes' protocol through the official client: a list gives the state and a resourceVersion, a
watch from there gives every change, bookmarks move the version on. A stream that ends is taken up again
where it stood; after an error (410 Gone, a restarted API server, a broken line) the list is read anew.
Nothing is asked while nothing changes. Unlike a full informer there is no resync and no index.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

Json = dict[str, Any]

WATCH_SECONDS = 290
"""How long one watch lasts before the server ends it; kube-apiserver itself uses 300 to 600 s."""
CONNECT_SECONDS = 5.0
NO_ANSWER = "the API server does not answer"
START = "The set-up cell, or `kit up`, starts the embedded cluster again; KUBECONFIG may name another that runs."
FIRST_DELAY, LAST_DELAY = 0.25, 5.0


class Follower(threading.Thread):
    """Keeps small records of all objects of one resource, always up to date.

    Attributes:
        records: Records by the objects' uid; replaced as a whole or per key, never changed in place.
        synced: Set once the first list was read, or refused for good (see `refused`).
        problem: Why nothing is known at the moment, in words; empty when all is well.
        refused: Whether the API server does not let this user list the resource.
    """

    def __init__(
        self,
        resource: str,
        call: Callable[..., Any],
        record: Callable[[Json], Any],
        changed: Callable[[], None],
    ) -> None:
        """Say what to follow; `start()` begins.

        Args:
            resource: Name for messages, such as `pods`.
            call: A list method of the official client, with all but its keyword arguments bound.
            record: Turns an object into what is kept; changes that leave it equal are not reported.
            changed: Called from this thread after each change of `records` or `problem`.
        """
        super().__init__(name=f"watch-{resource}", daemon=True)
        self.resource, self._call, self._record, self._changed = resource, call, record, changed
        self.records: dict[str, Any] = {}
        self.synced = threading.Event()
        self.problem, self.refused = "", False
        self._stopping = threading.Event()
        self._response: Any = None

    def values(self) -> list[Any]:
        """Return the records as they are now."""
        return list(self.records.copy().values())

    def run(self) -> None:
        """List, watch, and begin again after an error, until `stop()`."""
        delay = 0.0
        while not self._stopping.wait(delay):
            began = time.monotonic()
            try:
                self._follow(self._list())
            except (ApiException, HTTPError, OSError, ValueError, KeyError, AttributeError) as error:
                self._fail(error)
            healthy = time.monotonic() - began > LAST_DELAY
            delay = FIRST_DELAY if healthy else min(LAST_DELAY, max(FIRST_DELAY, delay * 2))

    def stop(self) -> None:
        """End the thread; returns at once."""
        self._stopping.set()
        connection = getattr(self._response, "connection", None)
        sock = getattr(connection, "sock", None)
        if sock is not None:
            # The plain socket's method: SSLSocket.shutdown would pull the TLS object from under the reader.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _list(self) -> str:
        response = self._call(_preload_content=False, _request_timeout=(CONNECT_SECONDS, 30.0))
        body = _checked(response)
        self.records = {item["metadata"]["uid"]: self._record(item) for item in body.get("items") or ()}
        self.problem, self.refused = "", False
        self.synced.set()
        self._changed()
        return str(body["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            for event in self._events(version):
                metadata = event["object"]["metadata"]
                version = metadata.get("resourceVersion", version)
                self._apply(event["type"], event["object"])
            if time.monotonic() - began < 1.0:
                return  # a server that ends streams at once is not asked without a pause

    def _events(self, version: str) -> Iterator[Json]:
        response = self._call(
            watch=True,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_SECONDS,
            _preload_content=False,
            _request_timeout=(CONNECT_SECONDS, WATCH_SECONDS + 40.0),
        )
        if response.status >= 400:
            _checked(response)
        self._response = response
        try:
            if self._stopping.is_set():  # stop() may have come while there was no response to end
                return
            for line in _lines(response):
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise ApiException(status=event["object"].get("code"), reason=event["object"].get("message"))
                yield event
        finally:
            self._response = None
            response.close()

    def _apply(self, kind: str, item: Json) -> None:
        uid = item["metadata"].get("uid", "")
        if kind == "DELETED":
            if self.records.pop(uid, None) is not None:
                self._changed()
        elif kind in ("ADDED", "MODIFIED"):
            record = self._record(item)
            if self.records.get(uid) != record:
                self.records[uid] = record
                self._changed()

    def _fail(self, error: Exception) -> None:
        status = error.status if isinstance(error, ApiException) else None
        if self._stopping.is_set() or status == 410:
            return
        self.refused = status in (401, 403, 404)
        self.problem = f"{self.resource}: {words(error)}" if status else NO_ANSWER
        if self.refused:
            self.records = {}
            self.synced.set()
        self._changed()


def words(error: Exception) -> str:
    """Return an error in the API server's own words, where it gave some."""
    body = getattr(error, "body", None)
    try:
        return str(orjson.loads(body or b"{}")["message"])
    except (ValueError, KeyError, TypeError):
        return str(getattr(error, "reason", None) or error)


def _checked(response: Any) -> Json:
    body: Json = orjson.loads(response.data)
    if response.status >= 400:
        raise ApiException(status=response.status, reason=body.get("message", response.reason))
    return body


def _lines(response: Any) -> Iterator[bytes]:
    pending = b""
    for chunk in response.stream(amt=None, decode_content=True):
        *lines, pending = (pending + chunk).split(b"\n")
        yield from filter(None, lines)
