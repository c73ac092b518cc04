"""Where `worker.py` keeps its checkpoints: files of which the newest whole one wins. It lies beside the worker.

A crash, a lost volume or a full disk costs the steps since the last save and nothing else. A torn file is passed over;
a whole one that is something else than this run's is never touched: the run ends and names it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from measure import record, warn, wrong

SCHEMA = 1
SHAPE = ("n_layer", "n_head", "n_embd", "vocab_size", "block_size")

State = dict[str, Any]


def newest(folder: Path, config: dict[str, Any], script: str) -> State | None:
    """Return the newest checkpoint that is whole, or None.

    Args:
        folder: Where they are.
        config: The settings of this run; the checkpoint's model must have the same shape.
        script: SHA-256 of this run's worker; going on with another one's checkpoint is worth a word.
    """
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            state: State = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise  # the volume is in trouble, not the file: a retry may find it well
        except Exception as error:
            warn(f"{path} is damaged ({str(error).splitlines()[0].partition('. ')[0]}): going back to an older one")
            continue
        _check(path, state, config, script)
        return state
    return None


def _check(path: Path, state: Any, config: dict[str, Any], script: str) -> None:
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        wrong(f"{path} is no checkpoint of version {SCHEMA} of this script: give another folder for checkpoints")
    there = state["config"]
    differs = [name for name in SHAPE if there.get(name) != config[name]]
    other = [f"{name} {there.get(name)} there and {config[name]} here" for name in differs]
    if other:
        wrong(f"{path} holds another model ({', '.join(other)}): give its settings, or another folder for checkpoints")
    if state["script"] != script:
        warn(f"{path} was saved by another version of the script: going on from it")


def restore(folder: Path, state: State, model: Any, optimizer: Any) -> None:
    """Put a checkpoint into a model and its optimizer."""
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        wrong(f"the checkpoint in {folder} does not fit the script's model, give another folder ({error})")


def save(folder: Path, step: int, model: Any, optimizer: Any, last: bool, **facts: Any) -> None:
    """Write all that a run needs to go on as if it had not stopped, and keep the checkpoint before it.

    Args:
        folder: Where; it is made if it is not there.
        step: Number of steps done.
        model: Its parameters are written ...
        optimizer: ... and its state.
        last: Whether nothing comes after it; then a failure ends the run, otherwise training goes on.
        facts: What `newest` checks, and what the next start needs: `config`, `script`, `world`, `global_batch`.

    Raises:
        OSError: The last one could not be written.
    """
    state = {"schema": SCHEMA, "step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), **facts}
    path, unfinished = folder / f"step-{step:08d}.pt", folder / "unfinished.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(one for one in folder.glob("step-*.pt") if one.name < path.name)[:-1]:
            old.unlink()  # first, so that there is never need for the space of three
        with unfinished.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()  # what a full disk has taken of it
        cause = error.__context__ if isinstance(error.__context__, OSError) else error  # torch's words hide it
        said = " ".join(str(cause).split())[:200]
        if last:
            raise OSError(f"the last step, {step}, could not be saved in {folder} ({said})") from None
        warn(f"step {step} could not be saved in {folder} ({said}), training goes on: look at its space and rights")
    else:
        record("save", step=step)
