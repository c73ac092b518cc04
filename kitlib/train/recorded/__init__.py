"""Recorded runs: what you should see, without a cluster.

`run.jsonl` is a run of two workers that lost one of them and resumed; `study.jsonl` is a scaling study with repeats.
Both are real: preset `tiny`, simulated GPUs on a busy virtual machine with two cores, so the intervals are wide.
"""

from __future__ import annotations

from pathlib import Path

from kitlib.train.records import Record, load
from kitlib.train.scaling import Study

HERE = Path(__file__).parent


def recorded_run() -> list[Record]:
    """Return the records of a run that lost a worker and resumed; every figure can be made from them."""
    return load(HERE / "run.jsonl")


def recorded_study() -> Study:
    """Return a recorded scaling study."""
    return Study(load(HERE / "study.jsonl"))
