from __future__ import annotations

from typing import Any

import pytest
from lab import deployment

from kitlib.cluster.controllers import deployment_rules as rules


def _strategy(surge: Any, unavailable: Any) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (1, "25%", "25%", (1, 0)),
        (4, "25%", "25%", (1, 1)),
        (10, "25%", "25%", (3, 2)),
        (10, "30%", "0%", (3, 0)),
        (10, 0, "0%", (0, 1)),
        (3, 1, 5, (1, 3)),
    ],
)
def test_surge_is_rounded_up_and_unavailability_down(
    replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]
) -> None:
    assert rules.fenceposts(deployment("web", replicas, strategy=_strategy(surge, unavailable))) == expected


def _set(name: str, replicas: int, available: int = 0, maximum: int = 0) -> dict[str, Any]:
    annotations = {rules.MAXIMUM: str(maximum)} if maximum else {}
    metadata = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": annotations}
    return {"metadata": metadata, "spec": {"replicas": replicas}, "status": {"availableReplicas": available}}


def test_the_new_replicaset_grows_as_far_as_the_surge_allows() -> None:
    web = deployment("web", 4)
    assert rules.new_set_size(web, [_set("old", 4)], 0) == 1
    assert rules.new_set_size(web, [_set("old", 3), _set("new", 1)], 1) == 2
    assert rules.new_set_size(web, [_set("old", 4), _set("new", 1)], 1) == 1


def test_old_replicasets_lose_their_unavailable_pods_first() -> None:
    web = deployment("web", 4)
    oldest, old = _set("a", 2, available=0), _set("b", 3, available=3)
    assert rules.old_set_sizes(web, _set("new", 1, available=0), [oldest, old]) == {"a": 0}
    assert rules.old_set_sizes(web, _set("new", 2, available=2), [_set("a", 3, available=3)]) == {"a": 1}


def test_scaling_in_mid_rollout_keeps_the_proportions() -> None:
    # The example of the Kubernetes documentation: 10 replicas, 3 surge, 2 unavailable, scaled to 15.
    web = deployment("web", 15, strategy=_strategy(3, 2))
    sizes = rules.proportional_sizes(web, [_set("old", 8, 8, maximum=13), _set("new", 5, 0, maximum=13)])
    assert sizes == {"old": 11, "new": 7}


def test_the_hash_of_a_template_is_short_stable_and_written_in_safe_letters() -> None:
    template = deployment("web")["spec"]["template"]
    first = rules.template_hash(template, 0)
    assert first == rules.template_hash(dict(reversed(template.items())), 0)
    assert first != rules.template_hash(template, 1)
    assert len(first) <= 10 and set(first) <= set("bcdf456789")
