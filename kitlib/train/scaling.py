"""How well does it scale? One study: worlds and baselines, repeated in random order, and the figure of it.

Two ceilings, never mixed. *Ideal* is N times the rate of one rank without DDP. *Machine* is N independent copies that
run at the same time: they share caches, memory and power, but never talk. Ideal minus machine is the machine's
doing, machine minus DDP is communication's.

Weak scaling: every rank keeps its batch, so N ranks work on N times as much per step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kitlib.errors import KitError
from kitlib.train import records as rec
from kitlib.train.records import Record

Start = Callable[..., Any]

INTERRUPTED = "The study has stopped, and its runs are deleted; run the cell again for a new one."


@dataclass(frozen=True)
class Arm:
    """One thing to measure.

    Attributes:
        kind: `none` (one rank without DDP), `ddp` (DDP over `world` ranks), or `copies` (`world` independent ranks).
        world: Number of ranks at work.
    """

    kind: str
    world: int


def arms_of(worlds: Iterable[int]) -> list[Arm]:
    """Return what a study of these world sizes measures."""
    sizes = sorted(set(worlds))
    baselines = [Arm("none", 1), Arm("ddp", 1)]
    return baselines + [Arm(kind, world) for world in sizes if world > 1 for kind in ("ddp", "copies")]


def check_study(worlds: list[int], repeats: int, steps: int) -> None:
    """Check the numbers of a study.

    Raises:
        KitError: One is impossible.
    """
    if not worlds or min(worlds) < 1 or repeats < 1 or steps < 10:
        raise KitError("A study needs worlds of at least 1, repeats of at least 1 and at least 10 steps.")


def scaling_study(
    worlds: Iterable[int] = (1, 2),
    repeats: int = 3,
    steps: int = 30,
    say: Callable[[str], None] = print,
    start: Start | None = None,
    **options: Any,
) -> Study:
    """Measure the throughput over 1 to N ranks, with both baselines and both ceilings.

    Every repeat measures all arms once, in a new random order (seeded), so that a machine that slows down meanwhile
    slows all of them.

    Args:
        worlds: Numbers of ranks.
        repeats: How often to measure each arm; intervals need at least 3.
        steps: Training steps of each run.
        say: Called with a line for each run.
        start: Starts a run and returns it; default: `train.submit`.
        options: More of what `train.describe` takes, the same for every run.

    Raises:
        KitError: A number is impossible, or the cluster cannot hold the largest world.
        TrainingFailed: A run failed.
    """
    sizes = list(worlds)
    check_study(sizes, repeats, steps)
    from kitlib.train import preflight, submit

    room = None if start else preflight(workers=max(sizes), steps=steps, **options)
    if room and room.possible < max(sizes):
        raise KitError(f"A study of {max(sizes)} ranks would wait for ever. {room}")
    order, found = random.Random(0), Study([])
    say(f"{repeats * len(arms_of(sizes))} runs of {steps} steps, one after the other, each with Pods of its own:")
    for repeat in range(repeats):
        arms = arms_of(sizes)
        order.shuffle(arms)
        for number, arm in enumerate(arms, 1):
            measured = _measure(arm, start or submit, steps, options)
            found.records += [{**one, "arm": arm.kind, "ranks": arm.world, "repeat": repeat} for one in measured]
            speed = found.rates(arm)[-1]
            say(f"repeat {repeat + 1}/{repeats}, run {number}/{len(arms)}: {_words(arm):<24}{speed:>10,.0f} tokens/s")
    return found


def _words(arm: Arm) -> str:
    if arm.kind == "none":
        return "1 rank, no DDP"
    ranks = f"{arm.world} rank" + ("s" if arm.world > 1 else "")
    return f"{ranks}, DDP" if arm.kind == "ddp" else f"{arm.world} independent copies"


def _measure(arm: Arm, start: Start, steps: int, options: dict[str, Any]) -> list[Record]:
    """Run one arm and return its records; whatever happens, nothing of it stays on the cluster."""
    import io

    many = arm.world if arm.kind == "copies" else 1
    workers = 1 if arm.kind == "copies" else arm.world
    started: list[Any] = []
    try:
        for _ in range(many):
            job = {"workers": workers, "steps": steps, "ddp": arm.kind == "ddp", "checkpoints": "none", **options}
            started.append(start(**job))
        for run in started:
            run.wait(file=io.StringIO())
        return [one for run in started for one in run.records()]
    except KeyboardInterrupt as error:
        error._render_traceback_ = lambda: [INTERRUPTED]  # type: ignore[attr-defined]
        raise
    finally:
        for run in started:
            run.delete()


class Study:
    """The records of a scaling study and the numbers made from them.

    Attributes:
        records: All records of all runs; each also has `arm`, `ranks` and `repeat`.
    """

    def __init__(self, records: list[Record]) -> None:
        """Take records, from `scaling_study` or from a file that `save` wrote.

        Raises:
            MixedRecordsError: Some runs used real GPUs and some simulated ones.
        """
        self.records = records
        rec.is_simulated(records)

    def save(self, path: Any) -> None:
        """Write the records; `Study(train.load(path))` reads them."""
        rec.dump(self.records, path)

    @property
    def arms(self) -> list[Arm]:
        """What was measured."""
        return sorted({Arm(one["arm"], one["ranks"]) for one in self.records}, key=lambda arm: (arm.world, arm.kind))

    def rates(self, arm: Arm) -> list[float]:
        """Return tokens/s of each repeat: the median over a run's measured steps.

        Copies are added up over the time in which all of them were at work.
        """
        mine = [one for one in self.records if (one["arm"], one["ranks"]) == (arm.kind, arm.world)]
        repeats = sorted({one["repeat"] for one in mine})
        return [_rate([one for one in mine if one["repeat"] == repeat]) for repeat in repeats]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per arm: median, 95 % interval over repeats, share of ideal and of machine."""
        single = float(np.median(self.rates(Arm("none", 1))))
        rows = []
        for arm in self.arms:
            rates = self.rates(arm)
            middle = float(np.median(rates))
            copies = self.rates(Arm("copies", arm.world)) if arm.world > 1 else []
            rows.append({
                "arm": arm.kind, "ranks": arm.world, "tokens_per_s": middle, "repeats": len(rates),
                "interval": list(rec.interval(rates, block=1)) if len(rates) > 2 else None,
                "of_ideal": middle / (arm.world * single),
                "of_machine": middle / float(np.median(copies)) if copies else None,
                "simulated": rec.is_simulated(self.records),
            })  # fmt: skip
        return rows

    def __repr__(self) -> str:
        """Return the table as text."""
        lines = ["what                          tokens/s   95 % interval    of ideal   of machine"]
        for row in self.table():
            span = "{:,.0f} - {:,.0f}".format(*row["interval"]) if row["interval"] else "3 repeats needed"
            machine = f"{100 * row['of_machine']:.0f} %" if row["of_machine"] else ""
            name = _words(Arm(row["arm"], row["ranks"]))
            ideal = f"{100 * row['of_ideal']:.0f} %"
            lines.append(f"{name:<26}{row['tokens_per_s']:>12,.0f}   {span:<17}{ideal:>7}{machine:>11}")
        return "\n".join([*lines, f"on {rec.hardware(self.records)}; weak scaling"])

    def plot(self) -> Any:
        """Draw tokens/s over the number of ranks."""
        return plot_scaling(self)


def _rate(records: list[Record]) -> float:
    """Return the tokens/s of one repeat of an arm."""
    runs = sorted({one["run"] for one in records})
    parts = [[one for one in records if one["run"] == run] for run in runs]
    if len(parts) == 1:
        return float(np.median(rec.rates(rec.measured(parts[0]))))
    steps = [[step[0] for step in rec.measured(part)] for part in parts]
    begin = max(one[0]["time"] - one[0]["t_step"] for one in steps)
    end = min(one[-1]["time"] for one in steps)
    total = 0.0
    for one in steps:
        together = [step for step in one if begin <= step["time"] - step["t_step"] and step["time"] <= end + 0.01]
        total += float(np.median([step["tokens"] / step["t_step"] for step in together or one]))
    return total


def plot_scaling(study: Study) -> Any:
    """Draw a study: medians and intervals over repeats, both baselines, ideal and machine lines, the contended region.

    Args:
        study: What `scaling_study` returned.

    Returns:
        A matplotlib figure.
    """
    from kitlib.train.report import ACCENT, INK, SOFT, _figure, _thousands

    head = rec.header(study.records)
    worlds = sorted({arm.world for arm in study.arms})
    single = float(np.median(study.rates(Arm("none", 1))))
    repeats = len(study.rates(Arm("none", 1)))
    caption = (
        f"Weak scaling: {head['tokens_per_step'] // head['world']:,} tokens per rank and step. "
        f"{_points_in_words(repeats)} "
        "Ideal = N x one rank without DDP. Machine = N independent copies at the same time. "
        f"{head['machine_cores']} cores, {head['threads']} thread per rank."
    )
    figure, axis = _figure(f"Scaling, {rec.hardware(study.records)}", caption)
    span = np.array([min(worlds), max(worlds) + 0.35])
    axis.plot(span, span * single, "--", lw=2, color=INK, label="ideal")
    copies = [world for world in worlds if world > 1 and study.rates(Arm("copies", world))]
    machine = [single] + [float(np.median(study.rates(Arm("copies", world)))) for world in copies]
    axis.plot([1, *copies], machine, ":", marker="s", ms=8, mfc="white", lw=2, color=INK, label="machine (copies)")
    _points(axis, study, [world for world in worlds if study.rates(Arm("ddp", world))], ACCENT)
    axis.bar(0.72, single, 0.16, fc="#dddddd", ec=INK, label="1 rank, no DDP")
    cores = head["machine_cores"]
    if rec.is_simulated(study.records) and max(worlds) > cores:
        axis.axvspan(cores + 0.5, max(worlds) + 0.5, fc="none", ec=SOFT, hatch="///", lw=0)
        axis.annotate("contended: more ranks than cores", (cores + 0.55, 0.02), xycoords=("data", "axes fraction"),
                      fontsize=11, backgroundcolor="white")  # fmt: skip
    axis.set(xlabel="ranks N", ylabel="tokens/s in all", xticks=worlds, xlim=(0.55, max(worlds) + 0.5), ylim=(0, None))
    _thousands(axis)
    axis.legend(fontsize=11, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    figure.words += f"\n{study!r}"
    return figure


def _points_in_words(repeats: int) -> str:
    if repeats == 1:
        return "Point = one run, so nobody knows how far it scatters."
    return f"Point = median of {repeats} runs in random order, bar = {'95 % interval' if repeats > 2 else 'both runs'}."


def _points(axis: Any, study: Study, worlds: list[int], color: str) -> None:
    single = float(np.median(study.rates(Arm("none", 1))))
    middles = [float(np.median(study.rates(Arm("ddp", world)))) for world in worlds]
    axis.plot(worlds, middles, "o-", ms=9, lw=2.4, color=color, label="DDP")
    for world, middle in zip(worlds, middles, strict=True):
        rates = study.rates(Arm("ddp", world))
        low, high = rec.interval(rates, block=1) if len(rates) > 2 else (min(rates), max(rates))
        axis.plot([world, world], [low, high], "-", lw=5, color=color, alpha=0.45, solid_capstyle="butt")
        share = f"{100 * middle / (world * single):.0f} % of ideal"
        axis.annotate(share, (world, middle), xytext=(12, -20), textcoords="offset points", fontsize=12,
                      bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
