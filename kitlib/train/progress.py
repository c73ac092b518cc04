"""A progress bar that suits the place: ipywidgets in a notebook, rich in a terminal, plain lines in a pipe."""

from __future__ import annotations

import html
import sys
import time
from typing import Any, TextIO

from kitlib.train import records as rec
from kitlib.train.records import Record

INTERRUPTED = "Only the watching has stopped; the run goes on, and wait() takes it up again."


def in_notebook() -> bool:
    """Say whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def eta(step: int, steps: int, records: list[Record]) -> str:
    """Return the time that is left, from the last twenty steps since the last start."""
    own = [one for one in rec.of_kind(records, "step") if one["rank"] == 0]
    newest = max((one["attempt"] for one in own), default=0.0)
    recent = sorted((one for one in own if one["attempt"] == newest), key=lambda one: float(one["time"]))[-20:]
    if len(recent) < 3 or step >= steps:
        return ""
    per_step = (recent[-1]["time"] - recent[0]["time"]) / (len(recent) - 1)
    left = round(per_step * (steps - step))
    return f"{left // 60} min {left % 60} s left" if left >= 60 else f"{left} s left"


class Progress:
    """Plain lines, for a pipe or a log file: one every few seconds, when something has changed."""

    every = 3.0

    def __init__(self, title: str, file: TextIO | None = None) -> None:
        """Prepare; `with` shows it."""
        self.title, self.file = title, file or sys.stdout
        self._said, self._at = "", 0.0

    def __enter__(self) -> Progress:
        """Show the bar."""
        self.say(self.title)
        return self

    def __exit__(self, *raised: object) -> None:
        """Leave the last state standing."""

    def show(self, step: int, steps: int, text: str) -> None:
        """Show how far a run is.

        Args:
            step: Steps done.
            steps: Steps in all.
            text: State in words, such as the throughput and the time left.
        """
        line = f"step {step}/{steps}  {text}" if steps else text
        due = step >= steps > 0 or time.monotonic() - self._at > self.every
        if line != self._said and due:
            self._said, self._at = line, time.monotonic()
            print(line, file=self.file, flush=True)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        print(line, file=self.file, flush=True)

    def draw(self, records: list[Record]) -> None:
        """Show the throughput so far, where pictures can be shown."""


class Terminal(Progress):
    """A bar of rich."""

    def __enter__(self) -> Progress:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn(self.title), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                   TextColumn("{task.fields[text]}"))  # fmt: skip
        self._bar = RichProgress(*columns, console=Console(file=self.file))
        self._task = self._bar.add_task("", total=1, text="")
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """Leave the last state standing."""
        self._bar.stop()

    def show(self, step: int, steps: int, text: str) -> None:
        """Show how far a run is."""
        self._bar.update(self._task, completed=step, total=max(steps, 1), text=text)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, markup=False, highlight=False)


class Notebook(Progress):
    """A bar of ipywidgets, with the live throughput below it."""

    def __enter__(self) -> Progress:
        """Show the bar."""
        import ipywidgets as widgets
        from IPython.display import display

        wide = widgets.Layout(width="35%")
        self._bar = widgets.IntProgress(min=0, max=1, layout=wide, style={"bar_color": "#1f5fa8"})
        self._label, self._lines, self._picture = widgets.HTML(), widgets.HTML(), widgets.HTML()
        title = widgets.HTML(f"<b>{html.escape(self.title)}</b>")
        row = widgets.HBox([self._bar, self._label])
        display(widgets.VBox([title, row, self._lines, self._picture]))
        self._kept: list[str] = []
        return self

    def __exit__(self, *raised: object) -> None:
        """Let IPython show an interruption as one line, not as a traceback."""
        if isinstance(raised[1], KeyboardInterrupt):
            raised[1]._render_traceback_ = lambda: [INTERRUPTED]  # type: ignore[attr-defined]

    def show(self, step: int, steps: int, text: str) -> None:
        """Show how far a run is."""
        self._bar.max, self._bar.value = max(steps, 1), step
        words = [f"{step}/{steps}"] if steps else []
        label = "&nbsp;" + " &nbsp;·&nbsp; ".join(html.escape(word) for word in [*words, *text.split("  ")] if word)
        if label != self._label.value:
            self._label.value = label

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._kept.append(html.escape(line))
        text = "\n".join(self._kept[-40:])
        style = "font-size:12px;line-height:1.3;margin:0;white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
        self._lines.value = f'<pre style="{style}">{text}</pre>'

    def draw(self, records: list[Record]) -> None:
        """Show the throughput so far."""
        self._picture.value = live_picture(records)


def live_picture(records: list[Record], width: int = 640, height: int = 150) -> str:
    """Return tokens/s over time as a small SVG: cheap to make while the ranks need the processor.

    Restarts are breaks in the line. `report.plot_throughput` is the figure with all the definitions.
    """
    parts = [part for part in rec.attempts(records) if len(part["steps"]) > 1]
    if not parts:
        return ""
    curves = [_curve(part) for part in parts]
    begin, end = curves[0][0][0], max(curve[-1][0] for curve in curves)
    top = 1.1 * max(speed for curve in curves for _, speed in curve)

    def point(moment: float, speed: float) -> str:
        x = 52 + (width - 60) * (moment - begin) / max(end - begin, 1e-9)
        return f"{x:.1f},{8 + (height - 30) * (1 - speed / top):.1f}"

    lines = "".join(
        f'<polyline points="{" ".join(point(*one) for one in curve)}" fill="none" stroke="#1f5fa8" stroke-width="2"/>'
        for curve in curves
    )
    axis = f'<path d="M52 8V{height - 22}H{width - 8}" fill="none" stroke="#57606a"/>'
    kind = rec.hardware(records)
    words = (
        f'<text x="48" y="16" text-anchor="end">{top / 1e3:.0f}k</text>'
        f'<text x="48" y="{height - 22}" text-anchor="end">0</text>'
        f'<text x="52" y="{height - 6}">tokens/s in all, {html.escape(kind)}</text>'
        f'<text x="{width - 8}" y="{height - 6}" text-anchor="end">{end - begin:.0f} s</text>'
    )
    said = f"tokens/s in all over {end - begin:.0f} s, on {kind}: {curves[-1][-1][1]:,.0f} at the end"
    style = f'width="{width}" height="{height}" style="background:#fff;font:12px sans-serif" role="img"'
    style += f' aria-label="{html.escape(said)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {style}>{axis}{lines}{words}</svg>'


def _curve(part: dict[str, Any], points: int = 120) -> list[tuple[float, float]]:
    """Return (time, tokens/s in all) of rank 0's steps, thinned out to some points by their medians."""
    own = sorted((one for one in part["steps"] if one["rank"] == 0), key=lambda one: one["step"])
    each = max(1, len(own) // points)
    groups = [own[at : at + each] for at in range(0, len(own), each)]
    return [
        (group[-1]["time"], sorted(one["tokens"] * part["world"] / one["t_step"] for one in group)[len(group) // 2])
        for group in groups
    ]


def progress(title: str, file: TextIO | None = None) -> Progress:
    """Return the bar that suits the place."""
    if file is None and in_notebook():
        return Notebook(title)
    return (Terminal if (file or sys.stdout).isatty() else Progress)(title, file)
