"""How `worker.py` gets its settings: a flag for every field of a dataclass, and presets that change the defaults."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from measure import wrong

POSITIVE = ("steps", "batch_size", "grad_accum", "threads", "save_every", "timeout")


def settings(kind: type[Any], presets: dict[str, dict[str, Any]], argv: list[str]) -> Any:
    """Return the settings that the flags ask for; what cannot be ends the process with exit code 64.

    Args:
        kind: A dataclass with a default for every field, one of them `preset`.
        presets: Other defaults, by the preset's name.
        argv: The flags: `--batch-size 8` sets `batch_size`, `--no-compile` clears `compile`.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.error = wrong  # type: ignore[method-assign]
    for field in fields(kind):
        typed: dict[str, Any] = {"type": type(field.default)}
        if field.type == "bool":
            typed = {"action": argparse.BooleanOptionalAction}
        parser.add_argument(f"--{field.name.replace('_', '-')}", **typed)
    flags = vars(parser.parse_args(argv))
    preset = flags.get("preset", kind.preset)
    if preset not in presets:
        wrong(f"unknown preset {preset!r}: use one of {', '.join(presets)}")
    found = kind(**{**presets[preset], **flags})
    if min(getattr(found, name) for name in POSITIVE) < 1:
        wrong("steps, batch-size, grad-accum, threads, save-every and timeout must be at least 1")
    if found.dtype not in ("float32", "bfloat16"):
        wrong("dtype must be float32 or bfloat16")
    return found
