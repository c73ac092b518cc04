"""Tokens of ServiceAccounts: what they say, where they are good, and until when."""

import base64
import json
from typing import Any

import pytest
from apiharness import API, pod

from kitlib.cluster.apiserver.tokens import ISSUER

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def account(api: API) -> None:
    made = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    assert (await api.post(ACCOUNTS, made)).code == 201


async def ask(api: API, **spec: Any) -> Any:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return await api.post(f"{ACCOUNTS}/robot/token", body)


async def token(api: API, **spec: Any) -> str:
    return str((await ask(api, **spec)).body["status"]["token"])


async def review(api: API, text: str, **spec: Any) -> Any:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": text, **spec}}
    return (await api.post(REVIEWS, body)).body["status"]


def claims(text: str) -> Any:
    middle = text.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


async def test_a_token_says_whose_it_is_and_until_when(api: API) -> None:
    await account(api)
    answer = await ask(api, expirationSeconds=1200)
    said = claims(answer.body["status"]["token"])
    assert said["sub"] == "system:serviceaccount:default:robot"
    assert (said["iss"], said["aud"], said["exp"] - said["iat"]) == (ISSUER, [ISSUER], 1200)
    assert said["kubernetes.io"]["serviceaccount"]["name"] == "robot"
    assert answer.body["spec"]["audiences"] == [ISSUER]
    found = await review(api, answer.body["status"]["token"])
    assert (found["authenticated"], found["audiences"]) == (True, [ISSUER])
    assert found["user"]["username"] == "system:serviceaccount:default:robot"
    assert "system:serviceaccounts:default" in found["user"]["groups"]


@pytest.mark.parametrize(
    ("seconds", "rule"), [(599, "less than 10 minutes"), ((1 << 32) + 1, "larger than 2^32 seconds")]
)
async def test_a_token_lives_ten_minutes_at_least(api: API, seconds: int, rule: str) -> None:
    await account(api)
    refused = await ask(api, expirationSeconds=seconds)
    assert refused.code == 422
    assert f"spec.expirationSeconds: Invalid value: {seconds}: may not specify a duration {rule}" in refused.message


async def test_a_token_opens_the_api_until_its_account_is_gone(api: API) -> None:
    await account(api)
    text = await token(api)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    me = await api.request("POST", WHOAMI, body, token=text)
    assert me.body["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
    await api.request("DELETE", f"{ACCOUNTS}/robot")
    assert (await api.request("GET", ACCOUNTS, token=text)).code == 401
    await account(api)
    assert (await api.request("GET", ACCOUNTS, token=text)).code == 401, "an account of the same name is another one"


async def test_a_token_for_another_audience_does_not_open_the_api(api: API) -> None:
    await account(api)
    text = await token(api, audiences=["vault"])
    assert (await api.request("GET", ACCOUNTS, token=text)).code == 401
    assert await review(api, text) == {"authenticated": False, "user": {}, "error": "invalid bearer token"}
    assert (await review(api, text, audiences=["vault", "other"]))["audiences"] == ["vault"]


async def test_a_changed_token_is_none(api: API) -> None:
    await account(api)
    head, middle, end = (await token(api)).split(".")
    other = claims(f".{middle}.") | {"sub": "system:serviceaccount:default:admin"}
    forged = base64.urlsafe_b64encode(json.dumps(other).encode()).rstrip(b"=").decode()
    for text in (f"{head}.{forged}.{end}", f"{head}.{middle}.", f"{head}.{middle}.{end[:-8]}", "a.b.c", "..", "é.é.é"):
        assert (await review(api, text))["authenticated"] is False


async def test_a_token_bound_to_a_pod_ends_with_it(api: API) -> None:
    await account(api)
    made = (await api.post("/api/v1/namespaces/default/pods", pod("p", serviceAccountName="robot"))).body
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
    text = await token(api, boundObjectRef=reference)
    found = await review(api, text)
    assert found["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert (await ask(api, boundObjectRef={**reference, "uid": "other"})).code == 409
    assert (await ask(api, boundObjectRef={**reference, "name": "nosuch"})).code == 404
    assert (await ask(api, boundObjectRef={**reference, "kind": "Job"})).code == 400
    await api.request("DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0")
    assert (await review(api, text))["authenticated"] is False


async def test_a_token_bound_to_a_secret_ends_with_it(api: API) -> None:
    await account(api)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    await api.post("/api/v1/namespaces/default/secrets", secret)
    text = await token(api, boundObjectRef={"kind": "Secret", "apiVersion": "v1", "name": "s"})
    assert claims(text)["kubernetes.io"]["secret"]["name"] == "s"
    assert (await review(api, text))["authenticated"] is True
    await api.request("DELETE", "/api/v1/namespaces/default/secrets/s")
    assert (await review(api, text))["authenticated"] is False
