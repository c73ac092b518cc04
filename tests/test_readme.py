"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import click
from readme_numbers import ROOT, numbers, section

from kitlib.cli import kit

README = (ROOT / "README.md").read_text()


def test_the_readmes_numbers_are_those_that_were_measured() -> None:
    assert section(README) == numbers()


def test_every_link_to_a_file_leads_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert len(targets) >= 15
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_every_command_of_the_readme_exists() -> None:
    known = set(kit.commands)
    for group in kit.commands.values():
        known |= set(group.commands) if isinstance(group, click.Group) else set()
    named = {word for line in re.findall(r"`kit ([^`]+)`", README) for word in re.findall(r"^[a-z]+", line)}
    assert named <= known
    assert known - {"stop", "kill", "start", "cluster", "api"} <= named | {"kubeconfig"}


def test_every_notebook_is_listed() -> None:
    for path in (Path(ROOT) / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in README
