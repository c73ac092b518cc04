"""A cluster that the kit knows only by a kubeconfig: another KIT_HOME's, behind a door with its own token and rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from harness import EmbeddedCluster, environment
from real_cluster.door import Door, Faults

Learner = Callable[..., EmbeddedCluster]


@pytest.fixture(scope="package")
def school(make_home: Callable[[], EmbeddedCluster]) -> EmbeddedCluster:
    """The cluster itself, from its administrator's side: three nodes with a GPU each."""
    cluster = make_home()
    cluster.kit("up", "--nodes", "3", "--gpus", "1")
    return cluster


@pytest.fixture
def door(school: EmbeddedCluster) -> Iterator[Door]:
    """A door through which a learner may do everything."""
    with Door(yaml.safe_load((school.home / "kubeconfig").read_text())) as opened:
        yield opened


@pytest.fixture
def narrow_door(school: EmbeddedCluster) -> Iterator[Door]:
    """A door into the namespace `team-a` alone, which is there and empty."""
    school.kubectl("create", "namespace", "team-a")
    with Door(yaml.safe_load((school.home / "kubeconfig").read_text()), only="team-a") as opened:
        yield opened
    school.kubectl("delete", "namespace", "team-a")


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    """Return who gets a door's kubeconfig: a KIT_HOME, a HOME and an environment that know no other cluster."""

    def make(door: Door, **variables: str) -> EmbeddedCluster:
        home, user = tmp_path / "kit", tmp_path / "user"
        home.mkdir(exist_ok=True)
        user.mkdir(exist_ok=True)
        file = door.kubeconfig(tmp_path / "school.yaml")
        env = environment(home, user) | {"KUBECONFIG": str(file), "KIT_CLUSTER": "context:school", "KIT_LEARNER": "ada"}
        return EmbeddedCluster(home, env | variables)

    return make


BAD_WEATHER = Faults(throttled=0.03, broken=0.03, slow=0.1, dropped=0.7)
