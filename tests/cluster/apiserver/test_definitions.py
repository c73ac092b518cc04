"""Which CustomResourceDefinitions are refused, in Kubernetes' words."""

# ruff: noqa: E501 (Kubernetes' messages are long)

from __future__ import annotations

from typing import Any

import pytest
from apiharness import API
from crontabs import DEFINITIONS, NAME, definition, version

ROOT = "spec.validation.openAPIV3Schema"


def with_schema(**properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return definition(version(schema={"openAPIV3Schema": schema}))


def renamed(name: str) -> dict[str, Any]:
    found = definition()
    found["metadata"]["name"] = name
    return found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (renamed("other.example.com"), 'metadata.name: Invalid value: "other.example.com": must be spec.names.plural+"."+spec.group'),
        (definition(group=""), "spec.group: Required value"),
        (definition(group="example"), 'spec.group: Invalid value: "example": should be a domain with at least one dot'),
        (definition(group="x.k8s.io"), "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation"),
        (definition(scope="Here"), 'spec.scope: Unsupported value: "Here": supported values: "Cluster", "Namespaced"'),
        (definition(version(), version("v2", storage=True)), "must have exactly one version marked as storage version"),
        (definition(version(), version(storage=False)), "must contain unique version names"),
        (definition(version("1v", storage=True)), 'spec.versions[0].name: Invalid value: "1v": a DNS-1035 label must'),
        (definition(names={"plural": "crontabs"}), "spec.names.kind: Required value"),
        (definition(names={"plural": "crontabs", "kind": "A_b"}), 'spec.names.kind: Invalid value: "A_b": may have mixed case, but should otherwise match: '),
        (definition(names={"plural": "crontabs", "kind": "A", "listKind": "A"}), "kind and listKind may not be the same"),
        (definition(version(schema=None)), "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
        (definition(preserveUnknownFields=True), "spec.preserveUnknownFields: Invalid value: true: cannot set to true"),
        (definition(conversion={"strategy": "Webhook"}), "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"),
        (definition(version(additionalPrinterColumns=[{"name": "A", "type": "text", "jsonPath": ".a"}])), 'additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string'),
        (definition(version(additionalPrinterColumns=[{"name": "A", "type": "string", "jsonPath": "a"}])), "must be a simple json path starting with ."),
        (definition(version(subresources={"scale": {"specReplicasPath": ".x.y", "statusReplicasPath": ".status.r"}})), 'specReplicasPath: Invalid value: ".x.y": should be a json path under .spec'),
        (with_schema(a={}), f"{ROOT}.properties[a].type: Required value: must not be empty for specified object fields"),
        (with_schema(a={"type": "array"}), f"{ROOT}.properties[a].items: Required value: must be specified"),
        (with_schema(a={"type": "array", "items": {}}), f"{ROOT}.properties[a].items.type: Required value: must not be empty for specified array items"),
        (with_schema(a={"type": "text"}), f'{ROOT}.properties[a].type: Unsupported value: "text"'),
        (with_schema(a={"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}), "additionalProperties and properties are mutual exclusive"),
        (with_schema(a={"type": "string", "pattern": "("}), f'{ROOT}.properties[a].pattern: Invalid value: "(": must be a valid regular expression, but isn\'t: '),
        (with_schema(a={"type": "string", "default": 1}), f'{ROOT}.properties[a].default: Invalid value: "integer": {ROOT}.properties[a].default in body must be of type string: "integer"'),
        (with_schema(a={"type": "object", "default": {"x": 1}, "properties": {}}), f'{ROOT}.properties[a].default: Invalid value: {{"x":1}}: must be pruned'),
        (with_schema(a={"type": "string", "anyOf": [{"type": "string"}]}), f"{ROOT}.properties[a].anyOf[0].type: Forbidden: must be empty to be structural"),
        (with_schema(a={"type": "array", "uniqueItems": True, "items": {"type": "string"}}), "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"),
        (with_schema(metadata={"type": "object", "description": "x"}), f"{ROOT}.properties[metadata]: Forbidden: must not specify anything other than name and generateName"),
        (definition(version(schema={"openAPIV3Schema": {"type": "string"}})), f'{ROOT}.type: Invalid value: "string": must be object at the root'),
    ],
)  # fmt: skip
async def test_a_definition_that_breaks_a_rule_is_refused(api: API, body: dict[str, Any], message: str) -> None:
    answer = await api.post(DEFINITIONS, body)
    assert answer.code == 422, answer.body
    assert message in answer.message, answer.message


@pytest.mark.parametrize(
    "schema",
    [
        {"a": {"type": "array", "items": {"type": "string", "minimum": "x"}}},
        {"a": {"type": "array", "items": [{"type": "string"}]}},
        {"a": {"type": "object", "additionalProperties": {"type": "object", "properties": []}}},
        {"a": {"type": "string", "enum": "x"}},
    ],
)
async def test_a_schema_of_the_wrong_shape_cannot_be_decoded(api: API, schema: dict[str, Any]) -> None:
    assert (await api.post(DEFINITIONS, with_schema(**schema))).code == 400


async def test_a_misspelt_word_of_a_schema_is_refused_if_the_client_asks_for_it(api: API) -> None:
    body = with_schema(a={"type": "array", "items": {"type": "string", "maxLen": 3}})
    answer = await api.post(f"{DEFINITIONS}?fieldValidation=Strict", body)
    assert answer.code == 400 and "items.maxLen" in answer.message


async def test_a_number_or_a_string_may_be_written_in_both_ways(api: API) -> None:
    either = [{"type": "integer"}, {"type": "string"}]
    body = with_schema(
        a={"x-kubernetes-int-or-string": True, "anyOf": either},
        b={"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": either}, {"pattern": "x"}]},
    )
    assert (await api.post(DEFINITIONS, body)).code == 201


async def test_kind_scope_group_and_plural_are_fixed_once_the_definition_is_established(api: API) -> None:
    await api.post(DEFINITIONS, definition())
    for patch in ({"scope": "Cluster"}, {"names": {"kind": "Other"}}, {"group": "a.b"}, {"names": {"plural": "x"}}):
        answer = await api.patch(f"{DEFINITIONS}/{NAME}", {"spec": patch})
        assert answer.code == 422 and "field is immutable" in answer.message
