from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lab import FakeClock, Lab  # noqa: E402


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A control plane on the machine's clock, one node, nothing started yet."""
    lab = Lab(tmp_path)
    await lab.node("node-1")
    yield lab
    await lab.stop()


@pytest.fixture
async def slow_lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The same on a clock that the test turns."""
    lab = Lab(tmp_path, FakeClock())
    await lab.node("node-1")
    yield lab
    await lab.stop()
