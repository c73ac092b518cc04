"""The registry: programs that stand for container images.

Stands for a registry and the image store of a node. Each folder beside this file is an image: `image.toml` says
which references it answers to and how it starts, `root/` holds files of the container's root folder. Left out: layers,
and programs of an image's own: a container uses the machine's tools.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
BIN = HERE / "shims" / "bin"
"""Shims that come first on the PATH of every container."""

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?\.)*[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>[a-z0-9+.-]+:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)


class InvalidImageName(ValueError):  # noqa: N818  (the kubelet's word)
    """The reference cannot be parsed."""


class ImageNotFound(LookupError):  # noqa: N818
    """No stand-in answers to the reference; the message is worded as containerd's."""


@dataclass(frozen=True)
class Image:
    """A stand-in for a container image.

    Attributes:
        reference: Full reference, such as `docker.io/library/busybox:latest`.
        folder: Where its files are.
        entrypoint: Command used when the container gives none; `{python}` and `{image}` are filled in.
        cmd: Arguments used when the container gives neither command nor args.
        env: The image's environment.
        size: Size in bytes that is reported.
        ports: Ports that the program listens on when the Pod declares none.
        files: Folders and files of the image that its containers see, each its own copy: path to name in `folder`.
    """

    reference: str
    folder: Path
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    size: int = 0
    ports: tuple[int, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The image id, a digest that stays the same for the same reference."""
        return "sha256:" + hashlib.sha256(self.reference.encode()).hexdigest()

    @property
    def root(self) -> Path:
        """Files of the container's root folder; may not exist."""
        return self.folder / "root"


def normalize(reference: str) -> str:
    """Return the full form of a reference: `busybox` is `docker.io/library/busybox:latest`.

    Raises:
        InvalidImageName: It cannot be parsed.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        upper = re.fullmatch(r"[\w./:@-]+", reference) and reference.lower() != reference
        why = "repository name must be lowercase" if upper else "invalid reference format"
        raise InvalidImageName(f'couldn\'t parse image name "{reference}": {why}')
    name = match["name"].removeprefix("docker.io/").removeprefix("index.docker.io/")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    digest = f"@{match['digest']}" if match["digest"] else ""
    return name + (f":{match['tag'] or 'latest'}" if match["tag"] or not digest else "") + digest


@lru_cache
def catalogue() -> tuple[tuple[Path, dict[str, Any]], ...]:
    """Return every image's folder and what its `image.toml` says."""
    return tuple((file.parent, tomllib.loads(file.read_text())) for file in sorted(HERE.glob("*/image.toml")))


@lru_cache(maxsize=256)
def resolve(reference: str) -> Image:
    """Return the stand-in for an image reference.

    Args:
        reference: As in a Pod's spec; a digest is accepted and not checked.

    Raises:
        InvalidImageName: The reference cannot be parsed.
        ImageNotFound: There is no stand-in for it.
    """
    full = normalize(reference)
    name, tag = _split(full.partition("@")[0])
    for folder, spec in catalogue():
        for entry in spec["image"]:
            if name in entry["names"] and (not tag or re.fullmatch(entry.get("tags", ".*"), tag)):
                return _image(full, folder, entry)
    raise ImageNotFound(f'failed to pull and unpack image "{full}": failed to resolve image: {full}: not found')


def _split(name: str) -> tuple[str, str]:
    """Split `registry:5000/name:tag`; without a tag (only a digest) it is empty."""
    head, _, tag = name.rpartition(":")
    return (head, tag) if head and "/" not in tag else (name, "")


def _image(full: str, folder: Path, entry: dict[str, Any]) -> Image:
    def fill(words: list[str]) -> tuple[str, ...]:
        return tuple(word.format(python=sys.executable, image=folder) for word in words)

    return Image(
        full,
        folder,
        fill(entry.get("entrypoint", [])),
        fill(entry.get("cmd", [])),
        {key: str(value) for key, value in entry.get("env", {}).items()},
        int(entry.get("size", 0)),
        tuple(entry.get("ports", [])),
        entry.get("files", {}),
    )


def listing() -> list[dict[str, Any]]:
    """Return the images of a node in the form of `node.status.images`."""
    entries = [entry for _, spec in catalogue() for entry in spec["image"]]
    listed = [{"names": [entry["listed"]], "sizeBytes": entry.get("size", 0)} for entry in entries if "listed" in entry]
    return sorted(listed, key=lambda item: -int(item["sizeBytes"]))
