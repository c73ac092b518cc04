"""Requests in the background: what a client of an application sees while the application changes."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from types import TracebackType

import urllib3

TEXT_LIMIT = 500


@dataclass(frozen=True)
class Answer:
    """One request and what came of it.

    Attributes:
        time: Seconds since the loop began, when the request was sent.
        seconds: How long it took.
        status: HTTP status; 0 when no answer came.
        pod: Name of the Pod that answered, as far as the answer tells (`Running on: NAME`).
        version: Version that answered, as far as the answer tells (`v=1`).
        text: The beginning of the answer's body, or the error in words.
    """

    time: float
    seconds: float
    status: int
    pod: str = ""
    version: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether the request was answered with a 2xx or 3xx status."""
        return 200 <= self.status < 400


def ask(url: str, *, began: float | None = None, timeout: float = 2.0) -> Answer:
    """Send one GET request on a connection of its own, so that a Service may choose another Pod each time.

    Args:
        url: An http(s) address.
        began: A `time.monotonic()` that `Answer.time` counts from; by default this moment.
        timeout: Seconds after which the request counts as failed.

    Returns:
        The answer; a failure to connect is an answer with status 0.
    """
    sent = time.monotonic()
    with urllib3.PoolManager(retries=False, timeout=timeout) as pool:
        try:
            response = pool.request("GET", url, headers={"Connection": "close"})
            status, text = response.status, response.data[:TEXT_LIMIT].decode("utf-8", "replace").strip()
        except urllib3.exceptions.LocationValueError as error:
            raise ValueError(f"not an address that can be asked: {url!r}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            status, text = 0, f"{type(error).__name__}: {error}"[:TEXT_LIMIT]
    return Answer(
        time=sent - (sent if began is None else began),
        seconds=time.monotonic() - sent,
        status=status,
        pod=_found(r"Running on:\s*([^\s|]+)", text) if status else "",
        version=_found(r"\bv=([\w.]+)", text) if status else "",
        text=text,
    )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


class RequestLoop:
    """Ask a URL again and again in the background while the `with` block runs.

    Example:
        with views.RequestLoop(url) as loop:
            ...                       # kubectl set image, rollout status
            loop.mark("undo")
        views.rollout(loop)

    Attributes:
        url: What is asked.
        answers: Every `Answer` so far, in the order in which they came.
        marks: Moments named with `mark`: pairs of seconds and label.
        duration: Seconds from the first request to the end of the `with` block.
    """

    def __init__(self, url: str, *, interval: float = 0.05, timeout: float = 2.0, threads: int = 2) -> None:
        """Say what to ask; nothing is sent before the `with` block.

        Args:
            url: An http(s) address.
            interval: Seconds between two requests of one thread.
            timeout: Seconds after which a request counts as failed.
            threads: How many ask at once.

        Raises:
            ValueError: The address is not one that can be asked.
        """
        if not re.match(r"https?://[^/]", url):
            raise ValueError(f"not an http(s) address: {url!r}")
        self.url = url
        self.answers: list[Answer] = []
        self.marks: list[tuple[float, str]] = []
        self._interval, self._timeout = interval, timeout
        self._began, self._ended = time.monotonic(), 0.0
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def __enter__(self) -> RequestLoop:
        """Begin to ask."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop asking and wait for the last answers."""
        self._ended = time.monotonic()
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def __repr__(self) -> str:
        """Return the outcome in one line."""
        return f"{len(self.answers) - len(self.failed)} answered, {len(self.failed)} failed in {self.duration:.1f} s"

    @property
    def duration(self) -> float:
        """Seconds since the loop began, up to its end."""
        return (self._ended or time.monotonic()) - self._began

    @property
    def failed(self) -> list[Answer]:
        """The requests that were not answered well."""
        return [answer for answer in list(self.answers) if not answer.ok]

    def mark(self, label: str) -> None:
        """Name this moment; the plot of the rollout shows it."""
        self.marks.append((self.duration, label))

    def counts(self, by: str = "pod") -> dict[str, int]:
        """Return how many good answers each Pod (`by="pod"`) or version (`by="version"`) gave."""
        if by not in ("pod", "version"):
            raise ValueError(f'by must be "pod" or "version", not {by!r}')
        return count(self.answers, by)

    def _ask(self) -> None:
        while not self._stopping.is_set():
            self.answers.append(ask(self.url, began=self._began, timeout=self._timeout))
            self._stopping.wait(self._interval)


def count(answers: list[Answer], by: str) -> dict[str, int]:
    """Count good answers by `pod` or `version`; those that do not tell count as `(not told)`."""
    result: dict[str, int] = {}
    for answer in list(answers):
        if answer.ok:
            key = getattr(answer, by) or "(not told)"
            result[key] = result.get(key, 0) + 1
    return dict(sorted(result.items()))
