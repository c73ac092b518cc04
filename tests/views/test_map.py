"""The map follows watches, and gets over whatever ends one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from kitlib.errors import KitError
from kitlib.views import ClusterMap, cluster_map
from views import objects
from views.fake_api import FakeAPI
from views.waiting import until

PODS, NODES = "/api/v1/namespaces/default/pods", "/api/v1/nodes"
SERVICES = "/api/v1/namespaces/default/services"


@pytest.fixture
def api() -> Iterator[FakeAPI]:
    with FakeAPI() as server:
        server.objects[NODES] = [objects.node()]
        server.objects[PODS] = [objects.pod()]
        yield server


@pytest.fixture
def drawn(api: FakeAPI) -> Iterator[ClusterMap]:
    widget = cluster_map("default", api_client=api.api_client)
    until(lambda: api.watches.get(PODS) and api.watches.get(NODES))
    yield widget
    widget.close()


def lists_of_pods(api: FakeAPI) -> int:
    return sum(path == PODS and "watch" not in query for _, path, query in list(api.requests))


def test_the_map_is_filled_when_it_is_returned(drawn: ClusterMap) -> None:
    assert "[R] web-1  Running" in drawn.text()
    until(lambda: drawn.scene.get("nodes"))
    assert [pod["name"] for pod in drawn.scene["nodes"][0]["pods"]] == ["web-1"]


def test_a_change_arrives_through_the_watch_without_another_list(api: FakeAPI, drawn: ClusterMap) -> None:
    api.send(PODS, "ADDED", objects.pod("web-2"))
    api.send(PODS, "DELETED", objects.pod("web-1"))
    until(lambda: [pod["name"] for pod in drawn.scene["nodes"][0]["pods"]] == ["web-2"])
    assert lists_of_pods(api) == 1


def test_a_heartbeat_draws_nothing(api: FakeAPI, drawn: ClusterMap) -> None:
    until(lambda: drawn.scene.get("nodes"))
    pictures = []
    drawn.observe(pictures.append, "scene")
    api.send(NODES, "MODIFIED", objects.node(labels={"beat": "1"}))
    api.send(NODES, "MODIFIED", objects.node(ready="Unknown"))
    until(lambda: drawn.scene["nodes"][0]["status"] == "NotReady")
    assert len(pictures) == 1


def test_an_expired_version_is_answered_with_a_new_list(api: FakeAPI, drawn: ClusterMap) -> None:
    api.objects[PODS] = [objects.pod("after")]
    api.gone(PODS)
    until(lambda: "after" in drawn.text())
    assert "web-1" not in drawn.text()


def test_the_map_outlives_a_restart_of_the_api_server(api: FakeAPI, drawn: ClusterMap) -> None:
    api.objects[PODS] = [objects.pod("after")]
    api.break_watches()
    until(lambda: "after" in drawn.text())
    until(lambda: drawn.scene["problems"] == [])


def test_a_map_without_a_server_says_that_it_is_old() -> None:
    with FakeAPI() as api:
        api.objects = {NODES: [objects.node()], PODS: [objects.pod("web-1")]}
        widget = cluster_map("default", api_client=api.api_client)
        assert widget.scene["stale"] is False
    until(lambda: widget.scene["stale"])
    assert "does not answer; this is what was known last" in widget.text() and "[R] web-1" in widget.text()
    widget.close()


def test_what_may_not_be_read_is_named_and_the_rest_is_drawn(api: FakeAPI) -> None:
    api.refused.add(NODES)
    widget = cluster_map("default", api_client=api.api_client)
    assert "! nodes: forbidden for you" in widget.text()
    assert "[R] web-1" in widget.text()
    widget.close()


def test_services_are_followed_only_on_demand(api: FakeAPI, drawn: ClusterMap) -> None:
    assert not any(path == SERVICES for _, path, _ in api.requests)
    metadata = {"name": "web", "namespace": "default", "uid": "s"}
    api.objects[SERVICES] = [{"metadata": metadata, "spec": {"clusterIP": "127.3.128.9", "ports": []}}]
    drawn.services = True
    until(lambda: drawn.scene["services"])
    drawn.services = False
    until(lambda: not drawn.scene["services"])


def test_the_delete_button_deletes_the_pod_through_the_api(api: FakeAPI, drawn: ClusterMap) -> None:
    drawn._handle_custom_msg({"do": "delete", "name": "web-1", "namespace": "default"}, [])
    until(lambda: ("DELETE", f"{PODS}/web-1", {}) in api.requests)
    until(lambda: drawn.scene["notice"] == 'pod "web-1" deleted')


def test_node_buttons_call_what_the_caller_gave_and_show_its_error(api: FakeAPI) -> None:
    calls = []

    def action(verb: str, name: str) -> None:
        calls.append((verb, name))
        raise RuntimeError("no such node")

    widget = cluster_map("default", node_action=action, api_client=api.api_client)
    widget._handle_custom_msg({"do": "kill", "name": "node-1"}, [])
    until(lambda: widget.scene.get("notice") == "kill node-1: no such node")
    assert calls == [("kill", "node-1")]
    widget.close()


def test_a_cluster_that_is_not_the_kits_has_no_node_buttons(drawn: ClusterMap) -> None:
    until(lambda: drawn.scene.get("nodes"))
    assert drawn.scene["canActOnNodes"] is False


def test_closing_ends_every_thread(api: FakeAPI) -> None:
    before = set(threading.enumerate())
    widget = cluster_map("default", services=True, api_client=api.api_client)
    until(lambda: api.watches.get(PODS))
    widget.close()
    names = ("watch-", "cluster-map")
    until(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith(names)])


def threads_of_maps() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(("watch-", "cluster-map"))]


def test_a_cell_that_runs_again_stops_the_maps_that_it_made(api: FakeAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(threads_of_maps())
    shell = SimpleNamespace(parent_header={"metadata": {"cellId": "a"}, "header": {"msg_id": "first"}})
    monkeypatch.setattr(sys.modules["kitlib.views.map"], "get_ipython", lambda: shell)
    first = [cluster_map("default", api_client=api.api_client) for _ in range(2)]
    assert not any(widget.scene["stale"] for widget in first)
    shell.parent_header = {"metadata": {"cellId": "b"}, "header": {"msg_id": "second"}}
    other = cluster_map("default", api_client=api.api_client)
    shell.parent_header = {"metadata": {"cellId": "a"}, "header": {"msg_id": "third"}}
    third = cluster_map("default", api_client=api.api_client)
    assert [widget.scene["stale"] for widget in (*first, other, third)] == [True, True, False, False]
    until(lambda: len(threads_of_maps()) == before + 8)
    other.close()
    third.close()


def test_a_map_that_was_stopped_keeps_its_picture_and_says_so(drawn: ClusterMap) -> None:
    drawn.stop()
    drawn.services = True
    drawn._handle_custom_msg({"do": "delete", "name": "web-1", "namespace": "default"}, [])
    assert "[R] web-1" in drawn.text() and "! this map no longer follows the cluster" in drawn.text()
    assert "services" not in drawn._followers and drawn.scene["notice"] == ""


def test_no_answer_is_one_clear_line() -> None:
    with FakeAPI() as server:
        dead = server.api_client
    with pytest.raises(KitError, match="kit up"):
        cluster_map("default", api_client=dead)


def test_the_widget_carries_its_text(drawn: ClusterMap) -> None:
    assert drawn._repr_mimebundle_()[0]["text/plain"] == drawn.text()


def test_the_front_end_needs_no_network(drawn: ClusterMap) -> None:
    assert "http://" not in drawn._css + drawn._esm.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in drawn._css + drawn._esm
    assert "import " not in drawn._esm
