"""Ages and durations for people, such as `3m12s` and `5d`.

Stands for `duration.HumanDuration` of apimachinery.
"""

from __future__ import annotations

from datetime import datetime, timezone

UNKNOWN = "<unknown>"


def human_duration(seconds: float) -> str:
    """Return a duration as kubectl prints ages: two units at most, the coarser the longer it is.

    Args:
        seconds: The duration; up to two seconds below zero count as zero.
    """
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(whole, 0)}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    return _days(hours)


def _days(hours: int) -> str:
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    if hours < 24 * 365 * 8:
        return _two(hours // 24 // 365, "y", hours // 24 % 365, "d")
    return f"{hours // 24 // 365}y"


def _two(major: int, unit: str, minor: int, small: str) -> str:
    return f"{major}{unit}{minor}{small}" if minor else f"{major}{unit}"


def parse_time(text: str) -> datetime | None:
    """Return the time of a timestamp of the API, or None."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, AttributeError):
        return None


class Moment:
    """The moment at which a table is made.

    Args:
        now: That moment, with its time zone.
    """

    def __init__(self, now: datetime) -> None:
        self._now = now

    def since(self, timestamp: str | None) -> str:
        """Return the age of a timestamp, `<unknown>` without one."""
        then = parse_time(timestamp) if timestamp else None
        return UNKNOWN if then is None else human_duration((self._now - then).total_seconds())

    def between(self, start: str, end: str | None) -> str:
        """Return the time from `start` to `end`, or to now."""
        first, last = parse_time(start), parse_time(end) if end else self._now
        return UNKNOWN if first is None or last is None else human_duration((last - first).total_seconds())
