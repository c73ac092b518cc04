"""A notebook's view of the shared cluster, without a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import EmbeddedCluster

import kitlib
from kitlib.session import Cluster


@pytest.fixture
def notebook_environment(cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of a kernel: KIT_HOME and nothing else of the kit."""
    before = dict(os.environ)
    for name, value in cluster.env.items():
        os.environ[name] = value
    for name in ("KUBECONFIG", "KIT_CLUSTER", "KIT_NAMESPACE", "KIT_PROGRESS"):
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def lesson(notebook_environment: None, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A connected chapter with a namespace of the test's own."""
    made = kitlib.connect(f"t{abs(hash(request.node.nodeid)) % 10**8}")
    yield made
    made.clean_up()


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record file of the test's own."""
    monkeypatch.setenv("KIT_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"
