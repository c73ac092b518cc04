"""Hostile requests get a 4xx, never a crash."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import fuzz, start_target
from harness import EmbeddedCluster, environment, eventually, processes_of

SCRIPT = Path(__file__).with_name("fuzz.py")


@pytest.mark.timeout(300)
def test_a_thousand_hostile_requests_are_refused_and_nothing_breaks(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "1")
    start_target(own_cluster)
    seen = asyncio.run(fuzz(own_cluster, 1200, seed=4))
    assert seen["codes"][401] and seen["codes"][400] and seen["codes"][404]


def test_a_run_that_is_told_to_end_takes_its_cluster_along(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, SCRIPT], env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        started = eventually(lambda: list(tmp_path.glob("kit-fuzz-*/nodes/*/pods/*")))
    finally:
        run.terminate()
    home = started[0].parents[3]
    cluster = EmbeddedCluster(home, environment(home, home))
    mark = cluster.cluster_id()
    try:
        assert run.wait(60) == 143
        assert not processes_of(mark) and not home.exists()
    finally:
        cluster.kit("down", "--purge")
