"""What an exercise is, how one is declared, and how its three outcomes show themselves."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kitlib.connect import current
from kitlib.errors import KitError
from kitlib.transport import line_in_the_cell

CORRECT, NOT_YET, NOT_ATTEMPTED = "correct", "not yet", "not attempted"
SIGNS = {CORRECT: "✔ Correct", NOT_YET: "… Not yet", NOT_ATTEMPTED: "○ Not attempted"}


class NotYet(Exception):  # noqa: N818  (an outcome, not an error)
    """Raised by a checker: tried, but something is missing; the message says what."""


class NotAttempted(Exception):  # noqa: N818  (an outcome, not an error)
    """Raised by a checker: nothing was tried; the message says where to begin."""


class Message:
    """A short text that a notebook shows as Markdown and everything else as plain text."""

    def __init__(self, title: str, text: str) -> None:
        """Keep a title and a text in Markdown."""
        self.title = title
        self.text = text

    def __repr__(self) -> str:
        """Return the plain text."""
        return f"{self.title}: {self.text}"

    def _repr_markdown_(self) -> str:
        return f"**{self.title}**\n\n{self.text}"


class Result(Message):
    """The outcome of a check.

    Attributes:
        exercise: Number of the exercise.
        outcome: `correct`, `not yet` or `not attempted`.
    """

    def __init__(self, exercise: str, outcome: str, text: str) -> None:
        """Keep the outcome and what there is to say about it."""
        super().__init__(f"{SIGNS[outcome]} ({exercise})", text)
        self.exercise = exercise
        self.outcome = outcome

    @property
    def correct(self) -> bool:
        """Whether the exercise is solved."""
        return self.outcome == CORRECT

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        data = {"exercise": self.exercise, "outcome": self.outcome, "text": self.text}
        return {
            "text/plain": repr(self),
            "text/markdown": f"**{self.title}**: {self.text}",
            "application/vnd.kit.result+json": data,
        }


Checker = Callable[[Any, Any], str]
"""Takes the `Cluster` and the learner's answer; returns a sentence, or raises `NotYet` or `NotAttempted`."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of the course.

    Attributes:
        name: Number, such as `05.1`.
        title: What it is about, in a few words.
        hints: From a nudge to nearly the answer.
        solution: One solution, as the cell of a notebook.
        checker: The function that looks.
        needs_answer: Whether `check` wants a value.
        needs_cluster: Whether the checker asks the cluster.
    """

    name: str
    title: str
    hints: Sequence[str]
    solution: str
    checker: Checker
    needs_answer: bool
    needs_cluster: bool

    def check(self, answer: Any = ...) -> Result:
        """Return the outcome for the cluster's present state and this answer."""
        if self.needs_answer and (answer is ... or answer is None):
            text = f'Put your answer where the three dots are: `course.check("{self.name}", answer)`.'
            return Result(self.name, NOT_ATTEMPTED, text)
        cluster = current() if self.needs_cluster else None
        try:
            if cluster is None:
                return Result(self.name, CORRECT, self.checker(None, answer))
            with cluster.errors():
                return Result(self.name, CORRECT, self.checker(cluster, answer))
        except NotAttempted as word:
            return Result(self.name, NOT_ATTEMPTED, str(word))
        except NotYet as word:
            return Result(self.name, NOT_YET, str(word))
        except Exception as error:
            if isinstance(error, KitError) or not self.needs_answer:
                raise
            line = "".join(f" in line {text}" for text in line_in_the_cell(error))
            return Result(self.name, NOT_YET, f"With this answer, there is a {type(error).__name__}{line}: {error}.")


_registry: dict[str, Exercise] = {}


def exercise(
    name: str,
    title: str,
    *,
    hints: Sequence[str],
    solution: str,
    needs_answer: bool = False,
    needs_cluster: bool = True,
) -> Callable[[Checker], Checker]:
    """Declare the decorated function as the checker of an exercise.

    Args:
        name: Number, such as `"05.1"`.
        title: What it is about, in a few words.
        hints: From a nudge to nearly the answer.
        solution: One solution, as the cell of a notebook.
        needs_answer: Whether `check` wants a value.
        needs_cluster: Whether the checker asks the cluster.
    """

    def declare(checker: Checker) -> Checker:
        _registry[name] = Exercise(name, title, hints, solution, checker, needs_answer, needs_cluster)
        return checker

    return declare


def find(name: str) -> Exercise:
    """Return an exercise.

    Raises:
        KitError: There is none of that number.
    """
    known = {entry.name: entry for entry in all_exercises()}
    full = str(name).zfill(4)  # 5.1 stands for 05.1
    if full not in known:
        near = [other for other in known if other.startswith(full[:2])] or list(known)
        raise KitError(f"There is no exercise {name!r}; there are {', '.join(near)}.")
    return known[full]


def all_exercises() -> list[Exercise]:
    """Return every exercise of the course, in order."""
    from kitlib.course import exercises

    for module in pkgutil.iter_modules(exercises.__path__):
        importlib.import_module(f"{exercises.__name__}.{module.name}")
    return [_registry[name] for name in sorted(_registry)]
