"""Pods without a node: those to try now, by priority, and those that wait for a change.

Stands for `pkg/scheduler/backend/queue`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

from kitlib.cluster.clock import Clock
from kitlib.cluster.objects import Key, Object, key_of
from kitlib.cluster.scheduler.cache import PodInfo
from kitlib.cluster.scheduler.plugins import NODE_AFFINITY, TAINT, UNSCHEDULABLE
from kitlib.cluster.scheduler.preemption import priority
from kitlib.cluster.volumeclaims import claims_of

FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 10.0
NODE_ONLY = {UNSCHEDULABLE, TAINT, NODE_AFFINITY}
"""Reasons that no Pod's end can lift."""


@dataclass
class Waiting:
    """A Pod in the queue.

    Attributes:
        info: The Pod.
        attempts: How often it was tried.
        tried: When, last.
        reasons: Why it failed then.
        active: Whether it is on the heap.
    """

    info: PodInfo
    attempts: int = 0
    tried: float = 0.0
    reasons: set[str] = field(default_factory=set)
    active: bool = False


class SchedulingQueue:
    """Pods without a node: those to try now, by priority, and those that wait for a change.

    Args:
        clock: For back-off.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[Key, Waiting] = {}
        self._heap: list[tuple[int, int, Key]] = []
        self._order = itertools.count()
        self._filled = asyncio.Event()
        self._timers: dict[Key, asyncio.Task[None]] = {}

    def put(self, pod: Object) -> None:
        """Add a Pod, or renew it: a Pod whose spec changed is tried again."""
        key = key_of(pod)
        waiting = self._waiting.get(key)
        if waiting is None or waiting.info.uid != pod["metadata"]["uid"]:
            self._waiting[key] = Waiting(PodInfo(pod))
            self._activate(key)
            return
        changed = waiting.info.pod["spec"] != pod["spec"] or waiting.info.pod["metadata"].get("labels") != pod[
            "metadata"
        ].get("labels")
        waiting.info = PodInfo(pod) if changed else waiting.info
        waiting.info.pod = pod
        if changed:
            self._activate(key)

    def drop(self, key: Key) -> None:
        """Forget a Pod."""
        self._waiting.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _activate(self, key: Key) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None and not waiting.active:
            waiting.active = True
            heapq.heappush(self._heap, (-priority(waiting.info.pod), next(self._order), key))
            self._filled.set()

    async def pop(self) -> Waiting:
        """Wait for a Pod to try; the caller answers with `failed` or `drop`."""
        while True:
            while not self._heap:
                self._filled.clear()
                await self._filled.wait()
            _, _, key = heapq.heappop(self._heap)
            waiting = self._waiting.get(key)
            if waiting is not None and waiting.active:
                waiting.active = False
                waiting.attempts += 1
                waiting.tried = self._clock.monotonic()
                return waiting

    def failed(self, waiting: Waiting, reasons: set[str]) -> None:
        """Keep a Pod that fits nowhere until `wake` finds that a change could help it."""
        waiting.reasons = reasons

    def restore(self, key: Key, waiting: Waiting) -> None:
        """Take back a Pod whose binding failed."""
        self._waiting[key] = waiting
        self.retry(key)

    def wake(self, *, room: bool) -> None:
        """Try waiting Pods again after their back-off.

        Args:
            room: Whether a Pod ended, which helps only those that lacked room; else a node changed.
        """
        for key, waiting in self._waiting.items():
            if not waiting.active and waiting.attempts and not (room and waiting.reasons <= NODE_ONLY):
                self.retry(key)

    def wake_claimants(self) -> None:
        """Try waiting Pods that use claims again after their back-off: a claim, volume or class changed."""
        for key, waiting in self._waiting.items():
            if not waiting.active and waiting.attempts and claims_of(waiting.info.pod):
                self.retry(key)

    def retry(self, key: Key) -> None:
        """Try a Pod again when its back-off is over: 1 s, doubled per attempt, at most 10 s."""
        waiting = self._waiting.get(key)
        if waiting is None or key in self._timers:
            return
        backoff = min(FIRST_BACKOFF * 2 ** min(waiting.attempts - 1, 10), LONGEST_BACKOFF)
        left = waiting.tried + backoff - self._clock.monotonic()
        if left <= 0:
            self._activate(key)
        else:
            self._timers[key] = asyncio.ensure_future(self._later(key, left))

    async def _later(self, key: Key, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timers.pop(key, None)
        self._activate(key)

    def close(self) -> None:
        """Cancel the back-offs."""
        for timer in self._timers.values():
            timer.cancel()
