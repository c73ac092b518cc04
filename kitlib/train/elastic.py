"""When an elastic run changes its number of workers: fewer when a slot is lost, more when one is free again.

Each change is a restart from the newest checkpoint, and the global batch stays: only numbers that divide it count.
Nothing here talks to the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SHRINK_AFTER = 5.0
"""Seconds without a step after which a run does not wait for lost workers any longer."""

GROW_AFTER = 3.0
"""Seconds that a slot must be free before a run takes it; twice as many after each loss."""


def allowed(most: int, settings: dict[str, Any]) -> int:
    """Return the largest number of workers up to `most` that a run allows and that divides its batch, or 0.

    Args:
        most: How many there is room for.
        settings: The run's description: `workers`, `min_workers`, `sequences`.
    """
    smallest = settings.get("min_workers") or settings.get("workers") or most
    fitting = (one for one in range(most, smallest - 1, -1) if settings.get("sequences", 0) % one == 0)
    return next(fitting, 0)


def lost(pod: dict[str, Any]) -> bool:
    """Say whether a Pod's node does not answer: the container runs as far as anybody knows, but is not ready.

    A worker has no readiness probe, so only the node lifecycle controller makes a running one unready.
    """
    status = pod["status"]
    unready = any(one["type"] == "Ready" and one["status"] == "False" for one in status.get("conditions", []))
    running = any("running" in one.get("state", {}) for one in status.get("containerStatuses", []))
    return bool(status.get("phase") == "Running" and unready and running)


class Elastic:
    """Watches a run's Pods and steps, and says when to go on with another number of workers."""

    def __init__(self) -> None:
        """Begin to watch now."""
        self._step, self._stuck_since = -1, time.monotonic()
        self._looked_at, self._free_since, self._patience = 0.0, 0.0, GROW_AFTER

    def change(
        self, pods: list[dict[str, Any]], missing: int, workers: int, settings: dict[str, Any], step: int,
        free: Callable[[], int],
    ) -> int:  # fmt: skip
        """Return the number of workers to go on with, or 0 for no change.

        Args:
            pods: The run's Pods.
            missing: How many of them have no node, or one that does not answer.
            workers: Number of workers now.
            settings: The run's description.
            step: The newest step.
            free: Returns how many more workers the cluster has room for.
        """
        now = time.monotonic()
        if not missing or step != self._step:
            self._step, self._stuck_since = step, now
        if not missing:
            return self._more(pods, workers, settings, now, free)
        self._free_since = 0.0
        if now - self._stuck_since <= SHRINK_AFTER:
            return 0
        self._stuck_since, self._patience = now, self._patience * 2
        return allowed(workers - missing, settings)

    def _more(
        self, pods: list[dict[str, Any]], workers: int, settings: dict[str, Any], now: float, free: Callable[[], int]
    ) -> int:
        running = sum(pod["status"].get("phase") == "Running" for pod in pods)
        if workers >= settings.get("workers", 0) or running < workers or now < self._looked_at + 1:
            return 0
        self._looked_at = now
        more = allowed(min(settings["workers"], workers + free()), settings)
        if more <= workers:
            self._free_since = 0.0
        elif not self._free_since:
            self._free_since = now
        elif now - self._free_since > self._patience:
            return more
        return 0
