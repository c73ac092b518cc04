"""What costs the API server too much, or breaks it, is refused with a 4xx answer."""

from __future__ import annotations

import asyncio
import gc
import ssl

import pytest
from apiharness import API, TOKEN, config_map, pod

from kitlib.cluster.apiserver import watch
from kitlib.cluster.apiserver.apiextensions.schemavalidation import validate
from kitlib.cluster.apiserver.negotiation import load_yaml
from kitlib.cluster.apiserver.patch import strategic_merge_patch
from kitlib.cluster.apiserver.registry import lookup
from kitlib.cluster.apiserver.validation.fielderrors import FieldErrors
from kitlib.cluster.splice import AnswerHead

CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@pytest.mark.parametrize(
    "value",
    ['!!bool "x"', '!!int ""', '!!timestamp "x"', '!!binary "x"', "!!set {a}", "[" + "a," * 200_000 + "]"],
    ids=["bool", "int", "timestamp", "binary", "set", "long"],
)
async def test_yaml_that_cannot_be_read_is_400(api: API, value: str) -> None:
    body = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: y}}\ndata:\n  a: {value}\n"
    assert (await api.post(CMS, body, Content_Type="application/yaml")).code == 400


def test_numbers_to_the_base_of_sixty_are_text_as_in_kubernetes() -> None:
    assert load_yaml(b"a: 1:30\nb: 1:30.5\nc: 0x10\nd: 1_000\ne: 1.5\nf: 017") == {
        "a": "1:30", "b": "1:30.5", "c": 16, "d": 1000, "e": 1.5, "f": 15
    }  # fmt: skip
    assert load_yaml(b"a: 1" + b":1" * 300_000)["a"].startswith("1:1")


async def test_an_answer_has_room_for_some_warnings_only(api: API) -> None:
    body = {**config_map("w"), **{f"x{number}": 1 for number in range(2000)}}
    made = await api.post(CMS, body)
    assert made.code == 201
    assert len(made.headers.getall("Warning")) == 50


@pytest.mark.parametrize("text", ["{", "[]", '{"80": "x"}', '{"80": [1]}', '{"80": 99999999}', '{"80": -1}'])
async def test_an_annotation_that_is_no_port_map_counts_as_none(api: API, text: str) -> None:
    body = pod("p")
    body["metadata"]["annotations"] = {"kit/port-map": text}
    assert (await api.post(PODS, body)).code == 201
    await api.patch(f"{PODS}/p/status", {"status": {"podIP": "127.0.0.1"}})
    assert (await api.get(f"{PODS}/p:1/proxy/")).code == 503


async def test_endpoints_without_a_port_or_a_pod_are_no_endpoints(api: API) -> None:
    spec = {"ports": [{"port": 80}]}
    await api.post(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec})
    labels = {"kubernetes.io/service-name": "s"}
    item = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
    item |= {"metadata": {"name": "a", "labels": labels}, "endpoints": [{"addresses": ["127.0.0.1"]}]}
    assert (await api.post(SLICES, {**item, "ports": [{"name": ""}]})).code == 201
    assert "no endpoints available" in (await api.get(f"{SERVICES}/s/proxy/")).message
    wrong = await api.post(SLICES, {**item, "ports": [{"port": 99999}]})
    assert (wrong.code, wrong.body["details"]["causes"][0]["field"]) == (422, "ports[0].port")
    item["metadata"]["name"] = "c"
    long = {**item, "addressType": "FQDN", "endpoints": [{"addresses": ["x" * 200 + ".com"]}], "ports": [{"port": 1}]}
    assert (await api.post(SLICES, long)).code == 201
    assert (await api.get(f"{SERVICES}/s/proxy/")).code == 503
    item["metadata"]["name"] = "b"
    item["endpoints"][0]["targetRef"] = {"kind": "Pod"}
    assert (await api.post(SLICES, {**item, "ports": [{"port": 1}]})).code == 201
    assert (await api.get(f"{SERVICES}/s/proxy/")).code == 503


@pytest.mark.parametrize("value", [1, 1.5, True, [], {}, "", None])
@pytest.mark.parametrize("field", ["apiVersion", "kind"])
async def test_an_apply_that_does_not_name_its_kind_is_400(api: API, field: str, value: object) -> None:
    body = {**config_map("a"), field: value}
    answer = await api.patch(f"{CMS}/a?fieldManager=f", body, "apply-patch+yaml")
    assert answer.code == 400 and answer.message.startswith("invalid object type: /")


async def test_a_pod_whose_spec_is_taken_away_is_invalid(api: API) -> None:
    made = (await api.post(PODS, pod("p"))).body
    without = {key: value for key, value in made.items() if key != "spec"}
    for body in (without, {**without, "spec": None}):
        assert (await api.put(f"{PODS}/p", body)).code == 422
    assert (await api.patch(f"{PODS}/p", {"spec": None})).code == 422


@pytest.mark.parametrize("field", ["minAvailable", "maxUnavailable"])
@pytest.mark.parametrize("value", ["../x", "", "-1%", "101%", "9" * 5000 + "%"], ids=lambda value: value[:5])
async def test_a_budget_is_a_number_or_a_percentage(api: API, field: str, value: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}}
    answer = await api.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {**body, "spec": {field: value}})
    assert (answer.code, answer.body["details"]["causes"][0]["field"]) == (422, f"spec.{field}")


async def test_what_has_a_spec_has_one_even_if_it_is_empty(api: API) -> None:
    body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}}
    made = await api.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", body)
    assert (made.code, made.body["spec"]) == (201, {})


@pytest.mark.parametrize("query", ["tailLines=--5", "sinceSeconds=" + "9" * 5000, "limitBytes=%D9%A3"])
async def test_a_log_option_that_is_no_number_is_400(api: API, query: str) -> None:
    await api.post(PODS, pod("p"))
    assert (await api.get(f"{PODS}/p/log?{query}")).code == 400


@pytest.mark.parametrize(
    "source",
    [
        {"downwardAPI": {"items": [{"path": "../x", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"projected": {"sources": [{"serviceAccountToken": {"path": "/x"}}]}},
        {"projected": {"sources": [{"configMap": {"name": "c", "items": [{"key": "k", "path": "a/../../x"}]}}]}},
        {"projected": {"sources": [{"secret": {"name": "c", "items": [{"key": "k", "path": "..data/x"}]}}]}},
    ],
    ids=["downward", "token", "configmap", "secret"],
)
async def test_a_file_of_a_volume_stays_in_its_volume(api: API, source: dict) -> None:
    body = pod("p")
    body["spec"]["volumes"] = [{"name": "v", **source}]
    refused = await api.post(PODS, body)
    assert refused.code == 422 and ".path" in refused.message


def test_a_pattern_that_would_take_years_does_not_match() -> None:
    found = FieldErrors()
    validate(found, {"type": "string", "pattern": "^(a+)+$"}, "a" * 40 + "!", "spec.x")
    assert "should match" in found[0]["message"]


async def test_a_backend_that_hangs_up_on_nobody_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    AnswerHead().connection_lost(None)
    await asyncio.sleep(0)
    gc.collect()
    assert not caplog.records


def test_a_long_list_is_merged_in_time() -> None:
    ports = [{"containerPort": number, "name": f"p{number}"} for number in range(40_000)]
    order = [{"containerPort": number} for number in reversed(range(40_000))]
    document = {"spec": {"containers": [{"name": "c", "ports": ports}]}}
    container = {"name": "c", "$setElementOrder/ports": order, "ports": [{**port, "protocol": "UDP"} for port in ports]}
    merged = strategic_merge_patch(lookup("pods"), document, {"spec": {"containers": [container]}})
    found = merged["spec"]["containers"][0]["ports"]
    assert [found[0]["containerPort"], found[-1]["containerPort"], len(found)] == [39_999, 0, 40_000]


async def test_a_watcher_that_does_not_read_is_cut_off(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_BACKLOG_BYTES", 1 << 20)
    context = ssl.create_default_context(cafile=str(api.config.ca_file))
    _, writer = await asyncio.open_connection(api.config.host, api.config.port, ssl=context, limit=1 << 10)
    head = f"GET {CMS}?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    writer.write(head.encode())
    while not api.store._listeners.get("configmaps"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    number = 0
    while api.store._listeners["configmaps"]:
        number += 1
        assert (await api.post(CMS, {**config_map(f"c{number}"), "data": {"a": "x" * 500_000}})).code == 201
        assert number < 200, "the watcher's backlog has no end"
    writer.transport.abort()


@pytest.mark.parametrize(("kind", "count", "code"), [("ClusterIP", 20_000, 201), ("NodePort", 3000, 422)])
async def test_a_service_of_many_ports_is_answered(api: API, kind: str, count: int, code: int) -> None:
    ports = [{"name": f"p{number}", "port": number} for number in range(1, count + 1)]
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": kind, "ports": ports}}
    assert (await asyncio.wait_for(api.post(SERVICES, body), 60)).code == code
