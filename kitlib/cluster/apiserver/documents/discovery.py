"""Discovery: which groups, versions, kinds and verbs the server has.

Stands for k8s.io/apiserver's discovery endpoints, plain (`APIGroupList`, `APIResourceList`) and aggregated
(`APIGroupDiscoveryList`, all in one answer), with the ETags by which kubectl keeps its cache.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache

import orjson

from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.registry import ALL_VERBS, KINDS, Kind
from kitlib.cluster.config import KUBERNETES_VERSION
from kitlib.cluster.objects import Object

_METRICS = tuple(
    Kind("metrics.k8s.io", "v1beta1", kind, plural, singular, namespaced, (), (), ("get", "list"), (), "")
    for kind, plural, singular, namespaced in (
        ("NodeMetrics", "nodes", "", False),
        ("PodMetrics", "pods", "", True),
    )
)
Custom = tuple[CustomKind, ...]
"""What CustomResourceDefinitions define."""

_CHANGE = ("get", "patch", "update")
_STREAM = ("create", "get")
_PROXY = ("create", "delete", "get", "patch", "update")
_SUBRESOURCE_VERBS: dict[str, tuple[str, ...]] = {
    "attach": _STREAM,
    "binding": ("create",),
    "eviction": ("create",),
    "exec": _STREAM,
    "finalize": ("update",),
    "log": ("get",),
    "portforward": _STREAM,
    "proxy": _PROXY,
    "token": ("create",),
}
_SUBRESOURCE_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "binding": ("", "v1", "Binding"),
    "attach": ("", "v1", "PodAttachOptions"),
    "exec": ("", "v1", "PodExecOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
}
_PROXY_KINDS = {"pods": "PodProxyOptions", "services": "ServiceProxyOptions", "nodes": "NodeProxyOptions"}


def subresource_verbs(kind: Kind, subresource: str) -> tuple[str, ...]:
    """Return what may be done with a subresource; nothing when the kind has no such one."""
    return _SUBRESOURCE_VERBS.get(subresource, _CHANGE) if subresource in kind.subresources else ()


def _subresource_gvk(kind: Kind, subresource: str) -> tuple[str, str, str]:
    if subresource == "proxy":
        return "", "v1", _PROXY_KINDS[kind.plural]
    return _SUBRESOURCE_KINDS.get(subresource, (kind.group, kind.version, kind.kind))


def _groups(custom: Custom) -> dict[str, dict[str, list[Kind]]]:
    """Return each group, with its versions in order of preference, with their kinds."""
    found: dict[str, dict[str, list[Kind]]] = {}
    for kind in (*KINDS, *custom, *_METRICS):
        found.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    return found


@cache
def api_versions(server: str) -> Object:
    """Return the document at `/api`."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def _group(name: str, versions: Iterable[str]) -> Object:
    offered = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": offered, "preferredVersion": offered[0]}


def api_group_list(custom: Custom = ()) -> Object:
    """Return the document at `/apis`."""
    groups = [_group(name, versions) for name, versions in _groups(custom).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(name: str, custom: Custom = ()) -> Object | None:
    """Return the document at `/apis/GROUP`, or None."""
    for group in api_group_list(custom)["groups"]:
        if group["name"] == name:
            return {"kind": "APIGroup", "apiVersion": "v1", **group}
    return None


def api_resource_list(group: str, version: str, custom: Custom = ()) -> Object | None:
    """Return the document at `/api/v1` or `/apis/GROUP/VERSION`, or None."""
    kinds = _groups(custom).get(group, {}).get(version)
    if not kinds:
        return None
    resources = [each for kind in kinds for each in _plain(kind)]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}


def _plain(kind: Kind) -> Iterable[Object]:
    main: Object = {"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced}
    main.update(kind=kind.kind, verbs=list(kind.verbs))
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    if kind.categories:
        main["categories"] = list(kind.categories)
    if kind.verbs == ALL_VERBS:
        main["storageVersionHash"] = _hash(kind.api_version + kind.kind)
    yield main
    for subresource in kind.subresources:
        group, version, name = _subresource_gvk(kind, subresource)
        found: Object = {"name": f"{kind.plural}/{subresource}", "singularName": "", "namespaced": kind.namespaced}
        if (group, version) != (kind.group, kind.version):
            found.update(group=group, version=version)
        yield {**found, "kind": name, "verbs": list(subresource_verbs(kind, subresource))}


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _discovered(kind: Kind) -> Object:
    found: Object = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    if kind.subresources:
        found["subresources"] = [_discovered_subresource(kind, each) for each in kind.subresources]
    return found


def _discovered_subresource(kind: Kind, subresource: str) -> Object:
    group, version, name = _subresource_gvk(kind, subresource)
    return {
        "subresource": subresource,
        "responseKind": {"group": group, "version": version, "kind": name},
        "verbs": list(subresource_verbs(kind, subresource)),
    }


def _aggregated(core: bool, version: str, custom: Custom) -> Object:
    items = []
    for group, versions in _groups(custom).items():
        if core != (group == ""):
            continue
        served = [
            {"version": each, "resources": [_discovered(kind) for kind in kinds], "freshness": "Current"}
            for each, kinds in versions.items()
        ]
        meta = {"creationTimestamp": None, **({"name": group} if group else {})}
        items.append({"metadata": meta, "versions": served})
    api_version = f"apidiscovery.k8s.io/{version}"
    return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}


def digest(body: bytes) -> str:
    """Return a document's hash, for its ETag."""
    return hashlib.sha512(body).hexdigest().upper()


@lru_cache(maxsize=4)
def aggregated(core: bool, accept: str, custom: Custom = ()) -> tuple[bytes, str, str] | None:
    """Return aggregated discovery: document, content type and ETag; None when the client asks for plain one.

    Args:
        core: The core group (`/api`) or all others (`/apis`).
        accept: The request's `Accept` header.
        custom: What CustomResourceDefinitions define.
    """
    for part in accept.split(","):
        words = {word.strip() for word in part.split(";")}
        for version in ("v2", "v2beta1"):
            if {"g=apidiscovery.k8s.io", f"v={version}", "as=APIGroupDiscoveryList"} <= words:
                body = orjson.dumps(_aggregated(core, version, custom)) + b"\n"
                kind = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
                return body, kind, f'"{digest(body)}"'
    return None


VERSION: Mapping[str, str] = {
    "major": "1",
    "minor": "36",
    "gitVersion": f"{KUBERNETES_VERSION}+kit",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
"""The document at `/version`."""


def paths(custom: Custom = ()) -> list[str]:
    """Return the list at `/`."""
    groups = _groups(custom)
    versions = [f"/apis/{group}{each}" for group in groups if group for each in ("", *map("/{}".format, groups[group]))]
    fixed = ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
    return ["/api", "/api/v1", "/apis", *sorted(versions), *fixed]
