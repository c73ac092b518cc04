"""The links between chapters: generated from the notebooks themselves, so that they cannot be wrong.

`python -m kitlib.course.navigation notebooks` writes the last cell of each notebook; a test demands that they
are as written here. The badge in the first cell is generated too.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

CONTENTS = "00-welcome.ipynb"
TAG = "navigation"
BADGES = re.compile(r"^(BADGES|\[!\[Open this notebook on Binder.*)$", re.MULTILINE)


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
    here = course[position].path
    if (here.parent / "solutions" / here.name).exists():
        parts.append(f"[Solutions](solutions/{here.name})")
    if position + 1 < len(course):
        parts.append(f"[{course[position + 1].title} →]({course[position + 1].path.name})")
    return " · ".join(parts)


def badges(name: str, repository: str) -> str:
    """Return the badge that opens a notebook on Binder.

    Args:
        name: File name of the notebook.
        repository: `owner/name` on GitHub; without it the badge leads to Binder's own form.
    """
    target = f"v2/gh/{repository}/HEAD?labpath=notebooks%2F{name}" if repository else ""
    return f"[![Open this notebook on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/{target})"


def repository_of(folder: Path) -> str:
    """Return `owner/name` of the repository that `pyproject.toml` above a folder names, or nothing."""
    file = folder.absolute().parent / "pyproject.toml"
    found = re.search(r"github\.com/([\w.-]+/[\w-]+)", file.read_text()) if file.exists() else None
    return found[1] if found else ""


def write(folder: str | Path) -> list[Path]:
    """Write badges and links into every chapter of a folder and return the files that changed."""
    course = chapters(folder)
    repository = repository_of(Path(folder))
    changed = []
    for position, chapter in enumerate(course):
        notebook = nbformat.read(chapter.path, as_version=4)
        before = nbformat.writes(notebook)
        head, foot = notebook.cells[0], notebook.cells[-1]
        if TAG not in foot.metadata.get("tags", []):
            foot = nbformat.v4.new_markdown_cell("", metadata={"tags": [TAG]}, id=TAG)
            notebook.cells.append(foot)
        head.source = BADGES.sub(badges(chapter.path.name, repository), head.source)
        foot.source = links(position, course)
        if nbformat.writes(notebook) != before:
            nbformat.write(notebook, chapter.path)
            changed.append(chapter.path)
    return changed


if __name__ == "__main__":
    for path in write(sys.argv[1] if len(sys.argv) > 1 else "notebooks"):
        print(path)
