"""Exercises: check, hint, solution, and a record of progress.

    course.check("05.1")           looks at the cluster: correct, not yet (and what is missing), or not attempted
    course.check("05.2", answer)   the same for an exercise that asks for a value
    course.hint("05.1")            one hint more each time
    course.solution("05.1")        one way to do it
    course.progress()              what you have done so far

The checks read the cluster through the API; they change nothing. The exercises themselves are in `exercises/`,
one file per chapter, a small function each.
"""

from __future__ import annotations

from typing import Any

from kitlib.course import record
from kitlib.course.exercise import Exercise, Message, Result, find
from kitlib.course.prepare import ensure_app
from kitlib.course.record import export, progress, progress_table

__all__ = [
    "Exercise",
    "Message",
    "Result",
    "check",
    "ensure_app",
    "export",
    "hint",
    "progress",
    "progress_table",
    "solution",
]


def check(name: str, answer: Any = ...) -> Result:
    """Look whether an exercise is solved, and remember the outcome.

    Args:
        name: Number of the exercise, such as `"05.1"`.
        answer: Your answer, for an exercise that asks for one.

    Returns:
        A `Result` that shows itself; `result.outcome` is `correct`, `not yet` or `not attempted`.

    Raises:
        KitError: There is no such exercise, or the cluster cannot be asked.
    """
    exercise = find(name)
    result = exercise.check(answer)
    record.note_check(exercise.name, result.outcome)
    return result


def hint(name: str, number: int | None = None) -> Message:
    """Give a hint: the first, then with each call the next.

    Args:
        name: Number of the exercise.
        number: Which hint (from 1), instead of the next.

    Raises:
        KitError: There is no such exercise.
    """
    exercise = find(name)
    given = record.note_hint(exercise.name) if number is None else number
    position = max(1, min(given, len(exercise.hints)))
    left = len(exercise.hints) - position
    more = f" ({left} more)" if left else ""
    last = "" if left else f'\n\nThat was the last hint; `course.solution("{exercise.name}")` shows a way.'
    return Message(f"Hint {position} of {len(exercise.hints)}{more}", exercise.hints[position - 1] + last)


def solution(name: str) -> Message:
    """Show one solution.

    Args:
        name: Number of the exercise.

    Raises:
        KitError: There is no such exercise.
    """
    exercise = find(name)
    record.note_solution(exercise.name)
    return Message(f"Solution {exercise.name}", f"```\n{exercise.solution.strip()}\n```")
