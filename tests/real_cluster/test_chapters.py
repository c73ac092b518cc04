"""The chapters run unchanged on a cluster that is known by its kubeconfig alone, in bad weather and with few rights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import EmbeddedCluster, thorough
from real_cluster.conftest import BAD_WEATHER, Learner
from real_cluster.door import Door

pytestmark = pytest.mark.timeout(300)


def run(who: EmbeddedCluster, chapter: str, out: Path) -> str:
    """Run a chapter as `kit run` does and return everything that its cells printed."""
    who.kit("run", chapter, "--fast", "--out", str(out), timeout=280)
    (copy,) = out.glob(f"{chapter}-*.ipynb")
    cells = json.loads(copy.read_text())["cells"]
    return "".join("".join(part.get("text", "")) for cell in cells for part in cell.get("outputs", []))


def kit_namespaces(school: EmbeddedCluster) -> list[str]:
    return [one["metadata"]["name"] for one in school.get("namespaces", "-l", "app.kubernetes.io/part-of=kit")["items"]]


@pytest.mark.parametrize("chapter", sorted(thorough({"05"}, {"01", "02", "03", "04", "06", "07", "08", "10"})))
def test_a_chapter_passes_in_bad_weather(
    chapter: str, door: Door, learner: Learner, school: EmbeddedCluster, tmp_path: Path
) -> None:
    """Watches break off, answers are slow, requests are turned away; the chapter does not notice."""
    door.faults = BAD_WEATHER
    said = run(learner(door), chapter, tmp_path / "out")
    assert "Cluster    context, v1.36.2\n" in said and f"namespace kit-{chapter}-ada is gone" in said
    assert sum(door.made.values()) >= 3, "the weather was fine"
    assert not kit_namespaces(school), "something is left on the cluster"


@pytest.mark.parametrize("chapter", ["01", "03"])
def test_in_a_single_namespace_a_chapter_says_what_it_may_not_and_goes_on(
    chapter: str, narrow_door: Door, learner: Learner, school: EmbeddedCluster, tmp_path: Path
) -> None:
    """No right to see nodes, to make namespaces, or to look elsewhere: nothing is lost but what is said."""
    school.kubectl("create", "configmap", "theirs", "--namespace=team-a")
    said = run(learner(narrow_door, KIT_NAMESPACE="team-a"), chapter, tmp_path / "out")
    assert "Skipped: your account may not list nodes in the whole cluster" in said
    assert "objects that were made in team-a are gone" in said
    if chapter == "03":
        assert "Nodes of a shared cluster stay on" in said
    left = school.kubectl("get", "all,configmaps", "--namespace=team-a", "-o", "name").stdout.split()
    assert left == ["configmap/kube-root-ca.crt", "configmap/theirs"]
