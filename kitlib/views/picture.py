"""A matplotlib figure together with what it shows in words.

Figures are made without pyplot, so they work without a display and never appear twice in a notebook.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

DOTS_PER_INCH = 110


class Picture:
    """A figure that a notebook shows, with a text for those who do not see it.

    Attributes:
        figure: The matplotlib figure.
        alt: What the figure shows, in plain text.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        """Keep the figure and its description."""
        self.figure = figure
        self.alt = alt

    def __repr__(self) -> str:
        """Return the description, the plain-text form of the picture."""
        return self.alt

    def png(self) -> bytes:
        """Return the figure as PNG."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", facecolor="white")
        return buffer.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write the figure to `path` (the suffix names the format) and return the path."""
        target = Path(path)
        self.figure.savefig(target, dpi=DOTS_PER_INCH, bbox_inches="tight", facecolor="white")
        return target

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}
