"""The links between chapters: generated from the notebooks themselves, so that they cannot be wrong.

`python -m kitlib.course.navigation notebooks` writes the last cell of each notebook; a test demands that they
are as written here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

CONTENTS = "00-welcome.ipynb"
TAG = "navigation"


@dataclass(frozen=True)
class Chapter:
    """One notebook of the course.

    Attributes:
        path: Its file.
        title: Its first heading.
    """

    path: Path
    title: str

    @property
    def number(self) -> str:
        """The two digits that its name begins with."""
        return self.path.name[:2]


def chapters(folder: str | Path) -> list[Chapter]:
    """Return the chapters in a folder, in order: the notebooks whose names begin with two digits."""
    files = sorted(Path(folder).glob("[0-9][0-9]-*.ipynb"))
    return [Chapter(file, title_of(nbformat.read(file, as_version=4))) for file in files]


def title_of(notebook: Any) -> str:
    """Return the first heading of a notebook."""
    lines = notebook.cells[0].source.splitlines()
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "")


def links(position: int, course: list[Chapter]) -> str:
    """Return the Markdown of the links below the chapter at a position."""
    parts = []
    if position > 0:
        parts.append(f"[← {course[position - 1].title}]({course[position - 1].path.name})")
    parts.append(f"[Contents]({CONTENTS})")
    if position + 1 < len(course):
        parts.append(f"[{course[position + 1].title} →]({course[position + 1].path.name})")
    return " · ".join(parts)


def write(folder: str | Path) -> list[Path]:
    """Write the links into every chapter of a folder and return the files that changed."""
    course = chapters(folder)
    changed = []
    for position, chapter in enumerate(course):
        notebook = nbformat.read(chapter.path, as_version=4)
        cell = notebook.cells[-1]
        if TAG not in cell.metadata.get("tags", []):
            cell = nbformat.v4.new_markdown_cell("", metadata={"tags": [TAG]}, id=TAG)
            notebook.cells.append(cell)
        wanted = links(position, course)
        if cell.source != wanted:
            cell.source = wanted
            nbformat.write(notebook, chapter.path)
            changed.append(chapter.path)
    return changed


if __name__ == "__main__":
    for path in write(sys.argv[1] if len(sys.argv) > 1 else "notebooks"):
        print(path)
