"""Fixtures: an embedded cluster of the tests' own."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from harness import EmbeddedCluster, environment, heed_signals, processes_of


def pytest_configure() -> None:
    """End the fixtures, too, when the tests are told to end."""
    heed_signals(lambda: pytest.exit("terminated", returncode=143))


@pytest.fixture(scope="session")
def kubernetes_validate() -> ModuleType:
    """The package with Kubernetes' published schemas, out of the folder that `KIT_TEST_SCHEMAS` names.

    It stands beside the environment (`.ci/run` puts it there): where it is installed the Kubernetes client imports it,
    and with it seconds of grammars, into every kernel.
    """
    folder = os.environ.get("KIT_TEST_SCHEMAS")
    if not folder:
        pytest.skip(
            "pip install --no-deps --target FOLDER kubernetes-validate importlib_resources; KIT_TEST_SCHEMAS=FOLDER"
        )
    sys.path.append(folder)
    return importlib.import_module("kubernetes_validate")


@pytest.fixture(scope="session")
def user_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty HOME, so that nothing of the user's is read or written."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def make_home(user_home: Path) -> Iterator[Callable[[], EmbeddedCluster]]:
    """Make KIT_HOMEs, with no cluster yet; whatever runs in them at the end is stopped, and nothing may be left."""
    made: list[EmbeddedCluster] = []

    def make() -> EmbeddedCluster:
        home = Path(tempfile.mkdtemp(prefix="kit test "))  # the user's state folder of macOS has a space, too
        made.append(EmbeddedCluster(home, environment(home, user_home)))
        return made[-1]

    yield make
    for cluster in made:
        if cluster.home.exists():
            end(cluster)


def end(cluster: EmbeddedCluster) -> None:
    """Stop what runs in a KIT_HOME and take it away; nothing may be left."""
    mark = cluster.cluster_id() if (cluster.home / "cluster.json").exists() else ""
    cluster.kit("down", "--purge", code=None)
    left = processes_of(mark) if mark else []
    shutil.rmtree(cluster.home, ignore_errors=True)
    assert not left, f"processes are left: {left}"


@pytest.fixture(scope="session")
def cluster(make_home: Callable[[], EmbeddedCluster]) -> EmbeddedCluster:
    """The cluster that tests share: three nodes, a simulated GPU on each. Tests must leave it as they found it."""
    shared = make_home()
    shared.kit("up", "--nodes", "3", "--gpus", "1")
    return shared


@pytest.fixture
def own_cluster(make_home: Callable[[], EmbeddedCluster]) -> Iterator[EmbeddedCluster]:
    """A KIT_HOME of the test's own, for tests that break things; nothing runs in it yet."""
    mine = make_home()
    yield mine
    end(mine)


@pytest.fixture
def namespace(cluster: EmbeddedCluster) -> Iterator[str]:
    """A namespace of the test's own in the shared cluster, deleted afterwards."""
    made = cluster.kubectl("create", "-f", "-", "-o", "name", stdin=json.dumps(_namespace())).stdout
    name = made.strip().partition("/")[2]
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def _namespace() -> dict:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}}
