"""A log of replicas follows a Deployment through a watch, from before its `with` block's first line to its end."""

from __future__ import annotations

from typing import Any

import pytest

from kitlib import KitError, views
from views.fake_api import FakeAPI
from views.waiting import until

PATH = "/apis/apps/v1/namespaces/default/deployments"


def web(wanted: int, ready: int) -> dict[str, Any]:
    metadata = {"name": "web", "uid": "u", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"replicas": wanted}, "status": {"readyReplicas": ready}}


def test_each_change_of_wanted_or_ready_is_noted_once() -> None:
    with FakeAPI() as api:
        api.objects[PATH] = [web(1, 1)]
        with views.ScaleLog("web", "default", api_client=api.api_client) as log:
            until(lambda: api.watches.get(PATH))
            for wanted, ready in [(3, 1), (3, 1), (3, 3)]:
                api.send(PATH, "MODIFIED", web(wanted, ready))
            until(lambda: len(log.samples) > 2)
    assert [sample[1:] for sample in log.samples] == [(1, 1), (3, 1), (3, 3), (3, 3)]
    assert [sample[0] for sample in log.samples] == sorted(sample[0] for sample in log.samples)


def test_without_a_server_there_is_nothing_to_record() -> None:
    with FakeAPI() as server:
        dead = server.api_client
    with pytest.raises(KitError, match="kit up"), views.ScaleLog("web", "default", api_client=dead):
        pass
