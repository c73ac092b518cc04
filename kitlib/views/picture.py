"""A matplotlib figure together with what it shows in words.

Figures are made without pyplot, so they work without a display and never appear twice in a notebook.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # takes half a second, which a chapter without plots need not wait for

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
        return mimebundle(self.png(), self.alt)


def mimebundle(png: bytes, alt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a PNG as a notebook shows it, with its alternative text.

    JupyterLab and VS Code give an `image/png` no `alt`, whatever its metadata say, and an image in HTML theirs.

    Args:
        png: The picture.
        alt: What it shows, in plain text.

    Returns:
        Data and metadata of an output, by MIME type.
    """
    source = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(alt)}">'
    return {"text/html": image, "image/png": png, "text/plain": alt}, {"image/png": {"alt": alt}}
