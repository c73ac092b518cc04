"""Plots of what an application's clients see: who answered, what a rollout did, how scale followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kitlib.views.load import RequestLoop
from kitlib.views.picture import Picture


def load_spread(source: str | Mapping[str, int], requests: int = 100) -> Picture:
    """Show how requests to a Service spread over its Pods.

    Args:
        source: A URL to ask `requests` times, or counts per Pod that were taken elsewhere.
        requests: How many requests to send when `source` is a URL.

    Returns:
        Bars with one Pod each; `.alt` says the same in words.
    """
    raise NotImplementedError


def rollout(loop: RequestLoop, title: str = "") -> Picture:
    """Show answered and failed requests over the time of a rollout.

    Args:
        loop: A finished (or running) `RequestLoop`.
        title: Heading of the figure.

    Returns:
        Requests per second by version, failures apart, and the loop's marks as labelled lines.
    """
    raise NotImplementedError


def scale_timeline(samples: Sequence[tuple[float, int, int]], title: str = "") -> Picture:
    """Show how the ready Pods follow the wanted number.

    Args:
        samples: Triples of seconds, wanted replicas, ready replicas.
        title: Heading of the figure.

    Returns:
        Two step lines over time.
    """
    raise NotImplementedError
