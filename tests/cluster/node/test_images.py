"""References to images and the programs that stand for them."""

from __future__ import annotations

import pytest

from kitlib.cluster import images


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox:1.36", "docker.io/library/busybox:1.36"),
        ("pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime", "docker.io/pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime"),
        ("localhost:5000/x/y", "localhost:5000/x/y:latest"),
        (f"busybox@sha256:{'0' * 64}", f"docker.io/library/busybox@sha256:{'0' * 64}"),
    ],
)
def test_a_short_reference_stands_for_a_full_one(reference: str, full: str) -> None:
    assert images.normalize(reference) == full


@pytest.mark.parametrize(
    "reference",
    [
        "gcr.io/google-samples/kubernetes-bootcamp:v1",
        "docker.io/jocatalin/kubernetes-bootcamp:v2",
        "pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime",
        "python:3.12-slim",
        "nginx:1.14.2",
        "registry.k8s.io/nginx-slim:0.21",
        "perl:5.34.0",
        "bash",
        "busybox:1.28",
        "alpine",
        "ubuntu:24.04",
        "curlimages/curl",
        "registry.k8s.io/pause:3.10",
        "registry.k8s.io/e2e-test-images/agnhost:2.53",
        "gcr.io/google-samples/hello-app:2.0",
    ],
)
def test_known_images_are_found(reference: str) -> None:
    assert images.resolve(reference).id.startswith("sha256:")


@pytest.mark.parametrize("reference", ["gcr.io/google-samples/kubernetes-bootcamp:v10", "nosuch", "quay.io/busybox"])
def test_unknown_images_are_not(reference: str) -> None:
    with pytest.raises(images.ImageNotFound, match=": not found$"):
        images.resolve(reference)


@pytest.mark.parametrize("reference", ["Busybox", "a b", "", "busybox:", "-x", "busybox:a:b"])
def test_a_bad_reference_is_invalid(reference: str) -> None:
    with pytest.raises(images.InvalidImageName):
        images.resolve(reference)


def test_a_node_lists_its_images_largest_first() -> None:
    sizes = [image["sizeBytes"] for image in images.listing()]
    assert sizes == sorted(sizes, reverse=True)
