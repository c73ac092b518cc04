"""Browser tests need a Chromium: collected where there is one, and in CI, where its absence is a failure."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.chrome import Chrome, find_browser
from browser.lab import output_folder

collect_ignore_glob = []
if find_browser() is None and os.environ.get("CI") != "true":
    warnings.warn("no Chromium on PATH: tests/browser is left out", stacklevel=1)
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """A browser with an empty profile."""
    profile = tmp_path / "browser"
    profile.mkdir()
    with Chrome(profile) as chrome:
        yield chrome


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where screenshots are kept: `$KIT_TEST_OUT`, else the test's own folder."""
    return output_folder(tmp_path / "screenshots")
