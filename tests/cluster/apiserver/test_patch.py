"""JSON merge, JSON and strategic merge patches."""

# ruff: noqa: E501 (Kubernetes' messages and rows are long)

import copy
import random

import pytest

from kitlib.cluster.apiserver import patch
from kitlib.cluster.apiserver.registry import lookup
from kitlib.cluster.client import ApiError

DEPLOYMENTS = lookup("deployments.apps")


def deployment(**spec):
    containers = [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"}]
    return {
        "metadata": {"name": "d", "finalizers": ["x"]},
        "spec": {"template": {"spec": {"containers": containers}}, **spec},
    }


def containers(doc):
    return doc["spec"]["template"]["spec"]["containers"]


def merge_pod(doc, **spec):
    return patch.strategic_merge_patch(DEPLOYMENTS, doc, {"spec": {"template": {"spec": spec}}})


@pytest.mark.parametrize(
    ("doc", "change", "result"),
    [
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"a": {"b": {"c": None, "d": 1}}}, {"a": {"b": {"d": 1}}}),
        ({}, {"a": {"b": None}}, {"a": {}}),
    ],
)
def test_json_merge_patch(doc, change, result):
    before = copy.deepcopy((doc, change))
    assert patch.json_merge_patch(doc, change) == result
    assert (doc, change) == before


def test_json_patch_replaces_adds_and_removes():
    doc = {"a": [1, 2], "b": 1}
    operations = [{"op": "add", "path": "/a/-", "value": 3}, {"op": "remove", "path": "/b"}]
    assert patch.json_patch(doc, operations) == {"a": [1, 2, 3]}
    assert doc == {"a": [1, 2], "b": 1}


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ({}, 400), ([1], 400), ([{"op": "x", "path": "/a"}], 400), ([{"op": "add"}], 400),
        ([{"op": "remove", "path": "/nosuch"}], 422), ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "replace", "path": "", "value": 1}], 400), ([{"op": "add", "path": "/a", "value": 1}] * 10001, 413),
        ([{"op": "copy", "from": "", "path": f"/{n}"} for n in range(60)], 413), ([{"op": "add", "path": 3, "value": 1}], 400),
    ],
)  # fmt: skip
def test_a_json_patch_that_fails_is_refused(operations, code):
    with pytest.raises(ApiError) as refused:
        patch.json_patch({"a": 1}, operations)
    assert refused.value.code == code


def test_containers_merge_by_name():
    result = merge_pod(deployment(), containers=[{"name": "b", "image": "b:2"}, {"name": "c", "image": "c:1"}])
    assert [(item["name"], item["image"]) for item in containers(result)] == [("a", "a:1"), ("b", "b:2"), ("c", "c:1")]


def test_an_item_with_patch_delete_goes():
    result = merge_pod(deployment(), containers=[{"name": "a", "$patch": "delete"}])
    assert [item["name"] for item in containers(result)] == ["b"]


def test_a_list_with_patch_replace_is_replaced():
    result = merge_pod(deployment(), containers=[{"name": "z", "image": "z"}, {"$patch": "replace"}])
    assert containers(result) == [{"name": "z", "image": "z"}]


def test_an_object_with_patch_replace_is_replaced():
    result = patch.strategic_merge_patch(
        DEPLOYMENTS, deployment(replicas=1), {"spec": {"$patch": "replace", "paused": True}}
    )
    assert result["spec"] == {"paused": True}


def test_env_merges_inside_containers():
    result = merge_pod(deployment(), containers=[{"name": "a", "env": [{"name": "Y", "value": "2"}]}])
    assert containers(result)[0]["env"] == [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]


def test_set_element_order_orders_and_keeps_what_only_the_server_has():
    doc = {"spec": {"template": {"spec": {"containers": [{"name": name} for name in "abcd"]}}}}
    change = {
        "$setElementOrder/containers": [{"name": "d"}, {"name": "a"}],
        "containers": [{"name": "d", "image": "x"}],
    }
    assert [item["name"] for item in containers(merge_pod(doc, **change))] == ["b", "c", "d", "a"]


def test_set_element_order_alone_reorders():
    change = {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}
    assert [item["name"] for item in containers(merge_pod(deployment(), **change))] == ["b", "a"]


def test_retain_keys_clears_the_rolling_update_of_a_recreate_strategy():
    doc = deployment(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert patch.strategic_merge_patch(DEPLOYMENTS, doc, change)["spec"]["strategy"] == {"type": "Recreate"}


def test_finalizers_are_a_merged_set_with_deletions():
    result = patch.strategic_merge_patch(DEPLOYMENTS, deployment(), {"metadata": {"finalizers": ["x", "y"]}})
    assert result["metadata"]["finalizers"] == ["x", "y"]
    gone = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}
    assert patch.strategic_merge_patch(DEPLOYMENTS, result, gone)["metadata"]["finalizers"] == ["y"]


def test_null_deletes_and_args_are_atomic():
    doc = deployment(paused=True)
    containers(doc)[0]["args"] = ["1", "2"]
    result = merge_pod(doc, containers=[{"name": "a", "args": ["3"], "env": None}])
    assert containers(result)[0] == {"name": "a", "image": "a:1", "args": ["3"]}
    assert "paused" not in patch.strategic_merge_patch(DEPLOYMENTS, doc, {"spec": {"paused": None}})["spec"]


def test_an_item_without_its_merge_key_is_a_bad_request():
    with pytest.raises(ApiError, match="does not contain declared merge key: name") as refused:
        merge_pod(deployment(), containers=[{"image": "x"}])
    assert refused.value.code == 400


def test_nothing_but_api_errors_comes_out_of_any_patch():
    draw = random.Random(7)
    names = ["spec", "metadata", "template", "containers", "name", "$patch", "$retainKeys", "env", "finalizers", "strategy",
             "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers"]  # fmt: skip

    def value(depth):
        kinds = [lambda: draw.choice(["a", "delete", "replace", "", None, 1, 2.5, True])]
        if depth:
            kinds += [lambda: [value(depth - 1) for _ in range(draw.randrange(3))]]
            kinds += [lambda: {draw.choice(names): value(depth - 1) for _ in range(draw.randrange(4))}] * 3
        return draw.choice(kinds)()

    for _ in range(3000):
        change, doc = value(6), deployment()
        for apply in (
            patch.json_merge_patch,
            patch.json_patch,
            lambda d, p: patch.strategic_merge_patch(DEPLOYMENTS, d, p),
        ):
            try:
                apply(doc, change)
            except ApiError as error:
                assert error.code in (400, 422)
        assert doc == deployment()
