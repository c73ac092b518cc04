"""Errors that a learner meets: one sentence that says what is wrong and how to mend it, never a traceback."""

from __future__ import annotations

import sys


class KitError(Exception):
    """Something the person at the keyboard can mend. Notebooks show its sentence without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def refuse_windows() -> None:
    """Refuse Windows itself, which lacks what Pods as local processes stand on: signals, sessions, Unix sockets.

    Raises:
        KitError: This is Windows.
    """
    if sys.platform == "win32":
        raise KitError(
            "The kit runs on Linux and macOS. On Windows, install it in WSL2 (`wsl --install`, then the same two "
            "commands there): https://learn.microsoft.com/windows/wsl/install"
        )
