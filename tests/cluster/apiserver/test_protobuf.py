"""Request bodies in protobuf, as kubectl 1.32 sent them."""

import json
import random
from pathlib import Path

import pytest

from kitlib.cluster.apiserver import protobuf
from kitlib.cluster.client import ApiError

BODIES = [json.loads(line) for line in (Path(__file__).parent / "protobuf_bodies.jsonl").read_text().splitlines()]


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    meta = b"\x0a" + bytes([len(api_version)]) + api_version.encode() + b"\x12" + bytes([len(kind)]) + kind.encode()
    return b"k8s\x00\x0a" + bytes([len(meta)]) + meta + b"\x12" + bytes([len(raw)]) + raw


@pytest.mark.parametrize("recorded", BODIES, ids=[recorded["command"] for recorded in BODIES])
def test_what_kubectl_sent(recorded):
    assert protobuf.decode(bytes.fromhex(recorded["body"])) == recorded["object"]


def test_a_zero_behind_a_pointer_counts():
    deployment = next(each for each in BODIES if each["command"].startswith("create deployment"))
    assert protobuf.decode(bytes.fromhex(deployment["body"]))["spec"]["replicas"] == 0


def test_a_zero_that_is_no_pointer_is_left_out():
    assert protobuf.decode(envelope("scheduling.k8s.io/v1", "PriorityClass", b"\x10\x00\x18\x00")) == {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
    }


def test_negative_numbers():
    body = envelope("scheduling.k8s.io/v1", "PriorityClass", b"\x10" + b"\xff" * 9 + b"\x01")
    assert protobuf.decode(body)["value"] == -1


def test_delete_options():
    assert protobuf.decode(envelope("v1", "DeleteOptions", b"\x08\x00\x22\x0aBackground")) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Background",
    }


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"k8s\x00", 415),
        (b"k8s\x00\x0a\xff", 400),
        (envelope("v1", "Nosuch", b""), 415),
        (envelope("v1", "Pod", b"\x0a\x05ab"), 400),
        (envelope("v1", "Pod", b"\x0b"), 400),
        (envelope("v1", "ConfigMap", b"\x12\x04\x0a\x02\xff\xfe"), 400),
        (envelope("v1", "ConfigMap", b"\x08\x01"), 400),
        (envelope("scheduling.k8s.io/v1", "PriorityClass", b"\x10" + b"\xff" * 11), 400),
    ],
)
def test_bytes_that_are_no_object_are_refused(body, code):
    with pytest.raises(ApiError) as refused:
        protobuf.decode(body)
    assert refused.value.code == code


def test_nothing_but_api_errors_comes_out_of_damaged_bodies():
    draw = random.Random(3)
    for _ in range(4000):
        body = bytearray(bytes.fromhex(draw.choice(BODIES)["body"]))
        for _ in range(draw.randrange(1, 4)):
            body[draw.randrange(4, len(body))] = draw.randrange(256)
        try:
            json.dumps(protobuf.decode(bytes(body[: draw.choice([None, draw.randrange(len(body))])])))
        except ApiError as error:
            assert error.code in (400, 415)
