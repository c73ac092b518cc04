"""The work queue and the loop that every controller shares.

Stands for client-go's `util/workqueue` and the worker loops of kube-controller-manager. Left out: metrics,
and the overall token bucket (10 per second) that client-go puts next to the per-item back-off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable
from typing import Any

from kitlib.cluster.client import ApiError
from kitlib.cluster.clock import Clock, SystemClock

log = logging.getLogger(__name__)

BASE_DELAY = 0.005
MAX_DELAY = 1000.0
LARGE, SIZE_PER_SECOND = 100, 10_000


class WorkQueue:
    """Keys that wait for a worker: each at most once, and never with two workers at a time.

    Args:
        clock: For delays.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._ready: asyncio.Queue[Any] = asyncio.Queue()
        self._dirty: set[Hashable] = set()
        self._processing: set[Hashable] = set()
        self._failures: dict[Hashable, int] = {}
        self._timers: dict[Hashable, tuple[float, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        """Return the number of keys that wait or are being worked on, delayed ones not counted."""
        return len(self._dirty | self._processing)

    def add(self, key: Hashable) -> None:
        """Queue a key; if a worker has it now, it comes again when that worker is done."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.put_nowait(key)

    def add_after(self, key: Hashable, seconds: float) -> None:
        """Queue a key after a delay; of several delays of one key the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + seconds
        earlier = self._timers.get(key)
        if earlier is not None:
            if earlier[0] <= due:
                return
            earlier[1].cancel()
        self._timers[key] = (due, asyncio.get_running_loop().create_task(self._fire(key, seconds)))

    async def _fire(self, key: Hashable, seconds: float) -> None:
        await self._clock.sleep(seconds)
        del self._timers[key]
        self.add(key)

    def add_rate_limited(self, key: Hashable) -> None:
        """Queue a key after its own back-off: 5 ms, doubled at each call until `forget`, at most 1000 s."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(BASE_DELAY * 2 ** min(failures, 30), MAX_DELAY))

    def forget(self, key: Hashable) -> None:
        """Reset the key's back-off."""
        self._failures.pop(key, None)

    async def get(self) -> Any:
        """Wait for a key; the caller must call `done` with it."""
        key = await self._ready.get()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: Hashable) -> None:
        """Tell that the worker has finished with the key."""
        self._processing.discard(key)
        if key in self._dirty:
            self._ready.put_nowait(key)

    def close(self) -> None:
        """Cancel the delays."""
        for _, task in self._timers.values():
            task.cancel()
        self._timers.clear()


class Controller:
    """A queue of keys and workers that reconcile them; subclasses write `reconcile`.

    Args:
        clock: For delays.
        workers: How many keys are reconciled at once.

    Attributes:
        clock: Time.
        queue: The keys.
        sizes: How many dependents a key had when last looked at; subclasses with many keep it (`add_dependent`).
    """

    name = "controller"

    def __init__(self, clock: Clock | None = None, workers: int = 5) -> None:
        self.clock: Clock = clock or SystemClock()
        self.queue = WorkQueue(self.clock)
        self.sizes: dict[Any, int] = {}
        self._workers = workers

    def add_dependent(self, key: Any) -> None:
        """Queue a key because one of its dependents changed.

        Owners of hundreds (see `sizes`) wait a moment, so that a thousand Pods that start one by one do not mean a
        thousand looks at a thousand Pods.
        """
        size = self.sizes.get(key, 0)
        self.queue.add_after(key, size / SIZE_PER_SECOND if size >= LARGE else 0)

    async def reconcile(self, key: Any) -> None:
        """Bring the observed state of the object called `key` nearer to its desired state."""
        raise NotImplementedError

    async def run(self) -> None:
        """Work until cancelled."""
        workers = [asyncio.ensure_future(self._work()) for _ in range(self._workers)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile_once(key)
            finally:
                self.queue.done(key)

    async def _reconcile_once(self, key: Any) -> None:
        try:
            await self.reconcile(key)
        except ApiError as error:
            if error.code not in (404, 409):
                log.warning("%s: %s: %s", self.name, key, error)
            self.queue.add_rate_limited(key)
        except Exception:
            log.exception("%s: %s", self.name, key)
            self.queue.add_rate_limited(key)
        else:
            self.queue.forget(key)
