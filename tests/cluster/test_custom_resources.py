"""Unchanged clients work with custom resources: kubectl, old and new, the official Python client, kr8s."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import EmbeddedCluster, eventually, kubectls
from kubernetes import client, config, dynamic, watch

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: NAMEs.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: NAMEs, singular: NAME, kind: KIND, shortNames: [SHORT], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, maximum: 9, description: How many.}
              colour: {type: string, enum: [red, blue], default: red}
              tags:
                type: array
                items: {type: string}
          status:
            type: object
            properties: {replicas: {type: integer}, phase: {type: string}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Colour, type: string, jsonPath: .spec.colour}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.replicas}
"""
OBJECT = """
apiVersion: GROUP/v1
kind: KIND
metadata: {name: first}
spec: {size: 2}
"""
PATIENCE = 60

Kubectl = Callable[..., str]


@pytest.fixture(params=kubectls(), ids=lambda path: re.sub(r"\W+", "-", path)[-20:])
def kubectl(request: pytest.FixtureRequest, cluster: EmbeddedCluster, namespace: str, tmp_path: Path) -> Kubectl:
    env = {**cluster.env, "HOME": str(tmp_path)}

    def run(*arguments: str, code: int = 0, stdin: str | None = None) -> str:
        argv = [request.param, "-n", namespace, *arguments]
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{' '.join(argv)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if code else "")

    return run


@pytest.fixture
def widgets(cluster: EmbeddedCluster) -> Iterator[str]:
    """The definition of Widgets, in the shared cluster until the test ends."""
    cluster.kubectl("apply", "-f", "-", stdin=named(DEFINITION, "widget"))
    yield "widgets.test.example.com"
    cluster.kubectl("delete", "crd", "widgets.test.example.com", "--ignore-not-found")


def named(text: str, name: str) -> str:
    words = {"NAME": name, "KIND": name.capitalize(), "SHORT": name[:2], "GROUP": "test.example.com"}
    return re.sub("NAME|KIND|SHORT|GROUP", lambda found: words[found[0]], text)


def test_kubectl_defines_a_kind_and_works_with_it(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=named(DEFINITION, "gadget"))
    kubectl("wait", "--for=condition=Established", "crd/gadgets.test.example.com", "--timeout=60s")
    try:
        assert "gadgets.test.example.com" in kubectl("get", "crd")
        resources = kubectl("api-resources", "--api-group=test.example.com")
        assert re.search(r"gadgets +ga +test.example.com/v1 +true +Gadget", resources)
        work_with_gadgets(kubectl)
    finally:
        kubectl("delete", "crd", "gadgets.test.example.com")
    assert "gadgets" not in kubectl("get", "crd")
    kubectl("get", "gadgets", code=1)


def work_with_gadgets(kubectl: Kubectl) -> None:
    gadget = named(OBJECT, "gadget")
    assert "gadget.test.example.com/first created" in kubectl("apply", "-f", "-", stdin=gadget)
    assert re.search(r"NAME +SIZE +COLOUR +AGE\s+first +2 +red +\d+s", kubectl("get", "ga"))
    assert "gadget.test.example.com/first" in kubectl("get", "all", "-o", "name")
    kubectl("diff", "-f", "-", stdin=gadget)
    kubectl("diff", "-f", "-", stdin=gadget.replace("size: 2", "size: 3"), code=1)
    assert "configured" in kubectl("apply", "-f", "-", stdin=gadget.replace("size: 2", "size: 3"))
    assert "server dry run" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=gadget)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=gadget)
    assert kubectl("get", "gadget", "first", "-o", "jsonpath={.spec.size}") == "2"
    refused = kubectl("apply", "-f", "-", stdin=gadget.replace("size: 2", "size: 20"), code=1)
    assert "spec.size in body should be less than or equal to 9" in refused
    assert 'unknown field "' in kubectl("apply", "-f", "-", stdin=gadget.replace("size: 2", "size: 2, s: 1"), code=1)
    kubectl("patch", "gadget/first", "--type=merge", "-p", '{"spec": {"colour": "blue"}}')
    kubectl("scale", "gadget/first", "--replicas=4")
    kubectl("label", "gadget/first", "tier=front")
    found = json.loads(kubectl("get", "gadgets", "-l", "tier=front", "-o", "json"))["items"][0]
    assert found["spec"] == {"size": 4, "colour": "blue"}
    explained = kubectl("explain", "gadget.spec")
    assert re.search(r"size\s+<integer> -required-", explained) and "How many." in explained
    assert "Colour:" in kubectl("describe", "gadget", "first")
    kubectl("delete", "ga", "first")


@pytest.fixture
def api(cluster: EmbeddedCluster) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(cluster.home / "kubeconfig")) as made:
        yield made


def widget(name: str, size: int) -> dict[str, Any]:
    return {"apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}}


def test_the_official_clients_custom_objects_api(api: client.ApiClient, widgets: str, namespace: str) -> None:
    custom = client.CustomObjectsApi(api)
    where = ("test.example.com", "v1", namespace, "widgets")
    assert custom.create_namespaced_custom_object(*where, widget("a", 2))["spec"] == {"size": 2, "colour": "red"}
    custom.patch_namespaced_custom_object_status(*where, "a", {"status": {"phase": "Ready"}})
    found = custom.get_namespaced_custom_object(*where, "a")
    assert found["status"] == {"phase": "Ready"}
    assert custom.patch_namespaced_custom_object(*where, "a", {"spec": {"size": 3}})["spec"]["size"] == 3
    with pytest.raises(client.ApiException) as conflict:
        custom.replace_namespaced_custom_object(*where, "a", found)
    assert conflict.value.status == 409
    assert custom.get_namespaced_custom_object_scale(*where, "a")["spec"] == {"replicas": 3}
    with pytest.raises(client.ApiException) as invalid:
        custom.create_namespaced_custom_object(*where, widget("b", 0))
    assert "spec.size in body should be greater than or equal to 1" in invalid.value.body
    listed = custom.list_namespaced_custom_object(*where)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
    custom.delete_namespaced_custom_object(*where, "a")
    start = listed["metadata"]["resourceVersion"]
    stream = watch.Watch().stream(
        custom.list_namespaced_custom_object, *where, resource_version=start, timeout_seconds=PATIENCE
    )
    assert next(iter(stream))["type"] == "DELETED"


def test_the_dynamic_client_finds_the_kind_and_its_watch_ends_with_the_definition(
    cluster: EmbeddedCluster, api: client.ApiClient, widgets: str, namespace: str, tmp_path: Path
) -> None:
    resource = dynamic.DynamicClient(api, cache_file=str(tmp_path / "discovery")).resources.get(
        api_version="test.example.com/v1", kind="Widget"
    )
    made = resource.create(body=widget("a", 2), namespace=namespace)
    assert (made.spec.size, made.spec.colour) == (2, "red")
    seen: list[str] = []
    options = {"namespace": namespace, "timeout": PATIENCE, "resource_version": made.metadata.resourceVersion}

    def follow() -> None:
        with contextlib.suppress(dynamic.exceptions.NotFoundError):  # it looks for the kind again
            seen.extend(event["type"] for event in resource.watch(**options))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    resource.server_side_apply(body=widget("a", 3), namespace=namespace, field_manager="me", force_conflicts=True)
    assert resource.get(name="a", namespace=namespace).spec.size == 3
    cluster.kubectl("delete", "crd", widgets)
    thread.join(PATIENCE / 2)
    assert not thread.is_alive() and seen == ["MODIFIED", "DELETED"]


@pytest.mark.filterwarnings("ignore:Kubernetes version")
def test_kr8s_makes_a_class_of_the_kind(cluster: EmbeddedCluster, widgets: str, namespace: str) -> None:
    import kr8s
    from kr8s.objects import new_class

    api = kr8s.api(kubeconfig=str(cluster.home / "kubeconfig"), namespace=namespace)
    new = new_class(kind="Widget", version="test.example.com/v1", namespaced=True, scalable=True, scalable_spec="size")
    one = new({**widget("a", 2), "metadata": {"name": "a", "namespace": namespace}}, api=api)
    one.create()
    assert one.spec.colour == "red"
    one.patch({"spec": {"size": 4}})
    one.label(tier="front")
    assert [found.name for found in api.get("widgets.test.example.com", label_selector={"tier": "front"})] == ["a"]
    one.delete()
    eventually(lambda: not one.exists())
