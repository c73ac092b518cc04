"""Every notebook runs unchanged from top to bottom on a fresh cluster, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from harness import EmbeddedCluster, thorough
from nbclient import NotebookClient

from kitlib.course.exercise import CORRECT, NOT_ATTEMPTED, all_exercises
from kitlib.notebooks import execute as run_headless
from kitlib.notebooks import run_notebooks
from notebooks.course_files import CHAPTERS, SOLUTIONS, code, is_code, name_of, read, with_twins

CELL_LIMIT = 90
MEMORY_LIMIT = 1400
"""MiB that kernel and helpers may take on Binder, where 2 GiB also hold the server and the cluster."""

HAVE_FAST = {"05", "06"}
UNCHANGED = [path for path in CHAPTERS if path.name[:2] != "10" or thorough(set(), {"10"})]
"""Chapter 10 takes as long as all others together and runs in `test_binder_limits.py`, with less of everything."""

RESULT = "application/vnd.kit.result+json"
RESUMED = [path for path in CHAPTERS if path.name[:2] in thorough({"05", "08"}, {"02", "03", "04", "06", "07", "11"})]
"""Chapters with a middle worth being killed in; those of training take long, and resume by tests of their own."""

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("nothing_left"),
]


def results(notebook: Any) -> list[dict[str, str]]:
    """Return the outcomes of all checks in an executed notebook."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return [output["data"][RESULT] for output in outputs if RESULT in output.get("data", {})]


def execute(path: Path, out: Path, parameters: dict[str, Any]) -> Any:
    """Run a notebook as `kit run` does, with real types, and return the executed copy."""
    known = papermill.inspect_notebook(str(path))
    assert set(parameters) <= set(known), "papermill only warns about a parameter that does not exist"
    return nbformat.read(run_headless(path, out, parameters, CELL_LIMIT), as_version=4)


class Peak:
    """Samples the memory of kernels and helpers while a block runs."""

    def __init__(self, measure: Callable[[], float]) -> None:
        self.mib, self._measure, self._stop = 0.0, measure, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            self.mib = max(self.mib, self._measure())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("path", UNCHANGED, ids=name_of)
def test_a_chapter_runs_unchanged(
    path: Path,
    school: EmbeddedCluster,
    tmp_path: Path,
    memory_of_kernels: Callable[[], float],
    record_property: Callable[[str, object], None],
) -> None:
    begin = time.monotonic()
    with Peak(memory_of_kernels) as peak:
        executed = execute(path, tmp_path, {"fast": True} if path.name[:2] in HAVE_FAST else {})
    record_property("seconds", round(time.monotonic() - begin, 1))
    record_property("peak_mib", round(peak.mib))
    outcomes = results(executed)
    assert {outcome["outcome"] for outcome in outcomes} <= {NOT_ATTEMPTED}, outcomes
    assert len(outcomes) == sum(exercise.name.startswith(path.name[:2]) for exercise in all_exercises())
    assert peak.mib < MEMORY_LIMIT


@pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
def test_every_check_of_the_solutions_says_correct(path: Path, school: EmbeddedCluster, tmp_path: Path) -> None:
    outcomes = results(execute(path, tmp_path, {}))
    wanted = [exercise.name for exercise in all_exercises() if exercise.name.startswith(path.name[:2])]
    assert [outcome["exercise"] for outcome in outcomes] == wanted
    assert {outcome["outcome"] for outcome in outcomes} == {CORRECT}, outcomes


def section_starts(notebook: Any) -> list[int]:
    """Return the positions of the headings from which a learner may go on after the set-up cell."""
    return [
        i for i, cell in enumerate(notebook.cells) if cell.cell_type == "markdown" and "\n## " in f"\n{cell.source}"
    ]


def run_cells(notebook: Any, positions: list[int], folder: Path, kill: bool = False) -> None:
    """Execute some cells in a new kernel; at the end, kill it without a chance to clean up."""
    client = NotebookClient(
        notebook, timeout=CELL_LIMIT, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    with client.setup_kernel():
        for position in positions:
            client.execute_cell(notebook.cells[position], position)
        if kill:
            os.kill(client.km.provisioner.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("path", RESUMED, ids=name_of)
def test_a_chapter_goes_on_after_its_kernel_was_killed(path: Path, school: EmbeddedCluster) -> None:
    """The first half, SIGKILL, the set-up cell, the other half; with every Python fold-out run as well."""
    notebook = with_twins(read(path))
    starts = section_starts(notebook)
    middle = starts[len(starts) // 2]
    every = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    run_cells(notebook, [i for i in every if i < middle], path.parent, kill=True)
    run_cells(notebook, every[:2] + [i for i in every if i > middle], path.parent)
    assert is_code(notebook.cells[1], "parameters")


def test_a_notebook_that_fails_is_told_and_leaves_nothing(
    school: EmbeddedCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ['import kitlib; cluster = kitlib.connect("99"); cluster.folder', "%kubectl create configmap one", "1 / 0"]
    broken = tmp_path / "99-broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), broken)
    assert run_notebooks([broken], tmp_path / "out") == 1
    assert "cell 3: ZeroDivisionError: division by zero" in capsys.readouterr().out
    assert "division by zero" in (tmp_path / "out" / broken.name).read_text()
