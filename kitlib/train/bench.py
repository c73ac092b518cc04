"""What training through the cluster costs, against the same script without a cluster: `kit bench train`.

Everything that is compared is measured in pairs, one after the other in turn, because machines are noisy: the ratio
of a pair is worth more than two numbers from different minutes.

- *throughput*: tokens/s of a run through the cluster over that of bare `torchrun` with the same arguments.
- *first step*: from submit to the end of the first step, over bare `torchrun` from its start to the end of its first.
- *communication efficiency*: tokens/s of N DDP ranks over that of N independent copies at the same time.
- *CPU*: what stays comparable on a busy machine. CPU seconds per step of the ranks through the cluster over those of
  bare `torchrun`, from the first step to the last; and those of the cluster's own processes and of the client, from
  submit to the end, as a share of the ranks' own.
- *memory*: proportional set size (shared pages divided by their users), summed over all processes, largest sample of
  one more run, because looking costs time.

A simulated GPU is a core, so the ranks of the other two sides are bound to the same cores, one each.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from kitlib.home import kit_home
from kitlib.train import records as rec
from kitlib.train.records import Record

WORKER = Path(__file__).with_name("worker.py")
BIND = """import os, sys
if os.environ.get("CUDA_VISIBLE_DEVICES") == "" and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["LOCAL_RANK"]) % len(cores)]})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"""
"""Binds a rank without a GPU to a core, as the kubelet binds a simulated GPU's container; becomes its program."""


def bench_train(repeats: int = 3, workers: int = 2, steps: int = 60) -> dict[str, Any]:
    """Measure training through the cluster that `KUBECONFIG` names, in pairs with bare torchrun.

    Args:
        repeats: Number of pairs.
        workers: Ranks of each run.
        steps: Training steps of each run.

    Returns:
        Medians and all single values, ready for JSON.
    """
    names = ("throughput", "first_step", "communication", "rank_cpu", "cluster_cpu")
    pairs: dict[str, list[float]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {"submit": [], "torchrun": []}
    for repeat in range(repeats):
        # The order turns round each time, so that a drifting machine favours no side.
        sides: list[Callable[[int, int], Any]] = [_through_cluster, _bare, _copies]
        found = {side: side(workers, steps) for side in sides[:: -1 if repeat % 2 else 1]}
        (cluster, submit, own_cpu), (bare, start) = found[_through_cluster], found[_bare]
        pairs["throughput"].append(_speed(cluster) / _speed(bare))
        pairs["first_step"].append(submit / start)
        pairs["communication"].append(_speed(bare) / found[_copies])
        pairs["rank_cpu"].append(_cpu(cluster) / _cpu(bare))
        pairs["cluster_cpu"].append(own_cpu / sum(one["cpu_s"] for one in rec.of_kind(cluster, "end")))
        seconds["submit"].append(submit)
        seconds["torchrun"].append(start)
    memory: dict[str, float] = {}
    with _memory_watch(memory):
        _through_cluster(workers, steps)
    medians = {name: round(float(np.median(values)), 3) for name, values in pairs.items()}
    return {
        "throughput_over_torchrun": medians["throughput"], "first_step_over_torchrun": medians["first_step"],
        "communication_efficiency": medians["communication"],
        "rank_cpu_over_torchrun": medians["rank_cpu"], "cluster_cpu_over_ranks": medians["cluster_cpu"],
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


def _cpu(records: list[Record]) -> float:
    """Return the CPU seconds of all ranks from the first step to the last."""
    signs = {"header": -1, "end": 1}
    return sum(signs[one["kind"]] * float(one["cpu_s"]) for one in records if one["kind"] in signs)


def _through_cluster(workers: int, steps: int) -> tuple[list[Record], float, float]:
    """Return a run's records, the seconds from submit to its first step, and the CPU seconds of cluster and client."""
    from kitlib import train

    cluster = _cluster_cpu()
    begin, client = time.time(), time.process_time()
    run = train.submit(workers=workers, steps=steps)
    try:
        known = run.wait(file=io.StringIO()).records()
        client = time.process_time() - client
        cluster = _cluster_cpu() - cluster
    finally:
        run.delete()
    return known, _first_step(known) - begin, cluster + client


def _bare(workers: int, steps: int) -> tuple[list[Record], float]:
    """Do the same without a cluster: torchrun, the same script and arguments, the same checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        rank = [sys.executable, "-ISc", BIND, str(WORKER), "--steps", str(steps), "--checkpoints", folder]
        env, begin = _environment(), time.time()
        known = rec.parse(_run([[*torchrun, "--no-python", *rank]], env)[0].splitlines())
    return known, _first_step(known) - begin


def _copies(workers: int, steps: int) -> float:
    """Return the tokens/s in all of independent copies that run at the same time."""
    command = [sys.executable, "-ISc", BIND, str(WORKER), "--steps", str(steps)]
    logs = [rec.parse(text.splitlines()) for text in _run([command] * workers, _environment())]
    return sum(_speed(known) for known in logs)


def _environment() -> dict[str, str]:
    """Return the variables of a rank, with the GPUs hidden where the cluster's are simulated."""
    from kitlib import train

    hidden = {"CUDA_VISIBLE_DEVICES": ""} if train.preflight().simulated else {}
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **hidden}


def _run(commands: list[list[str]], env: dict[str, str]) -> list[str]:
    """Run commands at the same time and return what they print."""
    started = [
        subprocess.Popen(one, env={**env, "LOCAL_RANK": str(number)}, stdout=subprocess.PIPE, text=True)
        for number, one in enumerate(commands)
    ]
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
    for process in _processes():
        with contextlib.suppress(psutil.Error, OSError):
            found["workers" if _is_rank(process) else "cluster"] += _pss(process)
    return found


def _cluster_cpu() -> float:
    """Return the CPU seconds so far of the cluster's own processes."""
    total = 0.0
    for process in _processes():
        with contextlib.suppress(psutil.Error, OSError):
            total += 0.0 if _is_rank(process) else sum(process.cpu_times()[:2])
    return total


def _is_rank(process: psutil.Process) -> bool:
    return "worker.py" in " ".join(process.cmdline())


def _processes() -> list[psutil.Process]:
    """Return the processes of the embedded cluster, those of its Pods included."""
    marked: dict[psutil.Process, str] = {}
    mine = ""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            env = process.environ()
            marked[process] = env.get("KIT_CLUSTER_ID", "")
            if marked[process] and env.get("KIT_HOME") == str(kit_home()):
                mine = marked[process]
    return [process for process, mark in marked.items() if mine and mark == mine]


def _pss(process: psutil.Process) -> float:
    return float(getattr(process.memory_full_info(), "pss", process.memory_info().rss)) / 2**20
