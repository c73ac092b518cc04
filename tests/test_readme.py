"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from readme_numbers import ROOT, numbers, section

from kitlib.cli import kit

README = (ROOT / "README.md").read_text()


def test_the_readmes_numbers_are_those_that_were_measured() -> None:
    assert section(README) == numbers()


PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "notebooks" / "INSTRUCTORS.md",
    *(ROOT / "docs").glob("*.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert len(targets) >= 15 or page.stem != "README"
    assert not [target for target in targets if not (page.parent / target).exists()]


OURS = [page for page in PAGES if page.stem != "clients"]  # that one names other projects' files


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.stem)
def test_every_file_and_option_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    folders = r"(?:kitlib|tests|docs|notebooks|binder)"
    named = [name for name in re.findall(rf"[`\s]({folders}/[\w./-]+)", text) if "NN" not in name]
    assert not [name for name in named if not (ROOT / name.rstrip(".")).exists()]
    for command, words in re.findall(r"\bkit (up|down|train|run|clean|doctor|progress|kubeconfig)\b([^`\n|#]*)", text):
        known = {option for parameter in kit.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= known, (command, words)


def test_every_command_of_the_readme_exists() -> None:
    known = set(kit.commands)
    for group in kit.commands.values():
        known |= set(group.commands) if isinstance(group, click.Group) else set()
    named = {word for line in re.findall(r"`kit ([^`]+)`", README) for word in re.findall(r"^[a-z]+", line)}
    assert named <= known
    assert known - {"stop", "kill", "start", "cluster", "api", "scale"} <= named | {"kubeconfig"}


def test_every_notebook_is_listed() -> None:
    for path in (Path(ROOT) / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in README
