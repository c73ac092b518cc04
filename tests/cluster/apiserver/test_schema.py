"""Strict decoding: unknown fields, wrong types, canonical forms."""

# ruff: noqa: E501 (Kubernetes' messages and rows are long)

import copy
import json
import random
from pathlib import Path

import pytest

from kitlib.cluster.apiserver import models, schema
from kitlib.cluster.apiserver.registry import KINDS, by_gvk, lookup
from kitlib.cluster.client import ApiError

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "recorded_objects.jsonl").read_text().splitlines()]
DEPLOYMENTS, PODS = lookup("deployments.apps"), lookup("pods")


def without_nulls(value):
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("recorded", RECORDED, ids=[each["stored"]["metadata"]["name"] for each in RECORDED])
def test_stored_objects_decode_to_themselves(recorded):
    obj = copy.deepcopy(recorded["stored"])
    assert schema.decode(by_gvk(obj["apiVersion"], obj["kind"]), obj) == []
    assert obj == without_nulls(recorded["stored"])


def refusal(kind, obj, mode="Strict"):
    with pytest.raises(ApiError) as refused:
        schema.decode(kind, obj, mode)
    assert (refused.value.code, refused.value.reason) == (400, "BadRequest")
    return refused.value.message.removeprefix(
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
    )


def in_template(**spec):
    return {"spec": {"template": {"spec": spec}}}


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        ({"spec": {"replica": 3}}, 'strict decoding error: unknown field "spec.replica"'),
        ({"dta": 1, **in_template(containers=[{}, {"imag": 1}])},
         'strict decoding error: unknown field "dta", unknown field "spec.template.spec.containers[1].imag"'),
        ({"spec": {"replicas": "3"}},
         "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"spec": {"replicas": 2.5}},
         "json: cannot unmarshal number 2.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"spec": {"replicas": 2**31}},
         "json: cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"spec": {"paused": "yes"}},
         "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool"),
        ({"spec": []}, "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        (in_template(containers={}),
         "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"),
        (in_template(containers=[{"name": 1}]),
         "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string"),
        ({"metadata": {"labels": {"a": 1}}},
         "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels.a of type string"),
        (in_template(containers=[{"resources": {"limits": {"cpu": "1x"}}}]),
         "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ([], "json: cannot unmarshal array into Go value of type v1.Deployment"),
        ({"metadata": {"creationTimestamp": "now"}},
         'parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"'),
    ],
)  # fmt: skip
def test_refusals(obj, text):
    assert refusal(DEPLOYMENTS, obj) == text


def test_warn_tells_and_ignore_keeps_silent_and_both_drop():
    for mode, warnings in (("Warn", ['unknown field "spec.replica"']), ("Ignore", [])):
        obj = {"spec": {"replica": 3, "replicas": 2}}
        assert schema.decode(DEPLOYMENTS, obj, mode) == warnings
        assert obj == {"spec": {"replicas": 2}}


def test_nulls_and_empty_lists_are_left_out_and_empty_objects_stay():
    obj = {
        "spec": {"securityContext": {}, "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [], "nodeName": None}
    }
    schema.decode(PODS, obj)
    assert obj == {"spec": {"securityContext": {}, "volumes": [{"name": "v", "emptyDir": {}}]}}


def test_quantities_and_times_take_their_stored_form():
    obj = {"metadata": {"creationTimestamp": "2026-01-01T02:00:00.5+02:00"},
           "spec": {"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1024Mi", "nvidia.com/gpu": 2}}}]}}  # fmt: skip
    schema.decode(PODS, obj)
    assert obj["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    limits = {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "2"}
    assert obj["spec"]["containers"][0]["resources"]["limits"] == limits
    lease = {"spec": {"renewTime": "2026-01-01T00:00:00Z"}}
    schema.decode(lookup("leases.coordination.k8s.io"), lease)
    assert lease["spec"]["renewTime"] == "2026-01-01T00:00:00.000000Z"


def test_numbers_of_64_bits_are_known():
    schema.decode(PODS, {"spec": {"securityContext": {"runAsUser": 2**40}}})
    assert "of type int32" in refusal(PODS, {"spec": {"priority": 2**40}})


def test_a_patch_gets_words_of_its_own():
    patch = {"metadata": {"labels": None}, "spec": {"replica": 3}}
    with pytest.raises(ApiError) as refused:
        schema.decode_patched(DEPLOYMENTS, {"spec": {"replica": 3}}, patch)
    assert refused.value.code == 422
    assert refused.value.message == (
        ' "" is invalid: patch: Invalid value: "map[metadata:map[labels:<nil>] spec:map[replica:3]]":'
        ' strict decoding error: unknown field "spec.replica"'
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"metadata": {"labels": {"a": 5}}}, "map[metadata:map[labels:map[a:5]]]: cannot convert int64 to string"),
        ({"metadata": {"labels": {"a": True}}}, "map[metadata:map[labels:map[a:true]]]: unrecognized type: string"),
        ({"spec": {"replicas": "x"}}, "map[spec:map[replicas:x]]: unrecognized type: int32"),
        ({"spec": {"replicas": 2.5}}, "map[spec:map[replicas:2.5]]: cannot convert float64 to int32"),
        ({"spec": []}, "map[spec:[]]: cannot restore struct from: slice"),
        ({"metadata": {"labels": "a"}}, "map[metadata:map[labels:a]]: cannot restore map from string"),
    ],
)
def test_a_strategic_merge_patch_of_the_wrong_type_gets_the_converters_words(change, text):
    patch, _, why = text.rpartition("]: ")
    with pytest.raises(ApiError) as refused:
        schema.decode_patched(DEPLOYMENTS, json.loads(json.dumps(change)), change, strategic=True)
    assert refused.value.message == f' "" is invalid: patch: Invalid value: "{patch}]": {why}'


def test_objects_that_nest_too_deeply_are_refused():
    obj = {}
    for _ in range(300):
        obj = {"spec": obj}
    assert "max depth" in refusal(DEPLOYMENTS, obj)


def test_every_kind_of_the_registry_has_a_model():
    assert [kind.kind for kind in KINDS if models.load(kind.model) is None] == []


def test_models_agree_with_the_published_schemas(kubernetes_validate):
    """Names of fields, and which numbers have 64 bits, against the JSON schemas of kubernetes-validate."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.36.0-local"
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    for short in ("PodSpec", "Container", "PodStatus", "ServiceSpec", "Probe", "Volume"):
        published = definitions[f"io.k8s.api.core.v1.{short}"]["properties"]
        model = models.load(f"V1{short}")
        assert not set(published) - set(model.fields)
        for name, item in published.items():
            if item.get("format") in ("int32", "int64"):
                assert model.fields[name].type == item["format"], name
            assert model.fields[name].merge_key == item.get("x-kubernetes-patch-merge-key", "")
            assert list(model.fields[name].map_keys) == item.get("x-kubernetes-list-map-keys", [])


CLASSIC = '''
class V1Thing(object):
    openapi_types = {
        'some_name': 'str',
        'items': 'list[V1Item]',
        'data': 'dict(str, str)'
    }

    attribute_map = {
        'some_name': 'someName',
        'items': 'items',
        'data': 'data'
    }

    @property
    def some_name(self):
        """Gets the some_name of this V1Thing.  # noqa: E501

        Its name.  # noqa: E501

        :return: The some_name of this V1Thing.  # noqa: E501
        """
        return self._some_name

    @items.setter
    def items(self, items):
        if self.local_vars_configuration.client_side_validation and items is None:  # noqa: E501
            raise ValueError("Invalid value for `items`, must not be `None`")  # noqa: E501
'''


def test_models_of_older_clients_are_read_too(monkeypatch):
    monkeypatch.setattr(models, "_source", lambda name: CLASSIC if name == "V1Thing" else "")
    model = models.load.__wrapped__("V1Thing")
    assert {name: field.type for name, field in model.fields.items()} == {
        "someName": "string",
        "items": ("list", "V1Item"),
        "data": ("map", "string"),
    }
    assert [name for name, field in model.fields.items() if field.required] == ["items"]
    assert models.descriptions("V1Thing")[1]["someName"] == "Its name."


def test_nothing_but_api_errors_comes_out_of_any_json():
    draw = random.Random(5)
    names = """metadata spec status name labels containers resources limits cpu template replicas data conditions type env value
        creationTimestamp renewTime ports targetPort managedFields fieldsV1 selector matchLabels webhooks schema""".split()

    def value(depth):
        kinds = [
            lambda: draw.choice(["a", "", None, 0, -1, 2**70, 2.5, True, "1Gi", "2026-01-01T00:00:00Z", "\\ud800"])
        ]
        if depth:
            kinds += [lambda: [value(depth - 1) for _ in range(draw.randrange(3))]]
            kinds += [lambda: {draw.choice(names): value(depth - 1) for _ in range(draw.randrange(5))}] * 3
        return draw.choice(kinds)()

    for round_ in range(8000):
        obj = value(7)
        try:
            schema.decode(KINDS[round_ % len(KINDS)], obj, draw.choice(["Strict", "Warn", "Ignore"]))
        except ApiError as error:
            assert error.code == 400
