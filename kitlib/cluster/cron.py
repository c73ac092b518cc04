"""Cron schedules: `minute hour day-of-month month day-of-week`.

Stands for the `robfig/cron` parser by which the API server checks CronJobs and their controller reads them, in its
words: `*`, lists, ranges, steps, names of months and days, and `@hourly` and its like. Left out: `@every` and seconds.
"""

from __future__ import annotations

from datetime import datetime, timedelta

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
DAYS = "sun mon tue wed thu fri sat".split()
NAMES = {3: {name: number for number, name in enumerate(MONTHS, 1)}, 4: {n: i for i, n in enumerate(DAYS)}}
HORIZON = timedelta(days=366 * 5)


class Schedule:
    """A parsed schedule.

    Args:
        text: Such as `*/5 * * * *`.

    Raises:
        ValueError: Not a schedule.
    """

    def __init__(self, text: str) -> None:
        fields = ALIASES.get(text.strip(), text).split()
        if text.startswith("@") and text.strip() not in ALIASES:
            raise ValueError(f"unrecognized descriptor: {text}")
        if len(fields) != len(RANGES):
            raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
        self._minutes, self._hours, self._days, self._months, self._weekdays = (
            _values(field, place) for place, field in enumerate(fields)
        )
        self._either = not fields[2].startswith(("*", "?")) and not fields[4].startswith(("*", "?"))

    def _has_day(self, when: datetime) -> bool:
        by_month, by_week = when.day in self._days, when.isoweekday() % 7 in self._weekdays
        return by_month or by_week if self._either else by_month and by_week

    def next(self, after: datetime) -> datetime | None:
        """Return the first time after `after`, None when there is none in five years."""
        when = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
        while when < after + HORIZON:
            if when.month not in self._months or not self._has_day(when):
                when = when.replace(hour=0, minute=0) + timedelta(days=1)
            elif when.hour not in self._hours:
                when = when.replace(minute=0) + timedelta(hours=1)
            elif when.minute not in self._minutes:
                when += timedelta(minutes=1)
            else:
                return when
        return None


def _values(field: str, place: int) -> set[int]:
    low, high = RANGES[place]
    found: set[int] = set()
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if first in ("*", "?"):
            start, end = low, high
        else:
            start = _number(first, place)
            end = _number(last, place) if last else high if step else start
        if start < low:
            raise ValueError(f"beginning of range ({start}) below minimum ({low}): {part}")
        if end > high:
            raise ValueError(f"end of range ({end}) above maximum ({high}): {part}")
        if start > end:
            raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {part}")
        if step and not _integer(step):
            raise ValueError(f"step of range should be a positive number: {part}")
        found.update(range(start, end + 1, int(step or 1)))
    return found


def _number(text: str, place: int) -> int:
    named = NAMES.get(place, {}).get(text)
    return _integer(text) if named is None else named


def _integer(text: str) -> int:
    if not (text.isdigit() and text.isascii()):
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)
