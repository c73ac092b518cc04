"""Errors that a learner meets: one sentence that says what is wrong and how to mend it, never a traceback."""

from __future__ import annotations


class KitError(Exception):
    """Something the person at the keyboard can mend. Notebooks show its sentence without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]
