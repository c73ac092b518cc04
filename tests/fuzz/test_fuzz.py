"""Hostile requests get a 4xx, never a crash."""

from __future__ import annotations

import asyncio

import pytest
from fuzz import fuzz, start_target
from harness import EmbeddedCluster


@pytest.mark.timeout(300)
def test_a_thousand_hostile_requests_are_refused_and_nothing_breaks(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "1")
    start_target(own_cluster)
    seen = asyncio.run(fuzz(own_cluster, 1200, seed=4))
    assert seen["codes"][401] and seen["codes"][400] and seen["codes"][404]
