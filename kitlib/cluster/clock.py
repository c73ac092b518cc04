"""Time as the cluster's components see it.

Stands for `k8s.io/utils/clock`: controllers take a `Clock`, so that tests turn its hands instead of waiting.
Also holds the two time formats of the API, `metav1.Time` (seconds) and `metav1.MicroTime` (microseconds).
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """What a component may ask about time."""

    def now(self) -> float:
        """Return seconds since the epoch: a time to show, which jumps when somebody sets the clock."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment: for intervals, since it passes evenly whatever the clock shows."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """See `Clock.now`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        import asyncio

        await asyncio.sleep(seconds)


def rfc3339(seconds: float) -> str:
    """Return a `metav1.Time`, such as `2026-11-23T11:10:51Z`."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_now() -> str:
    """Return the time now as a `metav1.Time`."""
    return rfc3339(time.time())


def rfc3339_micro(seconds: float) -> str:
    """Return a `metav1.MicroTime`, such as `2026-11-23T11:10:51.123456Z`."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> float:
    """Return seconds since the epoch of a time of the API, with or without a fraction.

    Raises:
        ValueError: `text` is not an RFC 3339 time.
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
