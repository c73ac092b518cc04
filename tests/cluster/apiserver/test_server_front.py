"""The front of the API: who may ask, in which format, and what bad input gets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import stat
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import orjson
import pytest
import yaml
from apiharness import API, NODE_TOKEN, config_map, config_of, deployment, pod, started
from cryptography import x509

from kitlib.cluster.apiserver import tls
from kitlib.cluster.apiserver.server import APIServer, server_context
from kitlib.cluster.store import Store, StoreError

CMS = "/api/v1/namespaces/default/configmaps"
EVERY_PATH = (
    "/",
    "/api",
    "/apis",
    "/api/v1",
    "/apis/apps/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/api/v1",
    "/metrics",
    "/nothing/here",
    CMS,
    f"{CMS}/a",
    f"{CMS}?watch=1",
    "/api/v1/namespaces/default/pods/p/log",
    "/api/v1/namespaces/default/pods/p/exec?command=sh",
    "/api/v1/namespaces/default/pods/p/portforward",
    "/api/v1/namespaces/default/pods/p/proxy/",
    "/api/v1/namespaces/default/services/s/proxy/",
    "/api/v1/nodes/n/proxy/stats/summary",
    "/apis/metrics.k8s.io/v1beta1/nodes",
)


@pytest.mark.parametrize("token", ["", "wrong", "the-administrators-token "[:-2]])
async def test_every_path_answers_401_without_a_token(api: API, token: str) -> None:
    for path in EVERY_PATH:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            refused = await api.request(method, path, "{}" if method != "GET" else None, token=token)
            assert refused.code == 401, (method, path)
            assert refused.body["reason"] == "Unauthorized" and refused.body["kind"] == "Status"


async def test_health_and_version_need_no_token(api: API) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/readyz/ping"):
        found = await api.request("GET", path, token="")
        assert (found.code, found.body) == (200, "ok")
    version = await api.request("GET", "/version", token="")
    assert version.body["gitVersion"] == "v1.36.2+kit" and (version.body["major"], version.body["minor"]) == ("1", "36")


async def test_a_wrong_token_is_refused_even_where_none_is_needed(api: API) -> None:
    for path in ("/livez", "/version"):
        assert (await api.request("GET", path, token="wrong")).code == 401


async def test_every_json_body_ends_with_a_newline(api: API) -> None:
    await api.post(CMS, config_map("a"))
    for path in ("/api", "/apis/apps/v1", CMS, f"{CMS}/a", f"{CMS}/missing", f"{CMS}?watch=1&timeoutSeconds=1"):
        raw = (await api.request("GET", path)).raw
        assert raw.endswith(b"}\n") and not raw.endswith(b"\n\n"), path
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    assert (await api.request("GET", CMS, Accept=table)).raw.endswith(b"}\n")


async def test_whoami_and_can_i_are_answered_honestly(api: API) -> None:
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    admin = (await api.post(path, {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})).body
    assert admin["status"]["userInfo"] == {
        "username": "kubernetes-admin",
        "groups": ["system:masters", "system:authenticated"],
    }
    node = (await api.request("POST", path, {}, token=NODE_TOKEN)).body
    assert node["status"]["userInfo"]["username"] == "system:node:node-1"
    spec = {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}
    allowed = await api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": spec})
    assert allowed.code == 201 and allowed.body["status"]["allowed"] is True


async def test_a_service_account_token_is_accepted(api: API) -> None:
    await api.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "robot"}})
    asked = await api.post("/api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": {}})
    assert asked.code == 201 and asked.body["kind"] == "TokenRequest"
    token = asked.body["status"]["token"]
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    found = (await api.request("POST", path, {}, token=token)).body
    assert found["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"


async def test_the_server_listens_on_loopback_with_a_certificate_of_the_clusters_own(api: API) -> None:
    assert api.config.server.startswith("https://127.0.0.1:")
    certificate = x509.load_pem_x509_certificate((api.config.pki / "apiserver.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "kubernetes", "kubernetes.default.svc"} <= set(names.get_values_for_type(x509.DNSName))
    with pytest.raises(ssl.SSLError):
        ssl_context = ssl.create_default_context()
        await asyncio.open_connection("127.0.0.1", api.config.port, ssl=ssl_context)


def test_an_address_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    for host in ("0.0.0.0", "192.168.1.10", "::"):
        with pytest.raises(ValueError, match="no loopback address"):
            APIServer(replace(config_of(tmp_path), host=host), store)
    store.close()


def test_keys_are_private_and_certificates_outlive_a_restart(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    tls.ensure_certificates(pki, ["127.77.0.1"])
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in pki.iterdir()} == {0o600}
    before = {path.name: path.read_bytes() for path in pki.iterdir()}
    tls.ensure_certificates(pki, ["127.77.0.1"])
    assert {path.name: path.read_bytes() for path in pki.iterdir()} == before
    tls.ensure_certificates(pki, ["127.77.0.1", "127.77.0.2"])
    after = {path.name: path.read_bytes() for path in pki.iterdir()}
    assert after["ca.crt"] == before["ca.crt"] and after["apiserver.crt"] != before["apiserver.crt"]


@pytest.mark.parametrize(("off", "kept"), [(timedelta(hours=-20), True), (timedelta(days=-2), False)])
def test_certificates_made_by_a_wrong_clock_are_made_again(
    off: timedelta, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls.ensure_certificates(tmp_path)
    before = (tmp_path / "ca.crt").read_bytes()

    class Corrected(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + off

    monkeypatch.setattr(tls, "datetime", Corrected)
    tls.ensure_certificates(tmp_path)
    assert ((tmp_path / "ca.crt").read_bytes() == before) is kept


async def test_a_restarted_server_knows_its_objects_and_goes_on_counting(tmp_path: Path) -> None:
    for start in range(2):
        store = Store(tmp_path / "state.db")
        server = await started(config_of(tmp_path), store)
        client = server.client("test")
        if start == 0:
            made = await client.create("configmaps", config_map("kept"), "default")
        else:
            assert (await client.get("configmaps", "kept", "default")) == made
            endpoints = await client.get("endpoints", "kubernetes", "default")
            assert endpoints["subsets"][0]["ports"][0]["port"] == server.config.port
        await server.stop()
        store.close()


async def test_a_path_that_is_not_there_is_plain_404(api: API) -> None:
    outside = ("/nothing", "/api/v2", "/apis/nope/v1", "/api/v1/unicorns")
    for path in (*outside, f"{CMS}/a/b", "/api/v1/namespaces/default/nodes", "/api/v1/pods/name", f"{CMS}/a/scale"):
        missing = await api.get(path)
        assert (missing.code, missing.body) == (404, "404 page not found\n"), path


async def test_a_verb_that_is_not_there_is_405(api: API) -> None:
    for method, path in (("PUT", CMS), ("POST", f"{CMS}/a"), ("DELETE", "/api"), ("DELETE", "/api/v1/namespaces"),
                         ("POST", "/api/v1/configmaps"), ("OPTIONS", CMS)):  # fmt: skip
        refused = await api.request(method, path, "{}")
        assert refused.code == 405 and refused.body["reason"] == "MethodNotAllowed", (method, path)


async def test_answers_carry_an_audit_id_and_are_not_cached(api: API) -> None:
    one, two = await api.get(CMS), await api.get(CMS)
    assert one.headers["Audit-Id"] != two.headers["Audit-Id"]
    assert one.headers["Cache-Control"] == "no-cache, private"
    assert one.headers["Content-Type"] == "application/json"


async def test_json_is_served_to_whoever_takes_it(api: API) -> None:
    typed = "application/vnd.kubernetes.protobuf,application/json"
    for accept in ("", "*/*", "application/*", typed, "application/json; charset=utf-8"):
        assert (await api.get(CMS, Accept=accept)).headers["Content-Type"] == "application/json"


async def test_people_get_indented_json_with_the_name_first(api: API) -> None:
    await api.post(CMS, config_map("a", labels={"x": "y"}))
    lines = (await api.get(f"{CMS}/a", User_Agent="curl/8.0")).raw.decode().splitlines()
    assert [line.strip() for line in lines[:5]] == [
        "{",
        '"kind": "ConfigMap",',
        '"apiVersion": "v1",',
        '"metadata": {',
        '"name": "a",',
    ]
    assert b"\n" in (await api.get(f"{CMS}?pretty=true")).raw
    assert (await api.get(CMS)).raw.count(b"\n") == 1
    assert (await api.get(f"{CMS}?pretty=0", User_Agent="curl/8.0")).raw.count(b"\n") == 1


async def test_yaml_is_read_and_written(api: API) -> None:
    text = "metadata:\n  name: a\n  annotations: {when: 2026-01-01}\ndata:\n  on: 'yes'\n"
    made = await api.post(CMS, text, Content_Type="application/yaml", Accept="application/yaml")
    assert made.code == 201 and made.headers["Content-Type"] == "application/yaml"
    found = yaml.safe_load(made.raw)
    assert found["kind"] == "ConfigMap" and found["metadata"]["annotations"] == {"when": "2026-01-01"}


async def test_a_format_that_is_not_offered_is_406_and_one_that_is_not_read_415(api: API) -> None:
    odd = await api.get(CMS, Accept="application/cbor")
    assert odd.code == 406 and odd.body["reason"] == "NotAcceptable"
    assert "only the following media types are accepted" in odd.message
    unread = await api.post(CMS, "x", Content_Type="text/plain")
    assert unread.code == 415 and "the body of the request was in an unknown format" in unread.message


async def test_metadata_alone_is_served(api: API) -> None:
    await api.post(CMS, config_map("a"))
    one = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    found = (await api.get(f"{CMS}/a", Accept=one)).body
    assert found["kind"] == "PartialObjectMetadata" and "data" not in found
    listed = (await api.get(CMS, Accept=one.replace("Metadata;", "MetadataList;"))).body
    assert listed["kind"] == "PartialObjectMetadataList" and "data" not in listed["items"][0]


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"1",
    b"\xff\xfe",
    b'{"metadata": 1}',
    b'{"metadata": []}',
    b'{"metadata": {"name": 1}}',
    b'{"metadata": {"name": "a", "labels": []}}',
    b'{"metadata": {"name": "a", "labels": {"x": {}}}}',
    b'{"metadata": {"name": "a", "finalizers": "x"}}',
    b'{"metadata": {"name": "a", "ownerReferences": [1]}}',
    b'{"metadata": {"name": "a", "managedFields": [{"fieldsV1": 1}]}}',
    b'{"metadata": {"name": "../a"}}',
    b'{"metadata": {"name": "a/b"}}',
    b'{"metadata": {"name": "\\u0000"}}',
    b'{"metadata": {"name": "a", "deletionTimestamp": "no time"}}',
    b'{"metadata": {"generateName": 5}}',
    b'{"metadata": {"name": "a", "namespace": 7}}',
    b'{"metadata": {"name": "a", "resourceVersion": "7"}}',
    b'{"kind": 7, "metadata": {"name": "a"}}',
    b'{"kind": "Pod", "metadata": {"name": "a"}}',
    b'{"apiVersion": "v2", "metadata": {"name": "a"}}',
    b'{"apiVersion": ["v1"], "metadata": {"name": "a"}}',
    b'{"spec": 3, "metadata": {"name": "a"}}',
    b'{"spec": {"replicas": 1e400}, "metadata": {"name": "a"}}',
    b'{"spec": {"replicas": 99999999999999999999}, "metadata": {"name": "a"}}',
    b'{"spec": {"replicas": "3"}, "metadata": {"name": "a"}}',
    b'{"spec": {"template": {"spec": {"containers": {}}}}, "metadata": {"name": "a"}}',
    b'{"spec": {"template": {"spec": {"containers": [null]}}}, "metadata": {"name": "a"}}',
    b'{"spec": {"selector": {"matchLabels": {"a": null}}}, "metadata": {"name": "a"}}',
    b'{"metadata":' * 500 + b"1" + b"}" * 500,
    b"[" * 100_000,
    b'{"metadata": {"name": "a", "annotations": ' + b'{"a":' * 150 + b"1" + b"}" * 150 + b"}}",
]


async def test_malformed_objects_get_4xx_and_leave_nothing(api: API) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    revision = api.store.revision
    for body in BAD_BODIES:
        for kind in ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"):
            refused = await api.post(path, body, Content_Type=kind)
            assert 400 <= refused.code < 500 and refused.body["kind"] == "Status", (body, kind, refused.body)
    assert api.store.revision == revision


@pytest.mark.parametrize(
    "kind", ["json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"]
)
async def test_malformed_patches_never_get_5xx_and_leave_a_whole_object(api: API, kind: str) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    await api.post(path, deployment())
    for body in BAD_BODIES:
        for target in (f"{path}/web", f"{path}/web/scale", f"{path}/web/status"):
            answered = await api.patch(f"{target}?fieldManager=m", body, kind)
            assert answered.code < 500, (body, target, answered.body)
    kept = (await api.get(f"{path}/web")).body
    assert kept["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx"


async def test_malformed_bindings_evictions_and_delete_options_never_get_5xx(api: API) -> None:
    path = "/api/v1/namespaces/default/pods/p"
    options = [b'{"gracePeriodSeconds": "x"}', b'{"gracePeriodSeconds": 99999999999999999}', b'{"preconditions": 1}']
    options += [b'{"dryRun": "All"}', b'{"dryRun": [1]}', b'{"propagationPolicy": []}']
    options += [b'{"preconditions": {"uid": []}}', b'{"orphanDependents": 1}', b'{"kind": "Pod"}']
    for body in (*BAD_BODIES, *options):
        await api.post("/api/v1/namespaces/default/pods", pod("p", nodeName="n"))
        for target in (f"{path}/binding", f"{path}/eviction"):
            answered = await api.post(target, body)
            assert answered.code < 500, (body, target, answered.body)
        answered = await api.request("DELETE", path, body)
        assert answered.code < 500, (body, answered.body)


BAD_QUERIES = """
limit=x limit=-1 limit=%D9%A3 resourceVersion=x resourceVersion=-1 resourceVersion=99999999999999999999 continue=%00
continue=bm8 continue=e30 watch=1&resourceVersion=x watch=1&timeoutSeconds=x watch=1&timeoutSeconds=-1&resourceVersion=0
labelSelector=%ff labelSelector=((( fieldSelector=a fieldSelector=%3D resourceVersionMatch=x includeObject=x
"""


async def test_malformed_queries_never_get_5xx(api: API) -> None:
    for query in (*BAD_QUERIES.split(), "continue=" + "A" * 5000):
        assert (await api.get(f"{CMS}?{query}")).code < 500, query


async def test_a_body_above_three_mebibytes_is_413(api: API) -> None:
    big = await api.post(CMS, {**config_map("a"), "data": {"k": "x" * (3 << 20)}})
    assert big.code == 413 and big.message == "Request entity too large: limit is 3145728"


async def test_a_compressed_bomb_is_413(api: API) -> None:
    import gzip

    body = gzip.compress(b"[" + b"0," * (40 << 20) + b"0]")
    assert (await api.post(CMS, body, Content_Encoding="gzip")).code in (400, 413)


async def test_yaml_aliases_that_unfold_without_end_are_refused(api: API) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    refused = await api.post(CMS, "\n".join(lines), Content_Type="application/yaml")
    assert refused.code == 400 and "aliases" in refused.message


async def test_bytes_that_are_no_http_do_not_disturb_the_server(api: API) -> None:
    context = ssl.create_default_context(cafile=api.config.ca_file)
    odd_length = b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"
    for sent in (b"\x00\x01\x02\r\n\r\n", b"GET", b"GET / HTTP/9.9\r\n\r\n", odd_length):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", api.config.port, ssl=context, server_hostname="localhost"
        )
        writer.write(sent)
        writer.write_eof() if writer.can_write_eof() else writer.close()
        await asyncio.wait_for(reader.read(), 30)
        writer.close()
    plain = socket.create_connection(("127.0.0.1", api.config.port))
    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
    plain.close()
    assert (await api.get("/readyz")).code == 200


async def test_a_large_body_may_be_announced_first(api: API) -> None:
    body = json.dumps({**config_map("a"), "data": {"k": "x" * 500_000}})
    made = await api.post(CMS, body, Expect="100-continue")
    assert made.code == 201


async def test_a_disk_that_cannot_be_written_is_an_internal_error_and_nothing_is_half_done(
    api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(event: object) -> None:
        raise StoreError("state.db cannot be written: database or disk is full; free space, then try again")

    await api.post(CMS, config_map("a"))
    with monkeypatch.context() as patch:
        patch.setattr(api.store, "_commit", full)
        for answered in (
            await api.post(CMS, config_map("b")),
            await api.patch(f"{CMS}/a", {"data": {"k": "2"}}),
            await api.delete(f"{CMS}/a"),
        ):
            assert answered.code == 500 and "database or disk is full" in answered.message
    assert (await api.get(CMS)).names == ["a"]
    assert (await api.get(f"{CMS}/a")).body["data"] == {"k": "v"}


async def test_discovery_is_served_whole_with_an_etag(api: API) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    found = await api.get("/apis", Accept=accept)
    assert found.headers["Content-Type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert found.headers["Vary"] == "Accept" and found.headers["Cache-Control"] == "public"
    groups = {item["metadata"]["name"]: item for item in orjson.loads(found.raw)["items"]}
    (apps,) = groups["apps"]["versions"]
    deployments = next(each for each in apps["resources"] if each["resource"] == "deployments")
    assert deployments["shortNames"] == ["deploy"] and deployments["categories"] == ["all"]
    assert [each["version"] for each in groups["autoscaling"]["versions"]] == ["v2", "v1"]
    again = await api.get("/apis", Accept=accept, If_None_Match=found.headers["ETag"])
    assert again.code == 304 and not again.raw


async def test_plain_discovery_names_every_resource(api: API) -> None:
    assert (await api.get("/api")).body["versions"] == ["v1"]
    groups = [group["name"] for group in (await api.get("/apis")).body["groups"]]
    assert {"apps", "batch", "metrics.k8s.io"} <= set(groups)
    core = (await api.get("/api/v1")).body
    names = {each["name"]: each for each in core["resources"]}
    assert {"pods", "pods/log", "pods/eviction", "nodes/status", "services/proxy"} <= set(names)
    assert names["pods/eviction"]["group"] == "policy" and names["pods"]["shortNames"] == ["po"]
    assert (await api.get("/apis/apps")).body["preferredVersion"]["version"] == "v1"
    assert "/apis/apps/v1" in (await api.get("/")).body["paths"]


async def test_old_events_expire(api: API) -> None:
    from kitlib.cluster.apiserver import bootstrap_objects

    events = "/api/v1/namespaces/default/events"
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    for name, seen in (("new", "2999-01-01T00:00:00Z"), ("old", "2020-01-01T00:00:00Z")):
        await api.post(events, {"metadata": {"name": name}, "involvedObject": about, "lastTimestamp": seen})
    bootstrap_objects.expire_events(api.server.rest, 3600)
    assert (await api.get(events)).names == ["new"]


async def test_starting_twice_on_the_same_state_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    config = config_of(tmp_path)
    revisions = []
    for _ in range(2):
        server = APIServer(config, store)
        await server.start()
        revisions.append(store.revision)
        await server.stop()
    assert revisions[0] == revisions[1]
    store.close()


@pytest.mark.parametrize("file", ["apiserver.key", "ca.key", "ca.crt"])
def test_a_start_mends_certificates_whose_writing_was_cut_off(tmp_path: Path, file: str) -> None:
    for folder in ("one", "other"):
        tls.ensure_certificates(tmp_path / folder)
    (tmp_path / "other" / file).replace(tmp_path / "one" / file)
    tls.ensure_certificates(tmp_path / "one")
    server_context(tmp_path / "one")
    authority = x509.load_pem_x509_certificate((tmp_path / "one" / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "one" / "apiserver.crt").read_bytes())
    server.verify_directly_issued_by(authority)
