"""Figures and tables of a run, made from its records alone.

Every figure says on what it ran (a real device, or "simulated GPU (CPU)"), defines its quantities in the caption, and
stays readable in grey: lines differ by style and marker, areas by hatching, and each is labelled.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kitlib.errors import KitError
from kitlib.train import records as rec
from kitlib.train.records import Record

INK, SOFT, ACCENT = "#1a1a1a", "#8a8a8a", "#1f5fa8"
STYLES = ("-", "--", ":", "-.")


class ReportFigure(Figure):
    """A figure that notebooks show by itself, and that says in text what it shows where pictures cannot be shown.

    Attributes:
        words: Its title and caption.
    """

    words = ""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        from kitlib.views.picture import mimebundle

        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=80)
        return mimebundle(buffer.getvalue(), self.words)

    def __repr__(self) -> str:
        """Return the title and the caption."""
        return self.words


def _figure(title: str, caption: str, panels: int = 1, height: float = 4.4, **grid: Any) -> tuple[Any, Any]:
    """Return a figure with a title and a wrapped caption below its axes, bound to no display."""
    text = textwrap.fill(caption, 104)
    below = 0.2 * (text.count("\n") + 1) + 0.1
    figure = ReportFigure(figsize=(8.6, height + below))
    figure.words = f"{title}. {caption}"
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.1)
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, below])
    top, bottom = parts
    axes = top.subplots(1, panels, **grid)
    top.suptitle(title, fontsize=14, fontweight="bold", color=INK)
    bottom.text(0.02, 0.95, text, fontsize=10.5, va="top", color=INK, linespacing=1.25)
    for axis in np.atleast_1d(axes):
        axis.tick_params(labelsize=11)
        axis.xaxis.label.set_size(12)
        axis.yaxis.label.set_size(12)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    def words(value: float, _: int) -> str:
        return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"

    axis.yaxis.set_major_formatter(FuncFormatter(words))


def _smooth(values: list[float], width: int = 7) -> list[float]:
    half = width // 2
    return [float(np.median(values[max(0, at - half) : at + half + 1])) for at in range(len(values))]


def plot_throughput(records: Iterable[Record]) -> Any:
    """Draw tokens/s over time, in all and per rank; restarts are gaps with the lost steps marked.

    Args:
        records: The records of one run, finished or not.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: No rank has come to its first step yet.
    """
    kept = list(records)
    head, parts = rec.header(kept), rec.attempts(kept)
    lost = sum(rec.lost_steps(kept))
    caption = (
        f"Dots: one step (tokens of all ranks / time of the slowest rank). Line: median of 7 steps. "
        f"Hollow: the first {head['warmup']} steps of a start, not measured. "
        f"Per rank: its own tokens / its own time. {head['tokens_per_step']:,} tokens a step in all."
    )
    if len(parts) > 1:
        which = "1 step (cross) was" if lost == 1 else f"{lost} steps (crosses) were"
        fate = f"{which} lost and computed again" if lost else "no step was lost"
        caption += f" Hatched: no steps, the Job replaced Pods; {fate}."
    ranks = f"{head['world']} rank{'s' if head['world'] > 1 else ''}"
    figure, axis = _figure(f"Throughput, {ranks}, {rec.hardware(kept)}", caption)
    zero = min(one["begin"] for one in parts)
    peak = 0.0
    for number, part in enumerate(parts):
        peak = max(peak, _draw_attempt(axis, part, zero, first=number == 0))
        if number and part["steps"]:
            before = parts[number - 1]
            axis.axvspan(before["end"] - zero, part["begin"] - zero, fc="none", ec="#bbbbbb", hatch="//", lw=0)
            middle = (before["end"] + part["begin"]) / 2 - zero
            axis.annotate(f"{part['begin'] - before['end']:.1f} s", (middle, 0.06), backgroundcolor="white",
                          xycoords=("data", "axes fraction"), ha="center", fontsize=12)  # fmt: skip
            _cross_lost(axis, before, part["resumed_from"], zero)
    axis.set(xlabel="time since the first step (s)", ylabel="tokens/s", ylim=(0, peak * 1.15 or 1))
    _thousands(axis)
    if peak:
        axis.legend(fontsize=11, loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False)
    rates = rec.rates(rec.measured(kept))
    figure.words += f" Median: {np.median(rates):,.0f} tokens/s in all." if rates else ""
    return figure


def _draw_attempt(axis: Any, part: dict[str, Any], zero: float, first: bool) -> float:
    """Draw the steps of one start; return the highest value."""
    times, speeds, steps = [], [], []
    by_step: dict[int, list[Record]] = {}
    for one in part["steps"]:
        by_step.setdefault(one["step"], []).append(one)
    for step, ones in sorted(by_step.items()):
        if len(ones) == part["world"]:
            times.append(max(one["time"] for one in ones) - zero)
            speeds.append(sum(one["tokens"] for one in ones) / max(one["t_step"] for one in ones))
            steps.append(step)
    if not times:
        return 0.0
    warm = sum(step <= part["resumed_from"] + part["header"]["warmup"] for step in steps)
    axis.plot(times[:warm], speeds[:warm], "o", ms=4, mfc="none", mec=SOFT)
    axis.plot(times[warm:], speeds[warm:], "o", ms=3, color=SOFT, alpha=0.6)
    axis.plot(times[warm:], _smooth(speeds[warm:]), "-", lw=2.4, color=ACCENT, label="in all" if first else None)
    if part["world"] > 1:
        for rank in range(part["world"]):
            own = sorted((one for one in part["steps"] if one["rank"] == rank), key=lambda one: one["step"])[warm:]
            axis.plot([one["time"] - zero for one in own], _smooth([one["tokens"] / one["t_step"] for one in own]),
                      STYLES[1 + rank % 3], lw=1.6, color=INK, alpha=max(0.35, 1 - rank * 0.25),
                      label=f"rank {rank}" if first and rank < 8 else None)  # fmt: skip
    return float(np.percentile(speeds[warm:] or speeds, 98))


def _cross_lost(axis: Any, part: dict[str, Any], resumed_from: int, zero: float) -> None:
    lost = [one for one in part["steps"] if one["rank"] == 0 and one["step"] > resumed_from]
    speeds = [one["tokens"] * part["world"] / one["t_step"] for one in lost]
    axis.plot([one["time"] - zero for one in lost], speeds, "x", ms=8, mew=1.8, color=INK)


def plot_step_time(records: Iterable[Record]) -> Any:
    """Draw how long steps take and what they spend it on: data, compute, waiting for the other ranks.

    Args:
        records: The records of one run.

    Returns:
        A matplotlib figure: percentiles of the step time per rank, and the median split per rank.

    Raises:
        ValueError: The run has no measured step yet.
    """
    kept = list(records)
    steps = rec.measured(kept)
    if not steps:
        raise ValueError("no measured step yet: the first steps of a run are warm-up")
    world = rec.header(kept)["world"]
    steps = [step for step in steps if len(step) == world]
    caption = (
        f"{len(steps)} measured steps. Left: dot = median, thick bar = middle half, thin bar = 5th to 95th percentile. "
        "Right: the median of each part (medians need not add up). Compute = forward and backward until the last "
        "gradient is there, and the optimizer; wait = from then until the averaged gradients are there: communication "
        "that backward did not hide, and waiting for a slower rank. " + _probe_words(rec.communication(kept), world)
    )
    figure, (left, right) = _figure(
        f"Step time, {world} rank{'s' if world > 1 else ''}, {rec.hardware(kept)}", caption, panels=2
    )
    for rank in range(world):
        _percentile_bar(left, rank, np.array([step[rank]["t_step"] * 1e3 for step in steps]))
    left.set(xlabel="rank", ylabel="step time (ms)", xticks=range(world), xlim=(-0.6, world - 0.4))
    slow = [np.percentile([step[rank]["t_step"] * 1e3 for step in steps], 95) for rank in range(world)]
    left.set_ylim(0, 1.1 * max(slow))
    floor = np.zeros(world)
    for name, label, face, hatch in (("t_data", "data", "white", "..."), ("t_compute", "compute", "#7ea6d1", ""),
                                     ("t_wait", "wait", "white", "////")):  # fmt: skip
        height = np.array([np.median([step[rank][name] * 1e3 for step in steps]) for rank in range(world)])
        right.bar(range(world), height, 0.55, bottom=floor, fc=face, ec=INK, hatch=hatch, label=label)
        floor += height
    right.set(xlabel="rank", ylabel="median time (ms)", xticks=range(world), xlim=(-0.6, world - 0.4))
    right.set_ylim(0, float(floor.max()) * 1.25)
    right.legend(fontsize=11, loc="upper center", ncols=3, frameon=False)
    figure.words += _medians("step", [[step[rank]["t_step"] * 1e3 for step in steps] for rank in range(world)])
    return figure


def _medians(what: str, ranks: Iterable[Iterable[float]]) -> str:
    """Say the medians of the first ranks, for those who do not see the figure."""
    each = [f"rank {rank} {np.nanmedian(list(values)):.0f} ms" for rank, values in enumerate(ranks) if rank < 16]
    return f" Median {what} time: {', '.join(each)}."


def _percentile_bar(axis: Any, place: float, values: Any, color: str = INK) -> None:
    p5, p25, p50, p75, p95 = np.percentile(values, [5, 25, 50, 75, 95])
    axis.plot([place, place], [p5, p95], "-", lw=1.6, color=color)
    axis.plot([place, place], [p25, p75], "-", lw=9, color="#7ea6d1", solid_capstyle="butt")
    axis.plot(place, p50, "o", ms=7, color=color)
    axis.annotate(f"{p50:.0f}", (place, p50), xytext=(12, 0), textcoords="offset points", va="center", fontsize=12)


def _probe_words(found: dict[str, Any] | None, world: int) -> str:
    """Put the measurement of exposed communication into words."""
    if found is None:
        return ""
    low, high = (100 * end for end in found["share_interval"])
    quiet = "control {:.0f} to {:.0f} %".format(*(100 * end for end in found["control_interval"]))
    what = "exposed communication" if world > 1 else "DDP's own hooks and copies (there is no network at 1 rank)"
    if found["share"] is None:
        return f"Interleaved steps with and without averaging: no number for {what}, it is inside the noise ({quiet})."
    share = f"{100 * found['share']:.0f} % of forward and backward, 95 % interval {low:.0f} to {high:.0f} %"
    return f"Interleaved steps with and without averaging: {what} is {share} ({quiet})."


def plot_heat_map(records: Iterable[Record], value: str = "t_compute") -> Any:
    """Draw every rank and step as a tile: a straggler is a dark row, a busy moment a dark column.

    Args:
        records: The records of one run.
        value: `t_compute` (where a straggler shows), `t_wait` (where the others wait for it), or `t_step`.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: No rank has come to its first step yet, or `value` is not a time of a step.
    """
    if value not in ("t_data", "t_compute", "t_wait", "t_step"):
        raise ValueError(f"value is one of t_data, t_compute, t_wait, t_step, not {value!r}")
    kept = list(records)
    rec.header(kept)
    world, steps = max(one["world"] for one in rec.of_kind(kept, "header")), rec.of_kind(kept, "step")
    if not steps:
        raise ValueError("no records yet: no rank has come to its first step")
    grid = np.full((world, max(one["step"] for one in steps)), np.nan)
    for one in sorted(steps, key=lambda one: float(one["attempt"])):
        grid[one["rank"], one["step"] - 1] = one[value] * 1e3
    words = {"t_compute": "compute", "t_wait": "wait", "t_step": "step", "t_data": "data"}
    caption = (
        f"One tile per rank and step; darker = longer {words[value]} time (the scale is that of the steps after the "
        "warm-up). DDP makes every rank's step as long as the slowest one's: a slow rank shows in its compute time, "
        "the others show it as wait."
    )
    title = f"{words[value].capitalize()} time per rank and step, {rec.hardware(kept)}"
    figure, axis = _figure(title, caption, height=1.7 + 0.4 * world)
    axis.grid(False)
    settled = grid[:, rec.header(kept)["warmup"] :]
    limits = np.nanpercentile(grid if np.isnan(settled).all() else settled, [0, 98])
    image = axis.imshow(
        grid, aspect="auto", cmap="Greys", interpolation="nearest", vmin=limits[0] * 0.8, vmax=limits[1],
        extent=(0.5, grid.shape[1] + 0.5, world - 0.5, -0.5),
    )  # fmt: skip
    axis.set(xlabel="step", ylabel="rank", yticks=range(world))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.figure.colorbar(image, ax=axis, pad=0.02).set_label("ms", fontsize=12)
    figure.words += _medians(words[value], grid.tolist())
    return figure


def plot_loss(records: Iterable[Record], unbroken: Iterable[Record] | None = None) -> Any:
    """Draw the loss, and with a second run the proof that a resumed run equals an unbroken one.

    Args:
        records: The records of the run; restarts are marked.
        unbroken: The records of a run with the same settings that was never interrupted.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: A run has no steps.
        MixedRecordsError: One run used real GPUs and the other simulated ones.
    """
    kept, other = list(records), list(unbroken or [])
    rec.is_simulated(kept + other)
    curve = rec.loss_curve(kept)
    if not curve:
        raise ValueError("no records yet: no rank has come to its first step")
    caption = "Mean cross-entropy over the sequences of all ranks, in nats per byte (a uniform guess: ln 256 = 5.55)."
    head = rec.header(kept)
    figure_title = f"Loss, {head['world']} rank{'s' if head['world'] > 1 else ''}, {rec.hardware(kept)}"
    if other:
        gap = rec.largest_difference(kept, other)
        caption += f" Largest difference between the two runs: {gap:.1e}."
    figure, axis = _figure(figure_title, caption)
    if other:
        plain = rec.loss_curve(other)
        axis.plot(list(plain), list(plain.values()), "-", lw=6, color="#c9c9c9", label="unbroken run")
    axis.plot(list(curve), list(curve.values()), "-", lw=1.8, color=ACCENT, label="this run")
    for number, part in enumerate(rec.attempts(kept)[1:]):
        axis.axvline(part["resumed_from"], ls="--", lw=1.4, color=INK)
        axis.annotate(f"resumed from step {part['resumed_from']}", (part["resumed_from"], 0.96 - 0.08 * (number % 8)),
                      xytext=(6, 0), textcoords="offset points", xycoords=("data", "axes fraction"), va="top",
                      fontsize=11)  # fmt: skip
    axis.set(xlabel="step", ylabel="loss (nats per byte)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=11, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    first, last = min(curve), max(curve)
    figure.words += f" From {curve[first]:.2f} at step {first} to {curve[last]:.2f} at step {last}."
    return figure


NETWORKS = {"1 GbE": 1, "10 GbE": 10, "25 GbE": 25, "100 GbE": 100, "InfiniBand": 360, "NVLink": 3200}
"""Names of networks and their speed in Gbit/s, for orientation on the prediction's axis."""


def ring_all_reduce_seconds(gradient_bytes: float, ranks: int, gbit_per_s: float) -> float:
    """Return how long a ring all-reduce takes at least: 2 (n - 1) / n x S / B."""
    return 2 * (ranks - 1) / ranks * gradient_bytes / (gbit_per_s * 1e9 / 8)


def plot_network(
    records: Iterable[Record],
    gbit_per_s: float = 10,
    ranks: int = 8,
    gradient_bytes: float | None = None,
    compute_ms: float | None = None,
) -> Any:
    """Draw what a network of some speed would cost a run: the prediction of a ring all-reduce.

    Args:
        records: The records of one run: its measured compute time and its number of parameters are used.
        gbit_per_s: Speed of your own network, in Gbit/s.
        ranks: Number of ranks to predict for.
        gradient_bytes: Size of another model's gradients; default: 4 bytes for each of the run's parameters.
        compute_ms: Compute time of a step of that model on one of its GPUs, in ms; needed with `gradient_bytes`.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: The run has no measured step; a speed or the number of ranks is not positive; another model's
            gradients came without its compute time.
    """
    if gbit_per_s <= 0 or ranks < 2:
        raise ValueError("gbit_per_s must be above 0 and ranks at least 2")
    if gradient_bytes and not compute_ms:
        raise ValueError("gradient_bytes is of another model: compute_ms must say how long its step takes")
    kept = list(records)
    steps = rec.measured(kept)
    if not steps:
        raise ValueError("no measured step yet: the first steps of a run are warm-up")
    size = gradient_bytes or 4.0 * rec.header(kept)["parameters"]
    measured = float(np.median([max(one["t_compute"] for one in step.values()) for step in steps]))
    compute = compute_ms / 1e3 if compute_ms else measured
    source = "as given" if compute_ms else f"measured in this run on {rec.hardware(kept)}"
    speeds = np.logspace(min(-1, np.log10(gbit_per_s) - 0.5), max(4, np.log10(gbit_per_s) + 0.5), 200)
    cost = np.array([ring_all_reduce_seconds(size, ranks, speed) for speed in speeds])
    mine = ring_all_reduce_seconds(size, ranks, gbit_per_s)
    caption = (
        f"Prediction, not a measurement. Time = 2 (n - 1) / n x S / B, n = {ranks} ranks, S = {size / 1e6:.1f} MB of "
        f"gradients, latency left out. Dashed: compute time of a step, {compute * 1e3:.0f} ms ({source}). "
        "Communication can hide behind backward, about two thirds of it; above the line the network sets the pace."
    )
    figure, axis = _figure(f"What your network would cost, {ranks} ranks", caption)
    axis.loglog(speeds, cost * 1e3, "-", lw=2.4, color=ACCENT)
    axis.axhline(compute * 1e3, ls="--", lw=1.8, color=INK)
    axis.fill_between(speeds, cost * 1e3, compute * 1e3, where=cost > compute, fc="none", ec=SOFT, hatch="///", lw=0)
    axis.plot(gbit_per_s, mine * 1e3, "D", ms=10, color=INK)
    axis.annotate(f"yours: {gbit_per_s:g} Gbit/s\n{mine * 1e3:.3g} ms", (gbit_per_s, mine * 1e3), xytext=(14, 8),
                  textcoords="offset points", fontsize=12)  # fmt: skip
    for name, speed in NETWORKS.items():
        axis.axvline(speed, lw=0.8, color="#cccccc", zorder=0)
        axis.annotate(name, (speed, 0.98), rotation=90, fontsize=10.5, color=INK, ha="right", va="top",
                      xycoords=("data", "axes fraction"))  # fmt: skip
    low, high = cost[-1] / 2, max(1.5 * cost[0], cost[-1] / 2 * (2 * compute / cost[-1]) ** 1.6)  # names stay free
    axis.set(xlabel="network speed B (Gbit/s)", ylabel="time (ms)", xlim=(speeds[0], speeds[-1]))
    axis.set_ylim(low * 1e3, high * 1e3)
    figure.words += f" At {gbit_per_s:g} Gbit/s: {mine * 1e3:.3g} ms."
    return figure


class FigureError(KitError, ValueError):
    """A figure that cannot be drawn, or not yet; the sentence says why."""


def _in_one_sentence(plot: Callable[..., Any]) -> Callable[..., Any]:
    """Let what a figure cannot draw be a sentence, not a traceback."""

    @functools.wraps(plot)
    def drawn(*arguments: Any, **options: Any) -> Any:
        try:
            return plot(*arguments, **options)
        except KitError:
            raise
        except ValueError as error:
            raise FigureError(f"No figure: {error}.") from None

    return drawn


def plot(records: Iterable[Record], figure: str = "throughput", **options: Any) -> ReportFigure:
    """Draw a figure from records: of a run, of a file that `train.load` read, or those of `train.recorded_run()`.

    Args:
        records: What the ranks of one run wrote.
        figure: throughput, step_time, heat_map, loss or network.
        options: Passed on, such as `unbroken=` for `loss` or `value=` for `heat_map`.

    Raises:
        KitError: There is no such figure.
        ValueError: No rank has come to its first step yet.
    """
    if figure not in FIGURES:
        raise KitError(f"There is no figure {figure!r}: choose one of {', '.join(FIGURES)}.")
    drawn: ReportFigure = FIGURES[figure](records, **options)
    return drawn


FIGURES = {
    "throughput": _in_one_sentence(plot_throughput),
    "step_time": _in_one_sentence(plot_step_time),
    "heat_map": _in_one_sentence(plot_heat_map),
    "loss": _in_one_sentence(plot_loss),
    "network": _in_one_sentence(plot_network),
}
"""The figures of one run by name, as `plot` takes them."""
