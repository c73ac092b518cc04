"""What a learner types and sees is what a real Kubernetes shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import RECORDED_MINOR, EmbeddedCluster, kubectls, minor_of
from reference.replay import replay

TRANSCRIPT = Path(__file__).parent / "kubectl.json"
ALIKE_AT_LEAST = 74
"""About 77 of the 92 are reached (docs/differences.md says why not more); three depend on how fast the machine is."""


@pytest.mark.timeout(600)
def test_kubectl_answers_as_on_a_real_cluster(own_cluster: EmbeddedCluster, tmp_path: Path) -> None:
    nearest = min(kubectls(), key=lambda path: abs(minor_of(path) - RECORDED_MINOR))
    (tmp_path / "kubectl").symlink_to(nearest)
    env = {**own_cluster.env, "PATH": f"{tmp_path}:{own_cluster.env['PATH']}"}
    own_cluster.kit("up", "--nodes", "1", "--gpus", "0")
    answers = list(replay(TRANSCRIPT, env))
    assert not [answer for answer in answers if not answer.exit_alike]
    different = [answer for answer in answers if not answer.alike]
    shown = "\n".join(f"{a.number} {a.command[:90]!r}\n  - {a.missing}\n  + {a.unexpected}" for a in different)
    assert len(answers) - len(different) >= ALIKE_AT_LEAST, shown
