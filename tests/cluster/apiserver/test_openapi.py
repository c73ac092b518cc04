"""OpenAPI documents, as kubectl reads them."""

import json

import pytest

from kitlib.cluster.apiserver.documents import openapi, openapi_v2
from kitlib.cluster.apiserver.registry import KINDS


def document(name):
    return json.loads(openapi.v3_document(name))


def test_the_index_names_every_group_and_version():
    paths = openapi.v3_index()["paths"]
    wanted = {f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}" for kind in KINDS}
    assert set(paths) == wanted
    assert paths["apis/apps/v1"]["serverRelativeURL"].startswith("/openapi/v3/apis/apps/v1?hash=")


def test_what_is_not_served_has_no_document():
    assert openapi.v3_document("apis/nosuch/v1") is None


@pytest.mark.parametrize("name", sorted(openapi.v3_index()["paths"]))
def test_every_reference_leads_somewhere(name):
    found = document(name)
    schemas = found["components"]["schemas"]

    def references(value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from [item] if key == "$ref" and isinstance(item, str) else references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    missing = {ref for ref in references(found) if ref.rpartition("/")[2] not in schemas}
    assert missing == set()


def test_apply_finds_that_the_server_validates_fields():
    patch = document("apis/apps/v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert {"name": "fieldValidation", "in": "query"}.items() <= patch["parameters"][2].items()


def test_explain_finds_types_and_descriptions():
    schemas = document("apis/apps/v1")["components"]["schemas"]
    deployment = schemas["io.k8s.api.apps.v1.Deployment"]
    assert deployment["x-kubernetes-group-version-kind"] == [{"group": "apps", "version": "v1", "kind": "Deployment"}]
    assert deployment["description"].startswith("Deployment enables declarative updates")
    reference = {"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}
    assert deployment["properties"]["spec"]["allOf"] == [reference]
    strategy = schemas["io.k8s.api.apps.v1.DeploymentStrategy"]["properties"]["type"]
    assert strategy["description"].startswith("Type of deployment.")
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    probe = document("api/v1")["components"]["schemas"]["io.k8s.api.core.v1.Probe"]["properties"]
    assert probe["exec"]["description"] == 'ExecAction describes a "run in container" action.'


def test_version_2_tells_old_kubectls_which_kinds_can_be_patched_in_a_dry_run():
    document = openapi_v2.document()
    assert document.startswith(b"\x0a\x032.0")
    assert b"/apis/apps/v1/namespaces/{namespace}/deployments/{name}" in document
    assert b'{"group":"apps","kind":"Deployment","version":"v1"}' in document
    assert b"tokenreviews" not in document


def test_the_list_of_all_namespaces_names_its_kind():
    item = document("apis/apps/v1")["paths"]["/apis/apps/v1/deployments"]
    assert item["get"]["x-kubernetes-group-version-kind"]["kind"] == "Deployment"
