"""Whatever is killed, desired equals actual in the end."""

from __future__ import annotations

import random

import pytest
from chaos import Chaos
from harness import EmbeddedCluster


@pytest.mark.timeout(400)
def test_after_random_kills_desired_equals_actual_and_no_write_is_lost(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "3")
    chaos = Chaos(own_cluster, random.Random(20))
    chaos.start()
    chaos.run(12)
    seen = chaos.verify(180)
    assert seen["acknowledged_writes"]
    chaos.end()
