"""The logs of a run's Pods, followed through the API.

One thread per Pod reads `GET .../pods/NAME/log?follow=true`. When a stream breaks (the API server restarted), the
log is read again from its beginning and the lines already known are skipped, so nothing is lost or doubled.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from kitlib.train.api import TIMEOUT, Api
from kitlib.train.records import Record, parse_line


def rank_of(pod: dict[str, Any]) -> int:
    """Return the completion index of a Job's Pod."""
    return int(pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index", 0))


class PodLog:
    """The lines of one Pod so far.

    Attributes:
        pod: Name of the Pod.
        rank: Its index in the Job.
        created: When it was created, as the API says it.
        lines: Lines that are no records.
        records: The records.
        ended: Whether the log is complete: read to its end after the container had ended.
        over: Whether the container has ended.
        gone: Whether the Pod was deleted, and its log with it.
    """

    def __init__(self, api: Api, pod: dict[str, Any]) -> None:
        """Remember the Pod; nothing is read yet."""
        self.pod, self.rank = pod["metadata"]["name"], rank_of(pod)
        self.created = pod["metadata"].get("creationTimestamp", "")
        self.lines: list[str] = []
        self.records: list[Record] = []
        self.ended = self.over = self.gone = False
        self._api, self._count = api, 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def read(self) -> None:
        """Read what is there now, unless a thread follows the log already."""
        if not self.following and not self.ended:
            last_read = self.over
            with contextlib.suppress(ApiException, HTTPError, OSError):
                self.ended = self._stream(follow=False) and last_read

    @property
    def following(self) -> bool:
        """Whether a thread reads the log at the moment."""
        return self._thread is not None and self._thread.is_alive()

    def follow(self) -> None:
        """Read the log in a thread until the container ends."""
        if not self.following and not self.ended:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._follow, name=f"log-{self.pod}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread at its next line or pause."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread to come to the end of the log."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _follow(self) -> None:
        while not self._stopping.is_set() and not self.ended:
            last_read = self.over
            complete = False
            with contextlib.suppress(ApiException, HTTPError, OSError):
                complete = self._stream(follow=True)
            self.ended = (last_read and complete) or self.gone
            if not self.ended:
                self._stopping.wait(0.1)

    def _stream(self, follow: bool) -> bool:
        """Read the log from its beginning; return whether it came to a regular end."""
        with self._lock:
            response = self._api.core.read_namespaced_pod_log(
                self.pod, self._api.namespace, follow=follow, _preload_content=False,
                _request_timeout=(TIMEOUT[0], 120 if follow else TIMEOUT[1]),
            )  # fmt: skip
            if response.status >= 400:
                return False  # not started yet: the kubelet has no log so far
            known, pending = self._count, b""
            for chunk in response.stream(amt=65536, decode_content=True):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    known -= 1
                    if known < 0:
                        self._take(line.decode(errors="replace"))
                if self._stopping.is_set():
                    response.close()
                    return False
            return True

    def _take(self, line: str) -> None:
        self._count += 1
        found = parse_line(line)
        if found:
            self.records.append(found)
        else:
            self.lines.append(line)
