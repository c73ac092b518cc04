"""Environment variables, as the kubelet makes them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kitlib.cluster.kubelet import containers, env

POD: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "x"}, "annotations": {"a/b": "c"}, "uid": "u"},
    "spec": {"nodeName": "node-1", "containers": [{"name": "c"}]},
    "status": {"podIP": "127.1.1.2", "podIPs": [{"ip": "127.1.1.2"}], "hostIP": "127.1.0.1"},
    "kit_allocatable": {"cpu": "2", "memory": "1073741824"},
}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "12"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NONE)", "$(NONE)"),
        ("$A", "$A"),
        ("100$", "100$"),
        ("$$$$", "$$"),
        ("$(A", "$(A"),
    ],
)
def test_variables_are_expanded_as_in_kubernetes(text: str, expanded: str) -> None:
    assert env.expand(text, {"A": "1", "B": "2"}) == expanded


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['a/b']", "c"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "127.1.1.2"),
        ("status.podIPs", "127.1.1.2"),
        ("metadata.labels", 'app="x"'),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert env.field_value(POD, path) == value


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", "1", "1"),
        ("limits.cpu", "1m", "500"),
        ("limits.memory", "1Mi", "64"),
        ("requests.cpu", "1", "0"),
        ("limits.ephemeral-storage", "1", "0"),
    ],
)
def test_resources_of_the_container(resource: str, divisor: str, value: str) -> None:
    container = {"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}
    assert env.resource_value(POD, {"resource": resource, "divisor": divisor}, container) == value


def test_without_a_limit_the_nodes_allocatable_counts() -> None:
    assert env.resource_value(POD, {"resource": "limits.memory", "divisor": "1Mi"}, {}) == "1024"


def objects(resource: str, name: str) -> dict[str, Any] | None:
    password = base64.b64encode(b"secret").decode()
    return {
        ("configmaps", "c"): {"kind": "ConfigMap", "data": {"KEY": "value", "not.a.name": "2"}},
        ("secrets", "s"): {"kind": "Secret", "data": {"PASSWORD": password}},
    }.get((resource, name))


def test_env_from_takes_all_keys_and_env_wins() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "c"}}, {"prefix": "DB_", "secretRef": {"name": "s"}}],
        "env": [{"name": "KEY", "value": "mine"}, {"name": "ALSO", "value": "$(KEY)-$(DB_PASSWORD)-$(HOST)"}],
    }
    found = env.declared(container, POD, {"HOST": "h"}, objects)
    expected = {"KEY": "mine", "not.a.name": "2", "DB_PASSWORD": "secret", "ALSO": "mine-secret-h"}
    assert found == expected


def test_what_is_optional_may_be_missing() -> None:
    missing = {"name": "none", "key": "k", "optional": True}
    container = {
        "envFrom": [{"secretRef": {"name": "none", "optional": True}}],
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": missing}}],
    }
    assert env.declared(container, POD, {}, objects) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "couldn't find key k in Secret shop/s"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(env.ConfigError, match=message):
        env.declared({"env": [{"name": "A", "valueFrom": source}]}, POD, {}, objects)


def test_services_of_the_namespace_and_kubernetes_are_variables() -> None:
    def service(name: str, namespace: str, ip: str, *ports: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": list(ports)}}

    https = {"port": 443, "protocol": "TCP", "name": "https"}
    found = env.service_variables(
        [
            service("kubernetes", "default", "127.1.128.1", https),
            service("my-web", "shop", "127.1.128.2", {"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}),
            service("other", "elsewhere", "127.1.128.3", https),
            service("headless", "shop", "None", https),
        ],
        "shop",
    )
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["MY_WEB_SERVICE_HOST"] == "127.1.128.2"
    assert found["MY_WEB_PORT"] == found["MY_WEB_PORT_80_TCP"] == "tcp://127.1.128.2:80"
    assert found["MY_WEB_PORT_53_UDP_PROTO"] == "udp"
    assert not [name for name in found if name.startswith(("OTHER", "HEADLESS"))]


def test_where_all_share_one_address_a_services_variables_name_its_mapped_port() -> None:
    metadata = {"name": "web", "namespace": "shop", "annotations": {"kit/port-map": '{"80": 41000}'}}
    service = {"metadata": metadata, "spec": {"clusterIP": "127.1.128.2", "ports": [{"port": 80}]}}
    found = env.service_variables([service], "shop", "127.0.0.1")
    assert (found["WEB_SERVICE_HOST"], found["WEB_SERVICE_PORT"]) == ("127.0.0.1", "41000")
    assert found["WEB_PORT_80_TCP"] == "tcp://127.0.0.1:41000"


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/data", "/v"),
        ("cat /data/x", "cat /v/x"),
        ("--out=/data/x:/data", "--out=/v/x:/v"),
        ("/database", "/database"),
        ("/mnt/data", "/mnt/data"),
        ("/data/sub/x", "/s/x"),
        ("http://host/data", "http://host/data"),
    ],
)
def test_plain_mode_rewrites_paths_below_a_mount_and_no_others(text: str, rewritten: str) -> None:
    assert containers.rewrite(text, [("/v", "/data", False), ("/s", "/data/sub", False)]) == rewritten


def test_a_container_gets_the_path_of_containers_not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/home/somebody/bin:/usr/bin")
    path = env.base()["PATH"]
    assert path.endswith(env.CONTAINER_PATH)
    assert "/home/somebody/bin" not in path
