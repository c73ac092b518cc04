"""The records of a run and the numbers made from them.

`measure.py` prints one JSON line per event, on every rank and for every step. Everything here works on those lines
alone, so a number or a figure can be made again without the cluster.

Definitions, used everywhere and printed under the figures:

- *tokens/s*: the tokens of one step over all ranks, divided by that step's time on the slowest rank; median over the
  measured steps. The first `warmup` steps of every start are not measured.
- *interval*: 95 %, from a bootstrap over blocks of neighbouring steps (steps of one run are not independent), or
  over runs where there are several.
- *lost steps*: steps that were computed, not saved, and computed again after a restart.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kitlib.errors import KitError

MARK = "@kit "
SCHEMA = 1

Record = dict[str, Any]


class NoRecordsError(KitError, ValueError):
    """What is asked for has not been recorded (yet)."""


class MixedRecordsError(ValueError):
    """Records of simulated and of real GPUs were about to meet in one figure or number."""


def parse_line(line: str) -> Record | None:
    """Return the record that a log line holds, or None for any other line."""
    if not line.startswith(MARK):
        return None
    try:
        found = json.loads(line[len(MARK) :])
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("v") == SCHEMA else None


def parse(lines: Iterable[str]) -> list[Record]:
    """Return the records among some log lines."""
    return [found for line in lines if (found := parse_line(line))]


def load(path: str | Path) -> list[Record]:
    """Return the records of a file that `dump` wrote.

    Raises:
        ValueError: The file holds no record of a version that this kit knows.
    """
    found = [json.loads(line) for line in Path(path).read_text().splitlines() if line.strip()]
    if not found or any(one.get("v") != SCHEMA for one in found):
        raise ValueError(f"{path} holds no records of version {SCHEMA}")
    return found


def dump(records: Iterable[Record], path: str | Path) -> Path:
    """Write records to a file, one JSON object a line."""
    target = Path(path)
    target.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in records))
    return target


def of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    """Return the records of one kind: late, header, step, save, probe, warning, stopped, error, end."""
    return [one for one in records if one["kind"] == kind]


def header(records: Iterable[Record]) -> Record:
    """Return the newest header.

    Raises:
        NoRecordsError: There is none.
    """
    headers = of_kind(records, "header")
    if not headers:
        raise NoRecordsError("No records yet: no rank has come to its first step. `wait()` follows the run.")
    newest: Record = max(headers, key=lambda one: (one["attempt"], -one["rank"]))
    return newest


def is_simulated(records: Iterable[Record]) -> bool:
    """Say whether the backend that ran was a CPU standing for a GPU.

    Raises:
        MixedRecordsError: Some records come from real GPUs and some do not.
    """
    kinds = {one["simulated"] for one in of_kind(records, "header")}
    if len(kinds) > 1:
        raise MixedRecordsError(
            "some of these runs used real GPUs and some simulated ones (CPU): show them in two figures"
        )
    return bool(kinds.pop()) if kinds else True


def hardware(records: Iterable[Record]) -> str:
    """Say on what a run ran: the GPU's name, "simulated GPU (CPU)", or that it claimed no GPU."""
    kept = list(records)
    if not is_simulated(kept):
        return str(header(kept)["device"])
    without = any(head.get("slots") == "" for head in of_kind(kept, "header"))
    return "CPU, no GPU" if without else "simulated GPU (CPU)"


def attempts(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Split a run at its restarts.

    Returns:
        One entry per start, oldest first: `header`, `resumed_from`, `world`, `begin` and `end` (times of its first
        and last record), `steps` (the records, all ranks).
    """
    kept = list(records)
    heads = {one["attempt"]: one for one in reversed(of_kind(kept, "header"))}
    found: list[dict[str, Any]] = [
        {"header": head, "resumed_from": head["resumed_from"], "world": head["world"],
         "steps": [one for one in of_kind(kept, "step") if one["attempt"] == attempt]}
        for attempt, head in sorted(heads.items())
    ]  # fmt: skip
    for one in found:
        times = [step["time"] for step in one["steps"]] or [one["header"]["time"]]
        one["begin"], one["end"] = min(times), max(times)
    return found


def lost_steps(records: Iterable[Record]) -> list[int]:
    """Return for every restart how many steps were computed twice."""
    parts = attempts(records)
    reached = [max((step["step"] for step in part["steps"]), default=part["resumed_from"]) for part in parts]
    return [max(0, before - part["resumed_from"]) for before, part in zip(reached, parts[1:], strict=False)]


def loss_curve(records: Iterable[Record]) -> dict[int, float]:
    """Return step to loss; a step that was computed twice has the value of its last time."""
    steps = sorted((one for one in of_kind(records, "step") if one["rank"] == 0), key=lambda one: one["attempt"])
    return {one["step"]: one["loss"] for one in steps}


def largest_difference(one: Iterable[Record], other: Iterable[Record]) -> float:
    """Return the largest difference between two runs' losses over the steps that both have.

    Raises:
        NoRecordsError: The runs have no step in common.
    """
    left, right = loss_curve(one), loss_curve(other)
    common = left.keys() & right.keys()
    if not common:
        raise NoRecordsError("The two runs have no step in common.")
    return max(abs(left[step] - right[step]) for step in common)


def measured(records: Iterable[Record]) -> list[dict[int, Record]]:
    """Return the measured steps in order of time, each as rank to record.

    Warm-up steps and steps that not every rank has reported are left out.
    """
    found = []
    for part in attempts(records):
        by_step: dict[int, dict[int, Record]] = defaultdict(dict)
        for one in part["steps"]:
            by_step[one["step"]][one["rank"]] = one
        first = part["resumed_from"] + part["header"]["warmup"]
        found += [by_step[step] for step in sorted(by_step) if step > first and len(by_step[step]) == part["world"]]
    return found


def rates(steps: Iterable[dict[int, Record]]) -> list[float]:
    """Return tokens/s of each step: the tokens of all ranks over the slowest rank's time."""
    return [sum(one["tokens"] for one in step.values()) / max(one["t_step"] for one in step.values()) for step in steps]


def interval(values: Sequence[float], of: Callable[..., Any] = np.median, block: int = 5) -> tuple[float, float]:
    """Return the 95 % interval of a statistic: bootstrap over blocks of neighbouring values, seeded."""
    data = np.asarray(values, dtype=float)
    if len(data) < 2 * block:
        block = 1
    blocks = data[: len(data) // block * block].reshape(-1, block)
    draws = np.random.default_rng(0).integers(len(blocks), size=(1000, len(blocks)))
    low, high = np.percentile(of(blocks[draws].reshape(1000, -1), axis=1), [2.5, 97.5])
    return float(low), float(high)


def cost_per_million_tokens(tokens_per_s: float, gpus: int, price_per_gpu_hour: float) -> float:
    """Return what a million tokens cost, in the currency of the price: price x GPUs / (3600 x tokens/s) x 10^6."""
    return price_per_gpu_hour * gpus / (3600 * tokens_per_s) * 1e6


def flops_utilization(records: Iterable[Record]) -> dict[str, Any] | None:
    """Return the model FLOPs utilisation with its formula, or None where the device's peak is not known.

    It is never given for a CPU: peaks come from a short table in `measure.py` (dense bf16), nothing is guessed.
    """
    kept = list(records)
    head = header(kept)
    speeds = rates(measured(kept))
    if not head["peak_flops"] or not speeds or head["simulated"]:
        return None
    share = float(np.median(speeds)) / head["world"] * head["flops_per_token"] / head["peak_flops"]
    formula = (
        f"tokens/s per GPU x ({head['flops_formula']}) / {head['peak_flops']:.3g} FLOP/s, dense bf16 ({head['device']})"
    )
    return {"mfu": share, "formula": formula}


def communication(records: Iterable[Record]) -> dict[str, Any] | None:
    """Return the share of a step that waits for communication, measured with interleaved arms, or None without a probe.

    Each round times three arms in random order: gradients averaged (`sync`), the same again (`control`), and not
    averaged (`no_sync`); the slowest rank counts. `share` is None where its interval meets the control's: then the
    machine's noise is as large as the effect and there is no number to give.
    """
    by_round: dict[str, dict[int, float]] = {"sync": {}, "control": {}, "no_sync": {}}
    for one in of_kind(records, "probe"):
        arm = by_round[one["arm"]]
        arm[one["step"]] = max(one["t"], arm.get(one["step"], 0.0))
    common = sorted(set.intersection(*(set(arm) for arm in by_round.values())))
    if len(common) < 5:
        return None
    sync, control, alone = (np.array([arm[step] for step in common]) for arm in by_round.values())

    def shares(other: Any) -> tuple[float, tuple[float, float]]:
        ratios = (1 - other / sync).tolist()
        return float(np.median(ratios)), interval(ratios, block=1)

    (share, spread), (_, quiet) = shares(alone), shares(control)
    apart = spread[0] > max(quiet[1], 0.0)
    return {"share": share if apart else None, "share_interval": spread, "control_interval": quiet,
            "sync_s": float(np.median(sync)), "no_sync_s": float(np.median(alone)), "rounds": len(common)}  # fmt: skip


def metrics(records: Iterable[Record]) -> dict[str, Any]:
    """Return the numbers of a run, ready for JSON.

    Raises:
        NoRecordsError: No rank has come to its first step yet.
        MixedRecordsError: The records mix simulated and real GPUs.
    """
    kept = list(records)
    head, steps = header(kept), measured(kept)
    speeds = rates(steps)
    curve, ends = loss_curve(kept), of_kind(kept, "end")
    numbers: dict[str, Any] = {
        "run": head["run"], "simulated": is_simulated(kept), "hardware": hardware(kept), "device": head["device"],
        "backend": head["backend"],
        "world_size": head["world"], "steps": max(curve, default=head["resumed_from"]),
        "loss": curve[max(curve)] if curve else None, "first_loss": curve[min(curve)] if curve else None,
        "tokens_per_s": None, "tokens_per_s_per_rank": [], "measured_steps": len(steps), "warmup": head["warmup"],
        "tokens_per_step": head["tokens_per_step"], "parameters": head["parameters"],
        "restarts": max(0, len(attempts(kept)) - 1), "lost_steps": sum(lost_steps(kept)),
        "ranks_equal": bool(ends) and len({one["parameters_bits"] for one in ends}) == 1,
        "finished": len({one["rank"] for one in ends}) == head["world"],
        "peak_memory_mb": [one["peak_memory_mb"] for one in sorted(ends, key=lambda one: one["rank"])],
        "script_sha256": head["script"], "torch": head["torch"],
    }  # fmt: skip
    if speeds:
        p5, p50, p95 = np.percentile(speeds, [5, 50, 95])
        newest = [step for step in steps if len(step) == head["world"]]
        numbers |= {
            "tokens_per_s": float(p50), "tokens_per_s_p5_p95": [float(p5), float(p95)],
            "tokens_per_s_interval": list(interval(speeds)),
            "tokens_per_s_per_rank": [
                float(np.median([step[rank]["tokens"] / step[rank]["t_step"] for step in newest]))
                for rank in range(head["world"])
            ],
            "step_ms": float(np.median([max(one["t_step"] for one in step.values()) for step in steps]) * 1e3),
        }  # fmt: skip
    return numbers | {"flops_utilization": flops_utilization(kept), "communication": communication(kept)}
