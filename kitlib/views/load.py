"""Requests in the background: what a client of an application sees while the application changes."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Answer:
    """One request and what came of it.

    Attributes:
        time: Seconds since the loop began, when the request was sent.
        seconds: How long it took.
        status: HTTP status; 0 when no answer came.
        pod: Name of the Pod that answered, as far as the answer tells.
        version: Version that answered, as far as the answer tells.
        text: The answer's body, or the error in words.
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


class RequestLoop:
    """Ask a URL again and again in the background while the `with` block runs.

    Example:
        with views.RequestLoop(url) as loop:
            ...                       # kubectl set image, rollout status
            loop.mark("undo")
        views.rollout(loop)

    Attributes:
        url: What is asked.
        answers: Every `Answer` so far, in the order of their sending.
        marks: Moments named with `mark`: pairs of seconds and label.
    """

    def __init__(self, url: str, *, interval: float = 0.05, timeout: float = 2.0, threads: int = 2) -> None:
        """Say what to ask; nothing is sent before the `with` block.

        Args:
            url: An http(s) address.
            interval: Seconds between two requests of one thread.
            timeout: Seconds after which a request counts as failed.
            threads: How many ask at once.
        """
        self.url = url
        self.answers: list[Answer] = []
        self.marks: list[tuple[float, str]] = []
        self._interval, self._timeout, self._threads = interval, timeout, threads

    def __enter__(self) -> RequestLoop:
        """Begin to ask."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop asking and wait for the last answers."""
        raise NotImplementedError

    @property
    def failed(self) -> list[Answer]:
        """The requests that were not answered well."""
        return [answer for answer in self.answers if not answer.ok]

    def mark(self, label: str) -> None:
        """Name this moment; the plot of the rollout shows it."""
        raise NotImplementedError

    def counts(self, by: str = "pod") -> dict[str, int]:
        """Return how many good answers each Pod (`by="pod"`) or version (`by="version"`) gave."""
        raise NotImplementedError
