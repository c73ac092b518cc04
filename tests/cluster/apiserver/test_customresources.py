"""A CustomResourceDefinition makes the API server serve its kind, as any other kind."""

# ruff: noqa: E501 (Kubernetes' messages are long)

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from apiharness import API, config_of, pod, started
from crontabs import ALL, CRONTABS, DEFINITIONS, GROUP, NAME, SCHEMA, crontab, definition, version

from kitlib.cluster.store import Store

STRICT = f"{CRONTABS}?fieldValidation=Strict"


async def define(api: API, body: dict[str, Any] | None = None) -> None:
    made = await api.post(DEFINITIONS, body or definition())
    assert made.code == 201, made.body


async def conditions(api: API, name: str = NAME) -> dict[str, str]:
    found = (await api.get(f"{DEFINITIONS}/{name}")).body["status"]["conditions"]
    return {each["type"]: f"{each['status']} {each['reason']}" for each in found}


async def test_a_definition_is_completed_established_and_listed_in_discovery(api: API) -> None:
    assert (await api.get(CRONTABS)).code == 404
    await define(api)
    assert await conditions(api) == {"NamesAccepted": "True NoConflicts", "Established": "True InitialNamesAccepted"}
    found = (await api.get(f"{DEFINITIONS}/{NAME}")).body
    assert found["spec"]["names"]["singular"] == "crontab" and found["spec"]["names"]["listKind"] == "CronTabList"
    assert found["spec"]["conversion"] == {"strategy": "None"}
    assert found["status"]["acceptedNames"] == found["spec"]["names"] and found["status"]["storedVersions"] == ["v1"]
    group = (await api.get(f"/apis/{GROUP}")).body
    assert group["preferredVersion"]["groupVersion"] == f"{GROUP}/v1"
    resources = {each["name"]: each for each in (await api.get(f"/apis/{GROUP}/v1")).body["resources"]}
    assert resources["crontabs"]["shortNames"] == ["ct"] and resources["crontabs"]["categories"] == ["all"]
    assert resources["crontabs/scale"]["kind"] == "Scale" and resources["crontabs/status"]["kind"] == "CronTab"
    wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    items = (await api.get("/apis", Accept=wanted)).body["items"]
    assert GROUP in [item["metadata"]["name"] for item in items]
    assert GROUP in [item["name"] for item in (await api.get("/apis")).body["groups"]]


async def test_custom_objects_are_created_read_changed_and_deleted(api: API) -> None:
    await define(api)
    made = await api.post(CRONTABS, crontab(labels={"tier": "a"}))
    assert made.code == 201 and made.body["metadata"]["generation"] == 1
    assert made.body["spec"] == {"cronSpec": "0 3 * * *", "image": "busybox", "replicas": 1}, "with their defaults"
    assert (await api.post(CRONTABS, crontab())).message == f'{NAME} "nightly" already exists'
    await api.post(CRONTABS, crontab("other", {"image": "nginx"}))
    assert (await api.get(ALL)).body["kind"] == "CronTabList"
    assert (await api.get(f"{CRONTABS}?labelSelector=tier=a")).names == ["nightly"]
    assert (await api.get(f"{CRONTABS}?fieldSelector=spec.image=nginx")).names == ["other"]
    assert (await api.get(f"{CRONTABS}?fieldSelector=spec.note=x")).message == "field label not supported: spec.note"
    patched = await api.patch(f"{CRONTABS}/nightly", {"spec": {"replicas": 2}})
    assert (patched.body["spec"]["replicas"], patched.body["metadata"]["generation"]) == (2, 2)
    replace = [{"op": "replace", "path": "/spec/replicas", "value": 3}]
    assert (await api.patch(f"{CRONTABS}/nightly", replace, "json-patch+json")).body["spec"]["replicas"] == 3
    old = {**patched.body, "spec": {"cronSpec": "1 1 1 1 1"}}
    assert (await api.put(f"{CRONTABS}/nightly", old)).code == 409
    gone = await api.delete(f"{CRONTABS}/nightly")
    assert (gone.body["status"], gone.body["details"]["kind"]) == ("Success", "crontabs")
    assert (await api.get(f"{CRONTABS}/nightly")).message == f'{NAME} "nightly" not found'


async def test_a_strategic_merge_patch_is_refused(api: API) -> None:
    await define(api)
    await api.post(CRONTABS, crontab())
    answer = await api.patch(f"{CRONTABS}/nightly", {"spec": {"replicas": 2}}, "strategic-merge-patch+json")
    assert answer.code == 415
    kinds = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    assert answer.message.endswith(f"accepted media types include: {kinds}")


async def test_unknown_fields_are_pruned_and_refused_if_the_client_asks_for_it(api: API) -> None:
    await define(api)
    free, template = {"any": {"thing": 1}}, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "other": 1}
    spec = {"unknown": 1, "free": free, "template": template, "steps": [{"name": "a", "typo": 2}], "labels": {"a": "b"}}
    made = await api.post(CRONTABS, {**crontab(spec=spec), "extra": {}})
    assert made.code == 201
    assert sorted(made.headers.getall("Warning")) == [
        '299 - "unknown field \\"extra\\""',
        '299 - "unknown field \\"spec.steps[0].typo\\""',
        '299 - "unknown field \\"spec.unknown\\""',
    ]
    assert "extra" not in made.body and made.body["spec"]["steps"] == [{"name": "a"}]
    assert made.body["spec"]["free"] == free and made.body["spec"]["template"] == template
    assert made.body["spec"]["labels"] == {"a": "b"} and "unknown" not in made.body["spec"]
    refused = await api.post(STRICT, crontab("other", {"unknown": 1}))
    assert refused.code == 400
    what = 'CronTab in version "v1" cannot be handled as a CronTab'
    assert refused.message == f'{what}: strict decoding error: unknown field "spec.unknown"'


@pytest.mark.parametrize(
    ("spec", "messages"),
    [
        ({"cronSpec": None}, ["spec.cronSpec: Required value"]),
        ({"replicas": "2"}, ['spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"']),
        ({"replicas": 0}, ["spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1"]),
        ({"replicas": 11}, ["spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"]),
        ({"image": "x"}, ['spec.image: Unsupported value: "x": supported values: "busybox", "nginx"']),
        ({"image": 3}, ['spec.image: Invalid value: "integer": ', 'spec.image: Unsupported value: 3: supported values: ']),
        ({"cronSpec": "x"}, [r"""spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^(\S+ ){4}\S+$'"""]),
        ({"note": "x"}, ['spec.note: Invalid value: "x": spec.note in body should be at least 2 chars long']),
        ({"note": "123456"}, ["spec.note: Too long: may not be more than 5 bytes"]),
        ({"port": True}, ['spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"']),
        ({"labels": {"a": 1}}, ['spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer"']),
        ({"labels": {"a": "", "b": "", "c": ""}}, ["spec.labels: Too many: 3: must have at most 2 items"]),
        ({"when": "now"}, ['spec.when: Invalid value: "now": spec.when in body must be of type date-time: "now"']),
        ({"tags": ["a", "b", "a"]}, ['spec.tags[2]: Duplicate value: "a"']),
        ({"tags": ["a", "b", "c", "d"]}, ["spec.tags: Too many: 4: must have at most 3 items"]),
        ({"steps": [{"name": "a"}, {"name": "a"}]}, ['spec.steps[1]: Duplicate value: {"name":"a"}']),
        ({"steps": [{}]}, ["spec.steps[0].name: Required value"]),
        ({"replicas": 0, "image": "x"}, ["spec.image: Unsupported", "spec.replicas: Invalid value: 0"]),
    ],
)  # fmt: skip
async def test_values_that_break_the_schema_are_refused_in_kubernetes_words(
    api: API, spec: dict[str, Any], messages: list[str]
) -> None:
    await define(api)
    answer = await api.post(CRONTABS, crontab(spec=spec))
    assert answer.code == 422
    assert answer.message.startswith(f'CronTab.{GROUP} "nightly" is invalid: ')
    assert all(message in answer.message for message in messages), answer.message


async def test_what_a_schema_allows_is_stored(api: API) -> None:
    await define(api)
    spec = {"note": None, "port": "http", "when": "2026-01-01T00:00:00Z", "tags": ["a"], "replicas": 2.0, "image": None}
    made = await api.post(CRONTABS, crontab(spec=spec))
    assert made.code == 201, made.body
    assert made.body["spec"]["note"] is None, "it is nullable"
    assert made.body["spec"]["image"] == "busybox", "a null that is not allowed counts as absent"


async def test_an_update_is_not_refused_for_what_it_leaves_as_it_was(api: API) -> None:
    await define(api)
    await api.post(CRONTABS, crontab(spec={"replicas": 9}))
    stricter = definition()
    stricter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["replicas"] = {
        "type": "integer",
        "maximum": 3,
    }
    assert (await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": stricter["spec"]})).code == 200
    assert (await api.patch(f"{CRONTABS}/nightly", {"spec": {"image": "nginx"}})).code == 200
    assert (await api.patch(f"{CRONTABS}/nightly", {"spec": {"replicas": 8}})).code == 422
    assert (await api.patch(f"{CRONTABS}/nightly", {"spec": {"replicas": 2}})).code == 200


async def test_status_and_spec_are_written_separately(api: API) -> None:
    await define(api)
    made = (await api.post(CRONTABS, {**crontab(), "status": {"replicas": 5}})).body
    assert "status" not in made
    made["metadata"]["labels"] = {"a": "b"}
    made["spec"]["replicas"] = 7
    written = (await api.put(f"{CRONTABS}/nightly/status", {**made, "status": {"replicas": 4}})).body
    assert (written["status"], written["spec"]["replicas"]) == ({"replicas": 4}, 1)
    assert written["metadata"]["generation"] == 1 and "labels" not in written["metadata"]
    found = (await api.patch(f"{CRONTABS}/nightly", {"spec": {"replicas": 2}, "status": {"replicas": 9}})).body
    assert (found["status"], found["spec"]["replicas"]) == ({"replicas": 4}, 2)
    bad = await api.patch(f"{CRONTABS}/nightly/status", {"status": {"replicas": "x"}})
    assert bad.message.endswith('status.replicas in body must be of type integer: "string"')


async def test_without_the_status_subresource_status_is_a_field_as_any_other(api: API) -> None:
    await define(api, definition(version()))
    made = await api.post(CRONTABS, {**crontab(), "status": {"replicas": 5}})
    assert made.body["status"] == {"replicas": 5}
    assert (await api.get(f"{CRONTABS}/nightly/status")).code == 404
    found = await api.patch(f"{CRONTABS}/nightly", {"status": {"replicas": 6}})
    assert found.body["metadata"]["generation"] == 2


async def test_scale_reads_and_writes_the_fields_that_the_definition_names(api: API) -> None:
    await define(api)
    await api.post(CRONTABS, crontab())
    await api.patch(f"{CRONTABS}/nightly/status", {"status": {"replicas": 4, "selector": "a=b"}})
    scale = (await api.get(f"{CRONTABS}/nightly/scale")).body
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 1},
        {"replicas": 4, "selector": "a=b"},
    )
    assert (await api.patch(f"{CRONTABS}/nightly/scale", {"spec": {"replicas": 5}})).body["spec"]["replicas"] == 5
    assert (await api.get(f"{CRONTABS}/nightly")).body["spec"]["replicas"] == 5
    assert (await api.patch(f"{CRONTABS}/nightly/scale", {"spec": {"replicas": 50}})).code == 422


async def test_scale_makes_the_field_of_an_object_without_a_spec(api: API) -> None:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    await define(api, definition(version(schema={"openAPIV3Schema": anything}, subresources={"scale": scale})))
    wanted = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "nightly"}, "spec": {"replicas": 2}}
    empty = {key: value for key, value in crontab().items() if key != "spec"}
    await api.post(CRONTABS, empty)
    assert (await api.put(f"{CRONTABS}/nightly/scale", wanted)).body["spec"] == {"replicas": 2}
    assert (await api.get(f"{CRONTABS}/nightly")).body["spec"] == {"size": 2}
    await api.patch(f"{CRONTABS}/nightly", {"spec": "text"})
    refused = (await api.put(f"{CRONTABS}/nightly/scale", wanted)).body["message"]
    assert refused.endswith("value cannot be set because .spec is not a map[string]interface{}")


async def test_a_table_has_the_columns_of_the_definition(api: API) -> None:
    await define(api)
    await api.post(CRONTABS, crontab(spec={"steps": [{"name": "b", "run": "y"}, {"name": "a", "run": "x"}]}))
    table = (await api.get(CRONTABS, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")).body
    shown = [(each["name"], each["type"], each["priority"]) for each in table["columnDefinitions"]]
    assert shown == [("Name", "string", 0), ("Spec", "string", 0), ("Replicas", "integer", 0), ("First", "string", 1)]
    assert table["rows"][0]["cells"] == ["nightly", "0 3 * * *", 1, "x"]


async def test_without_columns_a_table_shows_name_and_age(api: API) -> None:
    await define(api, definition(version()))
    await api.post(CRONTABS, crontab())
    table = (await api.get(CRONTABS, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")).body
    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "Age"]
    assert table["rows"][0]["cells"][1].endswith("s")


async def apply(api: API, body: dict[str, Any], manager: str, force: str = "") -> Any:
    path = f"{CRONTABS}/{body['metadata']['name']}?fieldManager={manager}{force}"
    return await api.patch(path, body, "apply-patch+yaml")


async def test_server_side_apply_merges_lists_by_the_schema_and_knows_the_owners(api: API) -> None:
    await define(api)
    first = await apply(api, crontab(spec={"steps": [{"name": "a", "run": "x"}], "replicas": 2}), "one")
    assert first.code == 201
    second = await apply(api, crontab(spec={"steps": [{"name": "b"}]}), "two")
    assert [step["name"] for step in second.body["spec"]["steps"]] == ["a", "b"]
    refused = await apply(api, crontab(spec={"replicas": 3}), "two")
    assert refused.code == 409
    assert refused.message == 'Apply failed with 1 conflict: conflict with "one": .spec.replicas'
    third = await apply(api, crontab(), "one")
    assert [step["name"] for step in third.body["spec"]["steps"]] == ["b"], "what one no longer applies is gone"
    owners = {each["manager"]: each["fieldsV1"]["f:spec"] for each in third.body["metadata"]["managedFields"]}
    assert owners["two"]["f:steps"] == {'k:{"name":"b"}': {".": {}, "f:name": {}}}


async def test_versions_show_the_same_objects(api: API) -> None:
    old = version("v1beta1", deprecated=True, additionalPrinterColumns=[])
    old["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["extra"] = {"type": "string", "default": "x"}
    await define(api, definition(old, version()))
    group = (await api.get(f"/apis/{GROUP}")).body
    assert [each["version"] for each in group["versions"]] == ["v1", "v1beta1"]
    path = CRONTABS.replace("/v1/", "/v1beta1/")
    made = await api.post(path, {**crontab(), "apiVersion": f"{GROUP}/v1beta1"})
    assert (made.code, made.body["apiVersion"]) == (201, f"{GROUP}/v1beta1")
    assert made.headers["Warning"] == f'299 - "{GROUP}/v1beta1 CronTab is deprecated"'
    found = (await api.get(f"{CRONTABS}/nightly")).body
    assert found["apiVersion"] == f"{GROUP}/v1" and "extra" not in found["spec"], "v1 does not have the field"
    assert (await api.get(f"{path}/nightly")).body["spec"]["extra"] == "x"
    assert (await api.get(path)).names == (await api.get(CRONTABS)).names == ["nightly"]
    patched = await api.patch(f"{path}/nightly", {"spec": {"replicas": 3}})
    assert patched.body["apiVersion"] == f"{GROUP}/v1beta1"
    assert (await api.watch(f"{path}?watch=1", 1))[0]["object"]["apiVersion"] == f"{GROUP}/v1beta1"


async def test_the_storage_version_may_move_and_must_stay_listed(api: API) -> None:
    await define(api, definition(version()))
    await api.post(CRONTABS, crontab())
    versions = [version(storage=False), version("v2", storage=True)]
    moved = await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"versions": versions}})
    assert moved.body["status"]["storedVersions"] == ["v1", "v2"]
    path = f"{CRONTABS.replace('/v1/', '/v2/')}/nightly"
    assert (await api.get(path)).body["apiVersion"] == f"{GROUP}/v2"
    assert (await api.get(f"/apis/{GROUP}")).body["preferredVersion"]["version"] == "v2"
    refused = await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"versions": versions[1:]}})
    assert refused.code == 422 and 'status.storedVersions[0]: Invalid value: "v1": missing from' in refused.message
    unserved = [{**versions[0], "served": False}, versions[1]]
    assert (await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"versions": unserved}})).code == 200
    assert ((await api.get(CRONTABS)).code, (await api.get(path)).code) == (404, 200)


async def test_a_new_schema_is_shown_in_objects_that_are_older(api: API) -> None:
    await define(api, definition(version()))
    await api.post(CRONTABS, crontab(spec={"note": "abc"}))
    changed = json.loads(json.dumps(version()))
    properties = changed["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del properties["note"]
    properties["fresh"] = {"type": "boolean", "default": True}
    await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"versions": [changed]}})
    spec = (await api.get(f"{CRONTABS}/nightly")).body["spec"]
    assert spec["fresh"] is True and "note" not in spec
    assert (await api.get(CRONTABS)).body["items"][0]["spec"] == spec


async def test_deleting_a_definition_deletes_its_objects_and_ends_their_watches(api: API) -> None:
    await define(api)
    await api.post(CRONTABS, crontab("held", finalizers=["example.com/hold"]))
    await api.post(CRONTABS, crontab())
    start = (await api.get(CRONTABS)).body["metadata"]["resourceVersion"]
    watching = asyncio.ensure_future(api.watch(f"{CRONTABS}?watch=1&resourceVersion={start}", 10))
    answer = await api.delete(f"{DEFINITIONS}/{NAME}")
    assert answer.body["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    assert (await conditions(api))["Terminating"] == "True InstanceDeletionPending"
    refused = await api.post(CRONTABS, crontab("late"))
    assert (refused.code, refused.message) == (
        405,
        "create not allowed while custom resource definition is terminating",
    )
    assert (await api.get(CRONTABS)).names == ["held"]
    await api.patch(f"{CRONTABS}/held", {"metadata": {"finalizers": None}})
    seen = await asyncio.wait_for(watching, 60)
    assert [(each["type"], each["object"]["metadata"]["name"]) for each in seen] == [
        ("MODIFIED", "held"),
        ("DELETED", "nightly"),
        ("DELETED", "held"),
    ]
    assert (await api.get(f"{DEFINITIONS}/{NAME}")).code == 404
    assert ((await api.get(CRONTABS)).code, (await api.get(f"/apis/{GROUP}")).code) == (404, 404)
    await define(api)
    assert (await api.get(CRONTABS)).names == []


async def test_names_that_are_taken_keep_a_definition_waiting_until_they_are_free(api: API) -> None:
    await define(api)
    other = definition(names={"plural": "others", "kind": "CronTab", "shortNames": ["ct"]})
    other["metadata"]["name"] = f"others.{GROUP}"
    await define(api, other)
    waiting = await conditions(api, f"others.{GROUP}")
    assert waiting == {"NamesAccepted": "False ListKindConflict", "Established": "False NotAccepted"}
    assert (await api.get(f"/apis/{GROUP}/v1/others")).code == 404
    await api.delete(f"{DEFINITIONS}/{NAME}")
    assert (await conditions(api, f"others.{GROUP}"))["Established"] == "True InitialNamesAccepted"
    assert (await api.get(f"/apis/{GROUP}/v1/others")).code == 200


async def test_custom_resources_are_served_again_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    server = await started(config_of(tmp_path), store)
    client = server.client("test")
    await client.create("customresourcedefinitions.apiextensions.k8s.io", definition())
    await asyncio.sleep(0)
    await client.create(NAME, crontab(), "default")
    await server.stop()
    store.close()
    store = Store(tmp_path / "state.db")
    server = await started(config_of(tmp_path), store)
    found = await server.client("test").get(NAME, "nightly", "default")
    assert found["spec"]["image"] == "busybox"
    await server.stop()
    store.close()


async def test_a_kind_that_is_named_like_a_builtin_one_gets_nothing_of_it(api: API) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": "pods", "kind": "Pod"}
    body = definition(version(schema={"openAPIV3Schema": schema}), group="example.com", names=names)
    body["metadata"]["name"] = "pods.example.com"
    await define(api, body)
    path = "/apis/example.com/v1/namespaces/default/pods"
    made = await api.post(path, {**pod("web"), "apiVersion": "example.com/v1"})
    assert made.body["spec"] == {"containers": [{"name": "c", "image": "busybox"}]}
    assert "status" not in made.body
    assert (await api.get("/api/v1/namespaces/default/pods")).names == []


async def test_cluster_scoped_objects_have_no_namespace(api: API) -> None:
    await define(api, definition(version(), scope="Cluster"))
    assert (await api.post(ALL, crontab())).code == 201
    assert (await api.get(ALL)).names == ["nightly"]
    assert (await api.post(CRONTABS, crontab())).code == 404


async def test_openapi_describes_the_kind(api: API) -> None:
    before = (await api.get("/openapi/v3")).body["paths"]
    assert f"apis/{GROUP}/v1" not in before
    await define(api)
    entry = (await api.get("/openapi/v3")).body["paths"][f"apis/{GROUP}/v1"]
    document = (await api.get(entry["serverRelativeURL"])).body
    schema = document["components"]["schemas"]["com.example.stable.v1.CronTab"]
    assert schema["description"] == SCHEMA["description"]
    assert schema["properties"]["spec"]["properties"]["cronSpec"]["description"] == "When it runs."
    assert schema["x-kubernetes-group-version-kind"] == [{"group": GROUP, "version": "v1", "kind": "CronTab"}]
    assert {"apiVersion", "kind", "metadata"} <= schema["properties"].keys()
    patch = document["paths"][f"/apis/{GROUP}/v1/namespaces/{{namespace}}/crontabs/{{name}}"]["patch"]
    assert "fieldValidation" in [each["name"] for each in patch["parameters"]]
    assert b"com.example.stable.v1.CronTab" in (await api.get("/openapi/v2")).raw
    await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"versions": [version()]}})
    changed = (await api.get("/openapi/v3")).body["paths"][f"apis/{GROUP}/v1"]
    assert changed != entry, "a client that keeps documents sees that this one changed"


async def test_a_definition_whose_status_somebody_spoilt_is_mended(api: API) -> None:
    await define(api)
    await api.post(CRONTABS, crontab())
    for status in (
        {"acceptedNames": None},
        {"acceptedNames": {"listKind": ""}},
        {"conditions": [], "acceptedNames": None},
    ):
        await api.patch(f"{DEFINITIONS}/{NAME}/status", {"status": status})
        assert (await api.get(CRONTABS)).names == ["nightly"], status


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"name": "x"}},
        {"metadata": None, "spec": {"cronSpec": "0 3 * * *"}},
        {"metadata": {"name": "X_"}, "spec": {"cronSpec": "0 3 * * *"}},
        {"metadata": {"name": "x", "labels": {"a": 1}}, "spec": {"cronSpec": "0 3 * * *"}},
        {"metadata": {"name": "x"}, "spec": []},
        {"metadata": {"name": "x"}, "spec": None},
        {"metadata": {"name": "x"}, "spec": {"cronSpec": "0 3 * * *", "steps": [1, {"name": 2}, None]}},
        {"metadata": {"name": "x"}, "spec": {"cronSpec": "0 3 * * *", "steps": {"name": "a"}}},
        {"metadata": {"name": "x"}, "spec": {"cronSpec": "0 3 * * *", "labels": ["a"]}},
        {"metadata": {"name": "x"}, "spec": {"cronSpec": "0 3 * * *", "tags": [{"a": [1]}, {"a": [1]}]}},
        {"apiVersion": "v1", "metadata": {"name": "x"}, "spec": {"cronSpec": "0 3 * * *"}},
        {"kind": "Other", "metadata": {"name": "x"}, "spec": {"cronSpec": "0 3 * * *"}},
        {"metadata": {"name": "x"}, "spec": {"cronSpec": "0 3 * * *", "replicas": 10**18}},
    ],
    ids=str,
)
async def test_a_body_of_any_shape_gets_a_4xx_answer(api: API, body: dict[str, Any]) -> None:
    await define(api)
    found = {"apiVersion": f"{GROUP}/v1", "kind": "CronTab", **body}
    assert 400 <= (await api.post(CRONTABS, found)).code < 500
    applied = await api.patch(f"{CRONTABS}/x?fieldManager=me", found, "apply-patch+yaml")
    assert 400 <= applied.code < 500 or body["metadata"] is None, applied.body
    await api.post(CRONTABS, crontab("x"))
    for kind in ("apply-patch+yaml", "merge-patch+json"):
        answer = await api.patch(f"{CRONTABS}/x?fieldManager=me", found, kind)
        assert 400 <= answer.code < 500 or body["metadata"] in (None, {"name": "x"}), answer.body
