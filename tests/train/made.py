"""Records as a run would print them, made up: no process, no torch."""

from __future__ import annotations

from kitlib.train.records import Record


def header(world: int = 2, rank: int = 0, attempt: float = 100.0, **other: object) -> Record:
    return {
        "v": 1, "kind": "header", "run": "made", "attempt": attempt, "rank": rank, "time": attempt + 1, "script": "abc",
        "simulated": True, "device": "CPU", "backend": "gloo", "world": world, "ddp": world > 1, "resumed_from": 0,
        "micro_batch": 4, "grad_accum": 1, "global_batch": 4 * world, "block_size": 32, "tokens_per_step": 128 * world,
        "parameters": 1000, "steps": 20, "warmup": 2, "flops_per_token": 6000, "flops_formula": "6 N",
        "peak_flops": None, "torch": "2", "threads": 1, "machine_cores": 2, "cores": 1, **other,
    }  # fmt: skip


def step(number: int, rank: int = 0, attempt: float = 100.0, t_step: float = 0.1, **other: object) -> Record:
    return {
        "v": 1, "kind": "step", "run": "made", "attempt": attempt, "rank": rank, "time": attempt + 1 + number * 0.1,
        "step": number, "loss": 5.0 / number, "tokens": 128, "t_data": 0.001, "t_compute": 0.8 * t_step,
        "t_wait": 0.1 * t_step, "t_step": t_step, **other,
    }  # fmt: skip


def end(rank: int = 0, bits: int = 7, attempt: float = 100.0) -> Record:
    return {"v": 1, "kind": "end", "run": "made", "attempt": attempt, "rank": rank, "time": attempt + 9, "step": 20,
            "parameters_bits": bits, "ranks_equal": True, "peak_memory_mb": 300}  # fmt: skip


def probe(number: int, arm: str, t: float, rank: int = 0) -> Record:
    return {"v": 1, "kind": "probe", "run": "made", "attempt": 100.0, "rank": rank, "time": 120.0, "arm": arm,
            "step": number, "t": t}  # fmt: skip


def run(world: int = 2, steps: int = 20, **other: object) -> list[Record]:
    ranks = range(world)
    return (
        [header(world, rank, **other) for rank in ranks]
        + [step(number, rank) for number in range(1, steps + 1) for rank in ranks]
        + [end(rank) for rank in ranks]
    )


def broken_run() -> list[Record]:
    """Two ranks that were lost after step 12 and resumed from step 10."""
    first = [header(rank=rank) for rank in range(2)] + [step(n, rank) for n in range(1, 13) for rank in range(2)]
    again = [header(rank=rank, attempt=105.0, resumed_from=10) for rank in range(2)]
    rest = [step(n, rank, attempt=105.0) for n in range(11, 21) for rank in range(2)]
    return first + again + rest + [end(rank, attempt=105.0) for rank in range(2)]
