"""What `worker.py` says: records, times, errors, exit codes. It lies beside the worker and trains nothing.

A record is one line on standard output: `@kit `, then JSON. Every figure and every number of a run is made from
these lines alone, on every rank and for every step.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

SCHEMA = 1  # version of the records
MARK = "@kit "
PEAK_FLOPS = {"MIG": None, "A100": 312e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12,
              "H200 NVL": 835e12, "H200": 989e12}  # fmt: skip
"""Dense bf16 FLOP/s of a whole GPU; the first entry that a device's name contains counts."""
ARMS = {"sync": True, "control": True, "no_sync": False}  # of the probe: whether gradients are averaged

cuda = torch.cuda.is_available()
started = round(time.time(), 3)
common: dict[str, Any] = {"v": SCHEMA, "attempt": started}
"""What every record of this process says; `attempt` is rank 0's start, the same on all ranks once they have met."""


def record(kind: str, **values: Any) -> None:
    """Print one event as one line."""
    sys.stdout.write(MARK + json.dumps({**common, "kind": kind, "time": round(time.time(), 3), **values}) + "\n")
    sys.stdout.flush()


def begin(run: str, rank: int, local_rank: int) -> None:
    """Say who speaks, and check that this process has the device that it should have."""
    common.update(run=run, rank=rank)
    if cuda and local_rank >= torch.cuda.device_count():
        wrong(f"process {local_rank} of this machine has no GPU of its own, there are {torch.cuda.device_count()}")
    if not cuda and "KIT_SIMULATED_GPU" not in os.environ and os.environ.get("KIT_GPUS", "0") != "0":
        warn("this Pod holds a GPU that torch cannot use (image without CUDA, or older driver): training on the CPU")


def warn(text: str) -> None:
    """Say something that does not end the run; the notebook shows it with the rank."""
    record("warning", text=text)
    print(f"worker.py: {text}", file=sys.stderr, flush=True)


def wrong(message: str) -> NoReturn:
    """End with exit code 64 and one line: the configuration is wrong and a retry cannot help."""
    print("worker.py:", " ".join(message.split()), file=sys.stderr, flush=True)
    os._exit(64)


def leave(code: int) -> NoReturn:
    """End the process group and the process.

    Without `os._exit` about one finished gloo run in ten aborts while the interpreter shuts down
    ("terminate called without an active exception", pytorch issue 190489).
    """
    if code == 0 and dist.is_initialized():
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def failed(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Report an error that nobody has caught, with its rank, and end at once: the other ranks notice and end too."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(text, file=sys.__stderr__, flush=True)  # sys.stderr is torch.distributed's buffer at this moment
    record("error", error=f"{kind.__name__}: {error}"[:500])
    leave(1)


sys.excepthook = failed


def alive(limit: float) -> None:
    """Start the clock again: a process that does not call this within `limit` seconds hangs.

    It then prints the line on which it hangs and ends with 1, so that the Job can replace it.
    """
    faulthandler.dump_traceback_later(limit, exit=True, file=2)


def stamp() -> Any:
    """Take the time without waiting for the GPU: an event in its stream, or the clock on a CPU."""
    if not cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds(begin: Any, end: Any) -> float:
    """Return the seconds between two stamps."""
    if not cuda:
        return float(round(end - begin, 6))
    end.synchronize()
    return float(round(begin.elapsed_time(end) / 1e3, 6))


def last_gradient(*last: Any) -> list[Any]:
    """Return a list whose only entry is always the stamp of the newest gradient of these parameters.

    Args:
        last: The parameters that backward reaches last: from then on it only waits for the other ranks.
    """
    newest = [stamp()]
    for parameter in last:
        parameter.register_post_accumulate_grad_hook(lambda _: newest.__setitem__(0, stamp()))
    return newest


def times(begin: Any, data: Any, ready: Any, averaged: Any, end: Any) -> dict[str, float]:
    """Return the seconds of a step's parts.

    Args:
        begin: When the step began.
        data: When its data was there.
        ready: When backward had made the last gradient.
        averaged: When the gradients of all ranks had been averaged.
        end: When the optimizer was done.
    """
    whole, compute = seconds(begin, end), seconds(data, ready) + seconds(averaged, end)
    waiting = {"t_data": seconds(begin, data), "t_wait": seconds(ready, averaged)}
    return {**waiting, "t_compute": round(compute, 6), "t_step": whole}


def header(parameters: int, positions: int, text: Any, config: dict[str, Any], **facts: Any) -> None:
    """Record what runs, on what, and how often.

    Args:
        parameters: Number of parameters.
        positions: How many of them are position embeddings, which cost no FLOPs worth counting.
        text: The training data, uint8.
        config: The settings.
        facts: `script` (its SHA-256), `world`, `global_batch`, `micro_batch`, `grad_accum`, `resumed_from`.
    """
    device = torch.cuda.get_device_name() if cuda else "CPU"
    attention = 12 * config["n_layer"] * config["n_embd"] * config["block_size"]
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    record(
        "header", **facts, config=config, measure=own,
        torch=torch.__version__, backend="nccl" if cuda else "gloo", simulated=not cuda, device=device,
        node=os.environ.get("NODE_NAME", socket.gethostname()), pod=os.environ.get("POD_NAME", ""),
        slots=os.environ.get("KIT_SIMULATED_GPU", ""), threads=config["threads"],
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        machine_cores=os.cpu_count(), ddp=dist.is_initialized(), block_size=config["block_size"],
        tokens_per_step=facts["global_batch"] * config["block_size"], parameters=parameters, steps=config["steps"],
        warmup=config["warmup"], flops_per_token=6 * (parameters - positions) + attention,
        flops_formula="6 N + 12 n_layer n_embd block_size, N without position embeddings",
        peak_flops=next((peak for name, peak in PEAK_FLOPS.items() if name in device), None),
        data_bytes=len(text), data=hashlib.sha256(text.numpy().tobytes()).hexdigest()[:16], started=started,
        cpu_s=round(time.process_time(), 3),
    )  # fmt: skip


def probe(rounds: int, gradients: Callable[[int, bool], Any]) -> None:
    """Time forward and backward in interleaved arms: averaged, averaged once more (control), and not averaged.

    Ranks drift apart without averaging, so this comes last and its gradients are thrown away.
    """
    for number in range(rounds):
        order = torch.randperm(len(ARMS), generator=torch.Generator().manual_seed(number)).tolist()
        for arm in (list(ARMS)[place] for place in order):
            dist.barrier()
            begin = stamp()
            gradients(number, ARMS[arm])
            record("probe", arm=arm, step=number, t=seconds(begin, stamp()))


def end(step: int, bits: int) -> None:
    """Record that this rank has finished: the sum of its parameters' bits, its CPU seconds and largest memory."""
    peak, cpu_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, round(time.process_time(), 3)
    record(
        "end", step=step, parameters_bits=bits, ranks_equal=True, cpu_s=cpu_s,
        peak_memory_mb=round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
        peak_gpu_memory_mb=round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None,
    )  # fmt: skip
