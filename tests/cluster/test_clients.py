"""Unchanged Python clients work on the embedded cluster: the official one and kr8s."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from harness import EmbeddedCluster, eventually
from kubernetes import client, config, utils, watch

WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "web",
                        "image": "gcr.io/google-samples/kubernetes-bootcamp:v1",
                        "ports": [{"containerPort": 8080}],
                    }
                ],
            },
        },
    },
}
PATIENCE = 60


@pytest.fixture
def api(cluster: EmbeddedCluster) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(cluster.home / "kubeconfig")) as made:
        yield made


def ready(apps: client.AppsV1Api, namespace: str, replicas: int) -> bool:
    return apps.read_namespaced_deployment("web", namespace).status.ready_replicas == replicas


def test_the_official_client_creates_patches_scales_and_deletes(api: client.ApiClient, namespace: str) -> None:
    apps = client.AppsV1Api(api)
    made = utils.create_from_dict(api, WEB, namespace=namespace)[0]
    assert (made.kind, made.spec.strategy.type, made.spec.replicas) == ("Deployment", "RollingUpdate", 2)
    eventually(lambda: ready(apps, namespace, 2))
    container = {"name": "web", "env": [{"name": "COLOUR", "value": "blue"}]}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    patched = apps.patch_namespaced_deployment("web", namespace, patch)
    assert patched.spec.template.spec.containers[0].image.endswith("bootcamp:v1"), "a dict is a strategic merge"
    scaled = apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 1}})
    assert scaled.spec.replicas == 1
    apps.delete_namespaced_deployment("web", namespace)
    with pytest.raises(client.ApiException) as missing:
        eventually(lambda: apps.read_namespaced_deployment("web", namespace) is None)
    assert (missing.value.status, missing.value.reason) == (404, "Not Found")


def test_the_official_client_replaces_only_what_it_has_read(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="settings"), data={"colour": "blue"})
    old = core.create_namespaced_config_map(namespace, body)
    core.patch_namespaced_config_map(
        "settings", namespace, [{"op": "replace", "path": "/data/colour", "value": "green"}]
    )
    old.data = {"colour": "red"}
    with pytest.raises(client.ApiException) as conflict:
        core.replace_namespaced_config_map("settings", namespace, old)
    assert conflict.value.status == 409
    assert core.read_namespaced_config_map("settings", namespace).data == {"colour": "green"}


def test_the_official_client_watches_from_where_its_list_ended(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="seen"), data={"n": "1"})
    core.create_namespaced_config_map(namespace, body)
    core.patch_namespaced_config_map("seen", namespace, {"data": {"n": "2"}})
    core.delete_namespaced_config_map("seen", namespace)
    options: dict[str, Any] = {"resource_version": start, "field_selector": "metadata.name=seen"}
    found = []
    for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, timeout_seconds=PATIENCE, **options):
        found.append((event["type"], event["object"].data["n"]))
        if event["type"] == "DELETED":
            break
    assert found == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def test_the_official_clients_informer_keeps_a_cache(api: client.ApiClient, namespace: str) -> None:
    if importlib.util.find_spec("kubernetes.informer") is None:
        return  # the client has informers from release 36 on
    informer = importlib.import_module("kubernetes.informer")
    core = client.CoreV1Api(api)
    shared = informer.SharedInformer(core.list_namespaced_secret, namespace=namespace)
    gone: list[str] = []
    shared.add_event_handler(informer.DELETED, lambda obj: gone.append(obj.metadata.name))
    shared.start()
    with contextlib.ExitStack() as stack:
        stack.callback(shared.stop)
        core.create_namespaced_secret(namespace, client.V1Secret(metadata=client.V1ObjectMeta(name="key")))
        eventually(lambda: shared.cache.get_by_key(f"{namespace}/key") is not None)
        core.delete_namespaced_secret("key", namespace)
        eventually(lambda: gone == ["key"])


@pytest.mark.filterwarnings("ignore:Kubernetes version")
def test_kr8s_creates_waits_reads_logs_execs_and_forwards(cluster: EmbeddedCluster, namespace: str) -> None:
    import kr8s
    from kr8s.objects import Deployment

    api = kr8s.api(kubeconfig=str(cluster.home / "kubeconfig"), namespace=namespace)
    web = Deployment({**WEB, "metadata": {**WEB["metadata"], "namespace": namespace}}, api=api)
    web.create()
    web.wait("condition=Available", timeout=PATIENCE)
    eventually(web.ready)
    web.scale(1)
    eventually(lambda: len(list(api.get("pods", namespace=namespace, label_selector={"app": "web"}))) == 1)
    pod = next(iter(api.get("pods", namespace=namespace, label_selector={"app": "web"})))
    pod.label(seen="yes")
    assert "Kubernetes Bootcamp App Started" in "\n".join(pod.logs())
    assert pod.exec(["sh", "-c", "echo $HOSTNAME"]).stdout.decode().strip() == pod.name
    with pod.portforward(8080) as port:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE).read()
    assert answer.startswith(b"Hello Kubernetes bootcamp!")
    web.delete(propagation_policy="Foreground")
    eventually(lambda: not web.exists())


def test_pods_find_the_api_server_at_its_usual_port_behind_the_service_kubernetes(cluster: EmbeddedCluster) -> None:
    (subset,) = cluster.get("endpoints", "kubernetes", "-n", "default")["subsets"]
    port = subset["ports"][0]["port"]
    service = cluster.get("service", "kubernetes", "-n", "default")["spec"]
    assert (port, service["ports"][0]["port"], service["ports"][0]["targetPort"]) == (6443, 443, 6443)
    context = ssl.create_default_context(cafile=str(cluster.home / "pki" / "ca.crt"))
    with urllib.request.urlopen(f"https://{subset['addresses'][0]['ip']}:{port}/version", context=context) as answer:
        assert b"v1.36" in answer.read()


def test_kubectl_creates_tokens_of_service_accounts(cluster: EmbeddedCluster, namespace: str) -> None:
    eventually(lambda: cluster.kubectl("get", "serviceaccount", "default", "-n", namespace, code=None).returncode == 0)
    token = cluster.kubectl("create", "token", "default", "-n", namespace, "--duration", "20m").stdout.strip()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = json.loads(cluster.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)).stdout)
    assert answer["status"]["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    short = cluster.kubectl("create", "token", "default", "-n", namespace, "--duration", "5m", code=1).stderr
    assert "may not specify a duration less than 10 minutes" in short
