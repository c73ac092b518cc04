"""What training through the cluster costs, against the same script without a cluster: `kit bench train`.

Everything that is compared is measured in pairs, one after the other in turn, because machines are noisy: the ratio
of a pair is worth more than two numbers from different minutes.

- *throughput*: tokens/s of a run through the cluster over that of bare `torchrun` with the same arguments.
- *first step*: from submit to the end of the first step, over bare `torchrun` from its start to the end of its first.
- *communication efficiency*: tokens/s of N DDP ranks over that of N independent copies at the same time.
- *memory*: proportional set size (shared pages divided by their users), summed over all processes, largest sample of
  one more run, because looking costs time.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from kitlib.home import kit_home
from kitlib.train import records as rec
from kitlib.train.records import Record

WORKER = Path(__file__).with_name("worker.py")


def bench_train(repeats: int = 3, workers: int = 2, steps: int = 60) -> dict[str, Any]:
    """Measure training through the cluster that `KUBECONFIG` names, in pairs with bare torchrun.

    Args:
        repeats: Number of pairs.
        workers: Ranks of each run.
        steps: Training steps of each run.

    Returns:
        Medians and all single values, ready for JSON.
    """
    pairs: dict[str, list[float]] = {"throughput": [], "first_step": [], "communication": []}
    seconds: dict[str, list[float]] = {"submit": [], "torchrun": []}
    for repeat in range(repeats):
        # The order within a pair turns round each time, so that a drifting machine favours neither side.
        sides = [_through_cluster, _bare] if repeat % 2 else [_bare, _through_cluster]
        found = {side: side(workers, steps) for side in sides}
        (cluster, submit), (bare, start) = found[_through_cluster], found[_bare]
        pairs["throughput"].append(_speed(cluster) / _speed(bare))
        pairs["first_step"].append(submit / start)
        pairs["communication"].append(_speed(bare) / _copies(workers, steps))
        seconds["submit"].append(submit)
        seconds["torchrun"].append(start)
    memory: dict[str, float] = {}
    with _memory_watch(memory):
        _through_cluster(workers, steps)
    medians = {name: round(float(np.median(values)), 3) for name, values in pairs.items()}
    return {
        "throughput_over_torchrun": medians["throughput"], "first_step_over_torchrun": medians["first_step"],
        "communication_efficiency": medians["communication"],
        "submit_to_first_step_s": round(float(np.median(seconds["submit"])), 2),
        "torchrun_to_first_step_s": round(float(np.median(seconds["torchrun"])), 2),
        "memory_mb": {name: round(value) for name, value in memory.items()},
        "workers": workers, "steps": steps, "repeats": repeats, "simulated": rec.is_simulated(cluster),
        "pairs": {name: [round(value, 3) for value in values] for name, values in pairs.items()},
    }  # fmt: skip


def _speed(records: list[Record]) -> float:
    return float(np.median(rec.rates(rec.measured(records))))


def _first_step(records: list[Record]) -> float:
    return float(max(one["time"] for one in rec.of_kind(records, "step") if one["step"] == 1))


def _through_cluster(workers: int, steps: int) -> tuple[list[Record], float]:
    """Return a run's records and the seconds from submit to the end of its first step."""
    from kitlib import train

    begin = time.time()
    run = train.submit(workers=workers, steps=steps)
    try:
        known = run.wait(file=io.StringIO()).records()
    finally:
        run.delete()
    return known, _first_step(known) - begin


def _bare(workers: int, steps: int) -> tuple[list[Record], float]:
    """Do the same without a cluster: torchrun, the same script and arguments, the same checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}",
                   str(WORKER), "--steps", str(steps), "--checkpoints", folder]  # fmt: skip
        begin = time.time()
        known = rec.parse(_run([command])[0].splitlines())
    return known, _first_step(known) - begin


def _copies(workers: int, steps: int) -> float:
    """Return the tokens/s in all of independent copies that run at the same time."""
    command = [sys.executable, str(WORKER), "--steps", str(steps)]
    logs = [rec.parse(text.splitlines()) for text in _run([command] * workers)]
    return sum(_speed(known) for known in logs)


def _run(commands: list[list[str]]) -> list[str]:
    """Run commands at the same time with one thread each and return what they print."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    started = [subprocess.Popen(one, env=env, stdout=subprocess.PIPE, text=True) for one in commands]
    try:
        texts = [one.communicate(timeout=600)[0] for one in started]
    finally:
        for one in started:
            one.kill()
    if any(one.returncode for one in started):
        raise RuntimeError(f"{commands[0]} failed")
    return texts


class _memory_watch:  # noqa: N801
    """Sample the memory of this process and of all processes of the embedded cluster, and keep the largest sum."""

    def __init__(self, largest: dict[str, float]) -> None:
        self._largest, self._over = largest, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(2.0):
            sample = _memory()
            if sum(sample.values()) > sum(self._largest.values()):
                self._largest.clear()
                self._largest.update(sample)


def _memory() -> dict[str, float]:
    """Return MB (proportional set size) by kind of process: the cluster's own, its workers, and this one."""
    found = {"cluster": 0.0, "workers": 0.0, "client": _pss(psutil.Process())}
    marked: dict[psutil.Process, str] = {}
    mine = ""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            env = process.environ()
            marked[process] = env.get("KIT_CLUSTER_ID", "")
            if marked[process] and env.get("KIT_HOME") == str(kit_home()):
                mine = marked[process]
    for process in (one for one, mark in marked.items() if mine and mark == mine):
        with contextlib.suppress(psutil.Error, OSError):
            found["workers" if "worker.py" in " ".join(process.cmdline()) else "cluster"] += _pss(process)
    return found


def _pss(process: psutil.Process) -> float:
    return float(getattr(process.memory_full_info(), "pss", process.memory_info().rss)) / 2**20
