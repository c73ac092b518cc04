"""The notebooks as files: where they are and what is in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
CHAPTERS = sorted(FOLDER.glob("[0-9][0-9]-*.ipynb"))
SOLUTIONS = sorted((FOLDER / "solutions").glob("[0-9][0-9]-*.ipynb"))
TWIN = re.compile(r"<details><summary>The same in Python</summary>\s*```python\n(.*?)```\s*</details>", re.DOTALL)


def name_of(path: Path) -> str:
    """Return a test's name for a notebook."""
    kind = "solution-" if path.parent.name == "solutions" else ""
    return f"{kind}{path.stem}"


def read(path: Path) -> Any:
    """Return a notebook."""
    return nbformat.read(path, as_version=4)


def code(notebook: Any) -> list[Any]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: Any) -> list[Any]:
    """Return the Markdown cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def tags(cell: Any) -> list[str]:
    """Return a cell's tags."""
    return list(cell.metadata.get("tags", []))


def is_code(cell: Any, *marks: str) -> bool:
    """Return whether a cell is code and carries one of the tags."""
    return cell.cell_type == "code" and bool(set(marks) & set(tags(cell)))


def with_twins(notebook: Any) -> Any:
    """Return the notebook with every Python fold-out as a cell of its own behind it."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        twins = TWIN.findall(cell.source) if cell.cell_type == "markdown" else []
        cells += [nbformat.v4.new_code_cell(twin.rstrip(), metadata={"tags": ["twin"]}) for twin in twins]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
