"""Plots of what an application's clients see: who answered, what a rollout did, how scale followed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kitlib.errors import KitError
from kitlib.views.load import Answer, RequestLoop, ask, count
from kitlib.views.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = (("#0072b2", ""), ("#e69f00", "//"), ("#8fd0b5", "xx"), ("#5b3a6e", ".."), ("#b0b0b0", "\\\\"))
"""Fill and hatch: told apart in colour, in grey and in print."""
FAILED = "#c0392b"
INK = "#333333"


def load_spread(source: str | Mapping[str, int], requests: int = 100) -> Picture:
    """Show how requests to a Service spread over its Pods.

    Args:
        source: A URL to ask `requests` times, or counts per Pod that were taken elsewhere.
        requests: How many requests to send when `source` is a URL.

    Returns:
        One bar per Pod; `.alt` says the same in words.

    Raises:
        KitError: The URL gave no good answer at all, or the number of requests is none.
    """
    counts = _asked(source, requests) if isinstance(source, str) else dict(source)
    total = sum(counts.values())
    figure, axes = _axes(1.2 + 0.4 * max(1, len(counts)))
    for row, answers in enumerate(counts.values()):
        axes.barh(row, answers, height=0.7, color=SHADES[0][0])
        axes.annotate(f" {answers} ({answers / max(1, total):.0%})", (answers, row), va="center", color=INK)
    axes.set_yticks(range(len(counts)), list(counts))
    axes.set_ylim(len(counts) - 0.5, -0.9)
    axes.margins(x=0.2)
    if len(counts) > 1:
        share = total / len(counts)
        axes.axvline(share, color=INK, linestyle=":")
        axes.annotate(f" even share: {share:g}", (share, -0.65), va="center", fontsize=9, color=INK)
    axes.set_xlabel("answers (number of requests)")
    axes.set_title(f"{total} requests, answered by {_plural(len(counts), 'Pod')}", loc="left")
    shares = ", ".join(f"{pod} {answers}" for pod, answers in counts.items())
    return Picture(figure, f"Who answered {total} requests: {shares or 'nobody'}.")


def _asked(url: str, requests: int) -> dict[str, int]:
    if not (isinstance(requests, int) and requests > 0):
        raise KitError(f"requests is {requests!r}: it must be a whole number of at least 1.")
    answers = [ask(url) for _ in range(requests)]
    counts = count(answers, "pod")
    if not counts:
        words = _said(answers[-1].text) or f"status {answers[-1].status}"
        raise KitError(f"No request was answered well, the last one with: {words}. Is a Pod of the Service ready?")
    return counts


def _said(text: str) -> str:
    """Return the sentence in an answer: the API server wraps its own in JSON."""
    found = re.search(r'"message":\s*"((?:[^"\\]|\\.)*)"', text)
    return json.loads(f'"{found[1]}"') if found else text.rstrip(". ")


def rollout(loop: RequestLoop, title: str = "") -> Picture:
    """Show answered and failed requests over the time of a rollout.

    Args:
        loop: A finished (or running) `RequestLoop`.
        title: Heading of the figure.

    Returns:
        Requests per second by version, failures apart, and the loop's marks as labelled lines.
    """
    answers, failed = list(loop.answers), len(loop.failed)
    bins = _bins(loop.duration, len(answers))
    width = max(loop.duration, 0.1) / bins
    figure, axes = _axes(3.4)
    floor = [0.0] * bins
    for row, (version, number) in enumerate(loop.counts("version").items()):
        label = f"v={version}: {number} answered" if version[0] != "(" else f"{number} answered"
        floor = _stack(axes, floor, _rates(answers, version, width, bins), width, *SHADES[row % len(SHADES)], label)
    _stack(axes, floor, _rates(answers, None, width, bins), width, FAILED, "XX", f"failed: {failed}")
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top * 1.3)
    _marks(axes, loop.marks, top)
    axes.set_xlim(0, width * bins)
    axes.set_xlabel("time since the loop began (s)")
    axes.set_ylabel("requests per second (1/s)")
    axes.set_title(title or f"{len(answers) - failed} requests answered, {failed} failed", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return Picture(figure, _rollout_words(loop, answers, failed))


def _rollout_words(loop: RequestLoop, answers: list[Answer], failed: int) -> str:
    parts = [f"{len(answers) - failed} requests answered and {failed} failed in {loop.duration:.1f} s"]
    for version in loop.counts("version"):
        times = [answer.time for answer in answers if answer.ok and (answer.version or "(not told)") == version]
        parts.append(f"version {version} answered {len(times)} from {min(times):.1f} s to {max(times):.1f} s")
    parts += [f"{label} at {moment:.1f} s" for moment, label in loop.marks]
    return "; ".join(parts) + "."


def _bins(duration: float, answers: int) -> int:
    """Return how many bins of equal width to draw: 60 at most, of eight answers or more, none under 0.1 s."""
    return max(1, min(60, answers // 8, int(duration / 0.1)))


def _rates(answers: list[Answer], version: str | None, width: float, bins: int) -> list[float]:
    """Return requests per second in each bin: of one version, or the failed ones (None)."""
    rates = [0.0] * bins
    for answer in answers:
        if (answer.version or "(not told)") == version if answer.ok else version is None:
            rates[min(bins - 1, int(answer.time / width))] += 1 / width
    return rates


def _stack(
    axes: Axes, floor: list[float], rates: list[float], width: float, fill: str, hatch: str, label: str
) -> list[float]:
    edges = [number * width for number in range(len(rates) + 1)]
    tops = [low + rate for low, rate in zip(floor, rates, strict=True)]
    axes.stairs(
        tops, edges, baseline=floor, fill=True, facecolor=fill, hatch=hatch, edgecolor="white", linewidth=0, label=label
    )
    return tops


def _marks(axes: Axes, marks: Sequence[tuple[float, str]], top: float) -> None:
    for number, (moment, label) in enumerate(marks):
        axes.axvline(moment, color=INK, linestyle="--", linewidth=1.2)
        axes.annotate(
            f" {label}", (moment, top * (1.24 - 0.09 * (number % 3))), color=INK, fontsize=9, va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
        )  # fmt: skip


def scale_timeline(samples: Sequence[tuple[float, int, int]], title: str = "") -> Picture:
    """Show how the ready Pods follow the wanted number.

    Args:
        samples: Triples of seconds, wanted replicas, ready replicas, such as `ScaleLog.samples`.
        title: Heading of the figure.

    Returns:
        Two step lines over time.

    Raises:
        ValueError: There are no samples.
    """
    if not samples:
        raise ValueError("no samples: nothing was recorded")
    times, wanted, ready = ([sample[column] for sample in samples] for column in range(3))
    figure, axes = _axes(2.8)
    axes.step(times, wanted, where="post", color=INK, linestyle="--", linewidth=1.6, label="wanted replicas")
    axes.step(times, ready, where="post", color=SHADES[0][0], linewidth=3, alpha=0.75, label="ready replicas")
    axes.set_ylim(bottom=0, top=max(*wanted, *ready, 1) * 1.15)
    axes.locator_params(axis="y", integer=True)
    axes.set_xlabel("time (s)")
    axes.set_ylabel("Pods (number)")
    axes.set_title(title or "Wanted and ready replicas", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    changes = [
        f"{want} wanted, {have} ready at {moment:.1f} s"
        for before, (moment, want, have) in zip([None, *samples], samples, strict=False)
        if before is None or before[1:] != (want, have)
    ]
    return Picture(figure, f"{title or 'Wanted and ready replicas'}: {'; '.join(changes)}.")


def _axes(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
