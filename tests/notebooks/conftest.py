"""A fresh embedded cluster for the notebooks, and what must be true of it after each of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness import EmbeddedCluster, eventually


@pytest.fixture(scope="package")
def school(make_home: Callable[[], EmbeddedCluster]) -> Iterator[EmbeddedCluster]:
    """A cluster that only notebooks use; the environment of this process names it, so that kernels inherit it."""
    cluster = make_home()
    cluster.kit("up", "--nodes", "3", "--gpus", "1")
    before = dict(os.environ)
    os.environ.update(cluster.env)
    for name in ("KUBECONFIG", "KIT_CLUSTER", "KIT_NAMESPACE"):
        os.environ.pop(name, None)
    yield cluster
    os.environ.clear()
    os.environ.update(before)


def _namespaces(cluster: EmbeddedCluster) -> set[str]:
    return {item["metadata"]["name"] for item in cluster.get("namespaces")["items"]}


def _cluster_wide(cluster: EmbeddedCluster) -> dict[str, set[str]]:
    kinds = "persistentvolumes,clusterroles,clusterrolebindings,priorityclasses"
    done = cluster.kubectl("get", kinds, "-o", "name", code=None)
    return {"names": set(done.stdout.split())}


def _helpers(home: Path) -> list[str]:
    """Return the processes that a notebook started beside the cluster: guards, kubectl, controllers, ranks."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            mine = process.environ().get("KIT_HOME") == str(home) and "KIT_CLUSTER_ID" not in process.environ()
            if mine and process.pid != os.getpid() and any("guard" in w or w.endswith("kubectl") for w in words):
                found.append(" ".join(words))
        except (psutil.Error, OSError):
            continue
    return found


def _ports(cluster: EmbeddedCluster) -> set[tuple[str, int]]:
    """Return the addresses at which the cluster's processes listen."""
    pids = {process["pid"] for process in cluster.status()["processes"]}
    listening = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in pids]
    return {(c.laddr.ip, c.laddr.port) for c in listening}


@pytest.fixture
def nothing_left(school: EmbeddedCluster) -> Iterator[None]:
    """After the test: no namespace, object, process, port or file more than before, and every node is Ready."""
    before = (_namespaces(school), _cluster_wide(school), _ports(school))
    yield
    try:
        _assert_as_before(school, before)
    except AssertionError:
        school.kit("clean", code=None)  # so that the next test does not fail for this one
        raise


def _assert_as_before(school: EmbeddedCluster, before: tuple[object, object, object]) -> None:
    eventually(lambda: _namespaces(school) == before[0] or None, 60)
    assert _cluster_wide(school) == before[1]
    eventually(lambda: not _helpers(school.home) or None, 20)
    eventually(lambda: _ports(school) == before[2] or None, 20)
    assert not list((school.home / "files").glob("*"))
    eventually(lambda: all(_ready(node) for node in school.get("nodes")["items"]) or None, 60)
    running = [pod for pod in school.get("pods", "-A")["items"]]
    assert not running, json.dumps(running)[:2000]


def _ready(node: dict) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


@pytest.fixture(scope="session")
def memory_of_kernels() -> Callable[[], float]:
    """Return the proportional set size of this process's children in MiB."""

    def measure() -> float:
        total = 0.0
        for child in psutil.Process().children(recursive=True):
            try:
                total += child.memory_full_info().pss / 2**20
            except (psutil.Error, subprocess.SubprocessError):
                continue
        return total

    return measure
