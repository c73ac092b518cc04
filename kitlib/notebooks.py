"""Runs the notebooks headless with papermill, as `kit run` and the tests do: unchanged, on the connected cluster."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kitlib.errors import KitError

CELL_LIMIT = 300
"""Seconds that one cell may take."""


def notebooks_folder() -> Path:
    """Return the folder of the numbered notebooks: `notebooks/` of the clone, else of the current folder.

    Raises:
        KitError: Neither has one.
    """
    for folder in (Path(__file__).resolve().parents[1] / "notebooks", Path.cwd() / "notebooks"):
        if folder.is_dir():
            return folder
    raise KitError("There is no folder notebooks/ here: run this in a clone of the kit.")


def find_notebooks(chapters: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks of the chapters, in order.

    Args:
        chapters: Numbers such as `01` or `1`, or beginnings of names; empty for all numbered notebooks.

    Raises:
        KitError: A chapter has no notebook.
    """
    present = sorted(path for path in notebooks_folder().glob("*.ipynb") if re.match(r"\d\d-", path.name))
    if not chapters:
        return present
    found = []
    for chapter in chapters:
        wanted = chapter.zfill(2) if chapter.isdigit() else chapter
        matches = [path for path in present if wanted and path.name.startswith(wanted)]
        if not matches:
            raise KitError(
                f"There is no chapter {chapter!r}: there are {', '.join(path.name[:2] for path in present)}."
            )
        found += matches
    return found


def run_notebook(path: Path, out: Path, fast: bool = False) -> Path:
    """Execute one notebook and return the path of the executed copy, which is kept also after a failure.

    Args:
        path: The notebook.
        out: Folder for the copy.
        fast: Sets the notebook's parameter `fast`.

    Raises:
        papermill.PapermillExecutionError: A cell failed.
    """
    import papermill

    return execute(path, out, {"fast": True} if fast and "fast" in papermill.inspect_notebook(str(path)) else {})


def execute(path: Path, out: Path, parameters: dict[str, Any], cell_limit: int = CELL_LIMIT) -> Path:
    """Execute one notebook with parameters that it has, and return the path of the executed copy.

    Args:
        path: The notebook.
        out: Folder for the copy; made if needed.
        parameters: Names of its `parameters` cell with their values; papermill only warns about others.
        cell_limit: Seconds that one cell may take.

    Raises:
        papermill.PapermillExecutionError: A cell failed.
    """
    import papermill

    out.mkdir(parents=True, exist_ok=True)
    copy = out / path.name
    papermill.execute_notebook(
        str(path),
        str(copy),
        parameters=parameters,
        cwd=str(path.parent),
        kernel_name="python3",
        execution_timeout=cell_limit,
        progress_bar=False,
        log_output=False,
        extra_arguments=["--log-level=50"],  # a kernel without encrypted transport warns on the terminal at each start
    )
    return copy


def run_notebooks(paths: Iterable[Path], out: Path, fast: bool = False, keep: bool = False) -> int:
    """Run notebooks one after the other and print a line each.

    Args:
        paths: The notebooks, such as `find_notebooks()`.
        out: Folder for the executed copies.
        fast: Quick settings.
        keep: Leave on the cluster what a failed notebook made.

    Returns:
        Exit code: 0 when all ran, 1 when one failed.

    Raises:
        KitError: The cluster does not answer, or the copies cannot be written.
    """
    from papermill.exceptions import PapermillExecutionError

    from kitlib.preflight import nothing_left

    failed = 0
    for path in paths:
        begin = time.monotonic()
        try:
            with nothing_left(path.name[:2], keep):
                run_notebook(path, out.absolute(), fast)
            print(f"ok    {path.name}  {time.monotonic() - begin:5.1f} s  {out / path.name}", flush=True)
        except PapermillExecutionError as error:
            failed += 1
            reason = str(error.evalue).strip().partition("\n")[0]
            print(f"FAIL  {path.name}  cell {error.exec_count}: {error.ename}: {reason}  {out / path.name}", flush=True)
    return 1 if failed else 0
