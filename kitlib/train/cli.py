"""`kit train` and `kit study`: run on the cluster that `KUBECONFIG` names, follow, keep the numbers and pictures."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from kitlib.errors import KitError
from kitlib.home import prove_writable

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def check_folder(out: Path) -> None:
    """Make a folder of results, and tell of a place that takes none before the work.

    Raises:
        KitError: The place is full, forbidden or no folder.
    """
    try:
        prove_writable(out)
    except OSError as error:
        raise KitError(f"--out {out}: {error.strerror}. Name a folder that can be written and has room.") from error


def train_command(
    workers: int,
    gpus_per_worker: int,
    preset: str,
    steps: int | None,
    out: Path,
    as_json: bool = False,
    keep_run: bool = False,
    **options: Any,
) -> int:
    """Run a training job from a shell, from the first check to the written results.

    Args:
        workers: Pods.
        gpus_per_worker: GPUs per Pod.
        preset: Name of a preset.
        steps: Training steps; None: the preset's.
        out: Folder for `metrics.json`, `records.jsonl` and the figures, as `check_folder` has made it.
        as_json: Print the metrics as one JSON object on standard output, and progress on standard error.
        keep_run: Leave the Job on the cluster.
        options: More of what `kitlib.train.describe` takes.

    Returns:
        The exit code: 0 done, 1 the training failed, 2 bad input, 130 interrupted.
    """
    from kitlib import train

    screen = sys.stderr if as_json else sys.stdout
    try:
        job = train.describe(workers, gpus_per_worker, preset, steps=steps, **options)
        fit = train.fit.preflight(job)
        if fit.possible < (job.min_workers or job.workers):
            raise KitError(str(fit).replace("\n", " "))
    except KitError as error:
        print(f"kit train: {error}", file=sys.stderr)
        return BAD_INPUT
    print(fit, file=screen, flush=True)
    return _train(job, out, screen, as_json, keep_run)


def _train(job: Any, out: Path, screen: Any, as_json: bool, keep_run: bool) -> int:
    from kitlib import train

    run, submitted = None, time.time()
    try:
        run = train.run.submit(job)
        run.wait(file=screen)
        numbers = keep_results(run, out, submitted)
        print(json.dumps(numbers) if as_json else summary(numbers, out), flush=True)
        return DONE
    except train.TrainingFailed as error:
        print(f"kit train: {error}", file=sys.stderr)
        return FAILED
    except (KitError, OSError) as error:
        print(f"kit train: {error}".replace("\n", " "), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("kit train: interrupted; the run is deleted", file=sys.stderr)
        return INTERRUPTED
    finally:
        if run is not None and not keep_run:
            train.run.take_back(run, wait=True)


def study_command(worlds: list[int], repeats: int, steps: int, out: Path, as_json: bool, **options: Any) -> int:
    """Run a scaling study from a shell and write its records, table and figure.

    Args:
        worlds: Numbers of ranks.
        repeats: How often each arm is measured.
        steps: Training steps of each run.
        out: Folder for `study.jsonl`, `scaling.json` and `scaling.png`, as `check_folder` has made it.
        as_json: Print the table as JSON on standard output, and progress on standard error.
        options: More of what `kitlib.train.describe` takes.

    Returns:
        The exit code, as of `train_command`.
    """
    from kitlib import train

    screen = sys.stderr if as_json else sys.stdout
    try:
        say = partial(print, file=screen, flush=True)
        study = train.scaling_study(worlds, repeats, steps, say, **options)
    except train.TrainingFailed as error:
        print(f"kit study: {error}", file=sys.stderr)
        return FAILED
    except KitError as error:
        print(f"kit study: {error}".replace("\n", " "), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("kit study: interrupted; its runs are deleted", file=sys.stderr)
        return INTERRUPTED
    study.save(out / "study.jsonl")
    (out / "scaling.json").write_text(json.dumps(study.table(), indent=2) + "\n")
    study.plot().savefig(out / "scaling.png", dpi=120)
    print(json.dumps(study.table()) if as_json else f"{study!r}\nresults in {out}", flush=True)
    return DONE


def keep_results(run: Any, out: Path, submitted: float) -> dict[str, Any]:
    """Write a finished run's records, metrics and figures; return the metrics."""
    from kitlib.train import records, report

    known = run.records()
    starts = [one["time"] - one["t_step"] for one in records.of_kind(known, "step")]
    first = round(min(starts) - submitted, 3) if starts else None
    numbers = {**records.metrics(known), "submit_to_first_step_s": first}
    records.dump(known, out / "records.jsonl")
    (out / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n")
    for name in ("throughput", "loss", "step_time") if numbers["tokens_per_s"] else ():
        report.plot(known, name).savefig(out / f"{name}.png", dpi=120)
    return numbers


def summary(numbers: dict[str, Any], out: Path) -> str:
    """Return the numbers as a few lines to read."""
    if numbers["loss"] is None:
        return f"nothing to train: the checkpoint is that of the last step, {numbers['steps']}\nresults in {out}"
    ranks = f"{numbers['world_size']} rank{'s' if numbers['world_size'] > 1 else ''}"
    lines = [f"{numbers['steps']} steps on {ranks}, {numbers['hardware']}; loss "
             f"{numbers['first_loss']:.3f} -> {numbers['loss']:.3f}"]  # fmt: skip
    if numbers["tokens_per_s"]:
        low, high = numbers["tokens_per_s_interval"]
        lines.append(f"{numbers['tokens_per_s']:,.0f} tokens/s in all (95 % interval {low:,.0f} to {high:,.0f})")
        lines += [f"  rank {rank}: {rate:,.0f} tokens/s" for rank, rate in enumerate(numbers["tokens_per_s_per_rank"])]
    else:
        lines.append(f"no throughput: it needs more than the {numbers['warmup']} warm-up steps")
    used = numbers["flops_utilization"]
    if used:
        lines.append(f"model FLOPs utilisation {100 * used['mfu']:.1f} % = {used['formula']}")
    if numbers["restarts"]:
        lines.append(f"{numbers['restarts']} restarts, {numbers['lost_steps']} steps computed twice")
    return "\n".join([*lines, f"results in {out}"])
