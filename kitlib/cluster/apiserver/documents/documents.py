"""The documents of the API that are no objects: discovery, OpenAPI, the list of paths.

Stands for kube-apiserver's non-resource handlers.
"""

from __future__ import annotations

import orjson
from aiohttp import web

from kitlib.cluster.apiserver import errors
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.documents import discovery, openapi, openapi_v2
from kitlib.cluster.objects import Object

_OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def not_found() -> web.Response:
    """Return the answer for a path that the server does not know."""
    return web.Response(status=404, text="404 page not found\n")


def _json(document: Object | None, headers: dict[str, str] | None = None) -> web.Response:
    if document is None:
        return not_found()
    headers = {"Cache-Control": "no-cache, private", **(headers or {})}
    return web.Response(body=orjson.dumps(document) + b"\n", content_type="application/json", headers=headers)


def answer_document(
    request: web.BaseRequest, path: str, server: str, custom: tuple[CustomKind, ...]
) -> web.StreamResponse:
    """Answer a request for something that is no object.

    Args:
        request: The request.
        path: Its path without the query.
        server: The server's own URL.
        custom: What CustomResourceDefinitions define.
    """
    parts = [part for part in path.split("/") if part]
    known = not parts or parts[0] in ("api", "apis", "openapi")
    if not known:
        return not_found()
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed()
    if not parts:
        return _json({"paths": discovery.paths(custom)})
    if parts[0] == "openapi":
        return _openapi(request, parts[1:], custom)
    if len(parts) == 1:
        return _root(request, parts[0] == "api", server, custom)
    if parts[0] == "api":
        return _json(discovery.api_resource_list("", parts[1]) if len(parts) == 2 else None)
    if len(parts) == 2:
        return _json(discovery.api_group(parts[1], custom))
    return _json(discovery.api_resource_list(parts[1], parts[2], custom) if len(parts) == 3 else None)


def _root(request: web.BaseRequest, core: bool, server: str, custom: tuple[CustomKind, ...]) -> web.StreamResponse:
    found = discovery.aggregated(core, request.headers.get("Accept", ""), custom)
    if found is None:
        address = server.partition("//")[2]
        return _json(discovery.api_versions(address) if core else discovery.api_group_list(custom), {"Vary": "Accept"})
    body, content_type, etag = found
    return _tagged(request, body, content_type, etag, "public")


def _tagged(request: web.BaseRequest, body: bytes, content_type: str, etag: str, cache: str) -> web.StreamResponse:
    headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": cache, "Content-Type": content_type}
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers)


def _openapi(request: web.BaseRequest, parts: list[str], custom: tuple[CustomKind, ...]) -> web.StreamResponse:
    if parts == ["v2"]:
        return web.Response(body=openapi_v2.document(custom), headers={"Content-Type": _OPENAPI_V2})
    if parts == ["v3"]:
        return _json(openapi.v3_index(custom))
    body = openapi.v3_document("/".join(parts[1:]), custom) if parts[:1] == ["v3"] else None
    if body is None:
        return not_found()
    wanted = request.raw_path.partition("hash=")[2].partition("&")[0]
    etag = f'"{wanted}"' if wanted else f'"{discovery.digest(body)}"'
    return _tagged(request, body, "application/json", etag, "public, immutable" if wanted else "no-cache, private")
