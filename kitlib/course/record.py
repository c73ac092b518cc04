"""The learner's record: a JSON file on this machine, sent nowhere."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

from kitlib.connect import learner
from kitlib.course.exercise import CORRECT, NOT_ATTEMPTED, SIGNS, Message, all_exercises
from kitlib.errors import KitError
from kitlib.home import kit_home

SCHEMA = 1


def record_file() -> Path:
    """Return the file that holds the record: `$KIT_PROGRESS`, else `progress.json` in KIT_HOME."""
    return Path(os.environ.get("KIT_PROGRESS") or kit_home() / "progress.json").expanduser()


def read() -> dict[str, dict[str, Any]]:
    """Return what is known of each exercise; a damaged file is put aside and a new record begins."""
    file = record_file()
    try:
        content = json.loads(file.read_text())
        return dict(content["exercises"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        os.replace(file, file.with_suffix(".damaged"))
        return {}


def _write(exercises: dict[str, dict[str, Any]]) -> None:
    """Replace the file in one step, so that a killed kernel never leaves half a record; say so if that fails."""
    file = record_file()
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.write_text(json.dumps({"schema": SCHEMA, "exercises": exercises}, indent=1))
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        print(f"Not kept in your record: {file} cannot be written ({error.strerror}); KIT_PROGRESS names another file.")


def _entry(exercises: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    fresh = {"outcome": NOT_ATTEMPTED, "tries": 0, "hints": 0, "solution": False, "solved": None}
    return exercises.setdefault(name, fresh)


def note_check(name: str, outcome: str) -> None:
    """Remember the outcome of a check; once correct stays correct."""
    exercises = read()
    entry = _entry(exercises, name)
    entry["tries"] += outcome != NOT_ATTEMPTED
    if entry["outcome"] != CORRECT:
        entry["outcome"] = outcome
        if outcome == CORRECT:
            entry["solved"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    _write(exercises)


def note_hint(name: str) -> int:
    """Count a hint and return how many were asked for so far."""
    exercises = read()
    entry = _entry(exercises, name)
    entry["hints"] += 1
    _write(exercises)
    return int(entry["hints"])


def note_solution(name: str) -> None:
    """Remember that the solution was shown."""
    exercises = read()
    _entry(exercises, name)["solution"] = True
    _write(exercises)


def progress_table() -> list[dict[str, Any]]:
    """Return one row per exercise: `exercise`, `title`, `outcome`, `tries`, `hints`, `solution`, `solved`."""
    known = read()
    blank = _entry({}, "")
    return [
        {"exercise": item.name, "title": item.title, **blank, **known.get(item.name, {})} for item in all_exercises()
    ]


def progress() -> Message:
    """Show what you have done so far."""
    rows = progress_table()
    solved = sum(row["outcome"] == CORRECT for row in rows)
    lines = ["| exercise | title | outcome | tries | hints |", "|---|---|---|---|---|"]
    for row in rows:
        seen = ", solution seen" if row["solution"] else ""
        cells = (row["exercise"], row["title"], SIGNS[row["outcome"]], row["tries"], f"{row['hints']}{seen}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return Message(f"{solved} of {len(rows)} exercises solved", "\n".join(lines))


def export(path: str | Path, name: str | None = None) -> Path:
    """Write the record as JSON for an instructor.

    Args:
        path: The file to write.
        name: Whose record it is; by default `KIT_LEARNER` or the login name.

    Returns:
        The path.

    Raises:
        KitError: The file cannot be written.
    """
    target = Path(path).expanduser()
    content = {"schema": SCHEMA, "learner": name or learner(), "exercises": progress_table()}
    try:
        target.write_text(json.dumps(content, indent=1))
    except OSError as error:
        raise KitError(f"Could not write {target}: {error.strerror}.") from error
    return target
