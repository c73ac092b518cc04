"""From a request to its answer: one method per verb.

Stands for k8s.io/apiserver's `endpoints/handlers`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from multidict import CIMultiDict

from kitlib.cluster.apiserver import deletion, errors, requestinfo, subresources
from kitlib.cluster.apiserver import options as opts
from kitlib.cluster.apiserver.auth import User
from kitlib.cluster.apiserver.documents import discovery, documents
from kitlib.cluster.apiserver.negotiation import Accepted, accepted, decode_object, decode_patch, encode, media_type
from kitlib.cluster.apiserver.options import ListOptions, WriteOptions
from kitlib.cluster.apiserver.printers import table
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.requestinfo import RequestInfo
from kitlib.cluster.apiserver.rest import APPLY_PATCH
from kitlib.cluster.apiserver.streaming import streams
from kitlib.cluster.apiserver.versions import from_storage, is_view
from kitlib.cluster.apiserver.watch import Change, Watch
from kitlib.cluster.client import ApiError
from kitlib.cluster.objects import Object
from kitlib.cluster.splice import abort
from kitlib.cluster.store import Entry

if TYPE_CHECKING:
    from kitlib.cluster.apiserver.server import APIServer

MAX_WARNINGS, MAX_WARNING_TEXT = 50, 4096
"""Warnings of an answer, and characters in all of them, as in Kubernetes; Python's clients read 100 headers."""
STREAMS = ("log", "exec", "attach", "portforward", "proxy")
_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}


@lru_cache(maxsize=1024)
def _query(text: str) -> Mapping[str, str]:
    """Parse a query string; as in Go, the first of several values counts."""
    return dict(reversed(parse_qsl(text, keep_blank_values=True))) if text else {}


def answer(body: bytes, code: int = 200, as_yaml: bool = False, warnings: Iterable[str] = ()) -> web.Response:
    """Return a response with the headers that every answer has."""
    headers = CIMultiDict(
        {
            "Audit-Id": f"{random.getrandbits(128):032x}",
            "Cache-Control": "no-cache, private",
            "Content-Type": "application/yaml" if as_yaml else "application/json",
        }
    )
    response = web.Response(body=body if as_yaml else body + b"\n", status=code, headers=headers)
    _warn(response, warnings)
    return response


def _warn(response: web.StreamResponse, warnings: Iterable[str]) -> None:
    left = MAX_WARNING_TEXT
    for text in islice(warnings, MAX_WARNINGS):
        left -= len(text)
        if left < 0:
            break
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{"".join(c for c in quoted if c.isprintable())}"')


def failure(error: ApiError) -> web.Response:
    """Return the answer for a refused request: its Status object."""
    response = answer(orjson.dumps(error.status), error.code)
    retry = (error.status.get("details") or {}).get("retryAfterSeconds")
    if retry:
        response.headers["Retry-After"] = str(retry)
    return response


class Handlers:
    """Answers requests.

    Args:
        server: The server, for its objects, its users and the streaming subresources.
    """

    def __init__(self, server: APIServer) -> None:
        self._server = server
        self._rest = server.rest

    async def public(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer the paths that need no token."""
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        if path.rstrip("/") == "/version":
            return answer(orjson.dumps(discovery.VERSION, option=orjson.OPT_INDENT_2))
        if "verbose" in request.raw_path.partition("?")[2]:
            return web.Response(text=f"[+]ping ok\n[+]store ok\n{path.split('/')[1]} check passed\n")
        return web.Response(text="ok")

    async def dispatch(self, request: web.BaseRequest, path: str, user: User) -> web.StreamResponse:
        """Answer a request of an authenticated user."""
        info = requestinfo.parse(path)
        if info is None or not info.resource:
            return documents.answer_document(request, path, self._server.config.server, self._server.custom.kinds)
        if info.group == "metrics.k8s.io" or (info.kind is not None and info.subresource in STREAMS):
            return await self._stream(request, info)
        kind = info.kind or self._server.custom.by_path(info.group, info.version, info.resource)
        if kind is None or not _fits(kind, info):
            return documents.not_found()
        method = "GET" if request.method == "HEAD" else request.method
        if not _allowed(kind, info, method):
            raise errors.method_not_allowed()
        query = _query(request.raw_path.partition("?")[2])
        if method == "GET":
            response = await self._get(request, info, kind, query)
            if kind.deprecation and not response.prepared:
                _warn(response, [kind.deprecation])
            return response
        body = await _read_body(request)
        apply = media_type(request.headers.get("Content-Type", "")) == APPLY_PATCH and method == "PATCH"
        options = opts.write_options(query, _manager(request), _OPTIONS[method], apply)
        if kind.deprecation:
            options.warnings.append(kind.deprecation)
        if method == "DELETE":
            return self._delete(request, info, kind, query, body, options)
        verb = {"POST": self._post, "PUT": self._put, "PATCH": self._patch}[method]
        obj, code = verb(request, info, kind, body, options, user)
        wanted = accepted(request.headers.get("Accept", ""))
        shown = _transformed(kind, obj, wanted, query)
        return answer(encode(shown, wanted.yaml), code, wanted.yaml, options.warnings)

    async def _stream(self, request: web.BaseRequest, info: RequestInfo) -> web.StreamResponse:
        if info.kind is not None and info.subresource not in info.kind.subresources:
            return documents.not_found()
        response: web.StreamResponse = await streams.handle(cast(web.Request, request), self._server, info)
        return response

    # -- reading

    async def _get(
        self, request: web.BaseRequest, info: RequestInfo, kind: Kind, query: Mapping[str, str]
    ) -> web.StreamResponse:
        wanted = accepted(request.headers.get("Accept", ""))
        if info.name and not opts.flag(query, "watch"):
            return self._get_one(info, kind, query, wanted)
        namespace = info.namespace or None if kind.namespaced else ""
        if opts.flag(query, "watch"):
            if info.name:
                query = {**query, "fieldSelector": f"metadata.name={info.name}"}
            options = opts.list_options(query, watch=True)
            return await self._watch(request, kind, namespace, options, wanted, query)
        entries, meta = self._rest.entries(kind, namespace, opts.list_options(query, watch=False))
        if wanted.transform == "Table":
            objects = [from_storage(kind, entry.obj) for entry in entries]
            return answer(encode(_table(kind, objects, query, meta, wanted), wanted.yaml), as_yaml=wanted.yaml)
        return answer(_encode_list(kind, entries, meta, wanted), as_yaml=wanted.yaml)

    def _get_one(self, info: RequestInfo, kind: Kind, query: Mapping[str, str], wanted: Accepted) -> web.StreamResponse:
        if info.subresource == "scale":
            scale = subresources.get_scale(self._rest, kind, info.namespace, info.name)
            shown = _transformed(subresources.SCALE, scale, wanted, query)
            return answer(encode(shown, wanted.yaml), as_yaml=wanted.yaml)
        entry = self._rest.entry(kind, info.namespace, info.name)
        if not wanted.transform and not wanted.yaml and not is_view(kind):
            return answer(entry.json)
        shown = _transformed(kind, from_storage(kind, entry.obj), wanted, query)
        return answer(encode(shown, wanted.yaml), as_yaml=wanted.yaml)

    async def _watch(
        self,
        request: web.BaseRequest,
        kind: Kind,
        namespace: str | None,
        options: ListOptions,
        wanted: Accepted,
        query: Mapping[str, str],
    ) -> web.StreamResponse:
        try:
            watch = Watch(self._rest.store, kind, namespace, options)
        except ApiError as error:
            if error.code != 410:
                raise
            return answer(_line("ERROR", orjson.dumps(error.status)).rstrip())
        headers = {"Cache-Control": "no-cache, private", "Content-Type": "application/json"}
        response = web.StreamResponse(headers=headers)
        if request.transport is not None:
            watch.on_overrun = partial(abort, request.transport)
        try:
            await response.prepare(request)
            async for batch in watch.batches():
                if isinstance(batch, dict):
                    await response.write(_line("BOOKMARK", orjson.dumps(_bookmark(batch, wanted))))
                else:
                    await response.write(b"".join(_encoded(kind, change, wanted, query) for change in batch))
            await response.write_eof()
        except ConnectionError:
            pass
        finally:
            watch.close()
        return response

    # -- writing

    def _post(
        self, request: web.BaseRequest, info: RequestInfo, kind: Kind, body: bytes, options: WriteOptions, user: User
    ) -> tuple[Object, int]:
        expected = {"binding": "Binding", "eviction": "Eviction", "token": "TokenRequest"}.get(info.subresource)
        obj = decode_object(body, media_type(request.headers.get("Content-Type", "")), expected or kind.kind)
        tokens, namespace = self._server.authenticator, info.namespace
        made = subresources.post(self._rest, tokens, user, kind, namespace, info.name, obj, options, info.subresource)
        return made, 201

    def _put(
        self, request: web.BaseRequest, info: RequestInfo, kind: Kind, body: bytes, options: WriteOptions, user: User
    ) -> tuple[Object, int]:
        expected = "Scale" if info.subresource == "scale" else kind.kind
        obj = decode_object(body, media_type(request.headers.get("Content-Type", "")), expected)
        if info.subresource == "scale":
            return subresources.set_scale(self._rest, kind, info.namespace, info.name, obj, options), 200
        new, created = self._rest.update(kind, info.namespace, info.name, obj, options, info.subresource)
        return new, 201 if created else 200

    def _patch(
        self, request: web.BaseRequest, info: RequestInfo, kind: Kind, body: bytes, options: WriteOptions, user: User
    ) -> tuple[Object, int]:
        content_type = media_type(request.headers.get("Content-Type", ""))
        patch = decode_patch(body, content_type)
        if info.subresource == "scale":
            scale = subresources.set_scale(self._rest, kind, info.namespace, info.name, patch, options, content_type)
            return scale, 200
        new, created = self._rest.patch(kind, info.namespace, info.name, patch, content_type, options, info.subresource)
        return new, 201 if created else 200

    def _delete(
        self,
        request: web.BaseRequest,
        info: RequestInfo,
        kind: Kind,
        query: Mapping[str, str],
        body: bytes,
        options: WriteOptions,
    ) -> web.StreamResponse:
        wanted = accepted(request.headers.get("Accept", ""))
        asked = _delete_options(body, media_type(request.headers.get("Content-Type", "")), query)
        options.dry_run = options.dry_run or bool(asked.get("dryRun"))
        if info.name:
            found = deletion.delete(self._rest, kind, info.namespace, info.name, asked, options)
        else:
            namespace = info.namespace or None if kind.namespaced else ""
            selection = opts.list_options(query, watch=False)
            found = deletion.delete_collection(self._rest, kind, namespace, selection, asked, options)
        return answer(encode(found, wanted.yaml), 200, wanted.yaml, options.warnings)


def _fits(kind: Kind, info: RequestInfo) -> bool:
    """Whether a path has the parts that its kind needs."""
    if info.rest or (info.subresource and info.subresource not in kind.subresources):
        return False
    if kind.namespaced:
        return bool(info.namespace or not info.name)
    return not info.namespace


def _allowed(kind: Kind, info: RequestInfo, method: str) -> bool:
    if info.subresource:
        verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create"}.get(method, "delete")
        return verb in discovery.subresource_verbs(kind, info.subresource)
    if kind.namespaced and not info.namespace and method == "POST":
        return False
    named = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    collection = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
    return (named if info.name else collection).get(method) in kind.verbs


def _manager(request: web.BaseRequest) -> str:
    """Return the field manager of a client that names none: its program's name."""
    return request.headers.get("User-Agent", "unknown").partition("/")[0][:128] or "unknown"


async def _read_body(request: web.BaseRequest) -> bytes:
    if not request.body_exists:
        return b""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        return await request.read()
    except (web.RequestPayloadError, ValueError) as error:
        raise errors.bad_request(f"the body cannot be read: {error}") from error


def _delete_options(body: bytes, content_type: str, query: Mapping[str, str]) -> Object:
    asked: Object = {}
    if query.get("gracePeriodSeconds"):
        text = query["gracePeriodSeconds"]
        if not text.lstrip("-").isdecimal() or len(text) > 18:
            raise errors.bad_request(f'strconv.ParseInt: parsing "{text[:64]}": invalid syntax')
        asked["gracePeriodSeconds"] = int(text)
    if query.get("propagationPolicy"):
        asked["propagationPolicy"] = query["propagationPolicy"]
    if query.get("orphanDependents"):
        asked["orphanDependents"] = opts.flag(query, "orphanDependents")
    if body:
        asked.update(decode_object(body, content_type, "DeleteOptions"))
        if asked.get("kind", "DeleteOptions") != "DeleteOptions":
            raise errors.bad_request("the object provided is unrecognized (must be of type DeleteOptions)")
    return asked


# -- encoding


def _encode_list(kind: Kind, entries: list[Entry], meta: Object, wanted: Accepted) -> bytes:
    head: Object = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta}
    if not wanted.transform and not wanted.yaml and not is_view(kind):
        return orjson.dumps(head)[:-1] + b',"items":[' + b",".join([entry.raw for entry in entries]) + b"]}"
    objects = [from_storage(kind, entry.obj) for entry in entries]
    if wanted.transform:
        head.update(kind="PartialObjectMetadataList", apiVersion=wanted.group_version)
        return encode({**head, "items": [_partial(obj, wanted) for obj in objects]}, wanted.yaml)
    bare = [{name: value for name, value in obj.items() if name not in ("kind", "apiVersion")} for obj in objects]
    return encode({**head, "items": bare}, wanted.yaml)


def _table(kind: Kind, objects: list[Object], query: Mapping[str, str], meta: Object, wanted: Accepted) -> Object:
    include = query.get("includeObject") or "Metadata"
    found: Object = table.table(kind, objects, include, datetime.now(timezone.utc), meta)
    found["apiVersion"] = wanted.group_version
    return found


def _partial(obj: Object, wanted: Accepted) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": wanted.group_version, "metadata": obj["metadata"]}


def _transformed(kind: Kind, obj: Object, wanted: Accepted, query: Mapping[str, str]) -> Object:
    """Return one object in the form that the client wants; Status objects stay what they are."""
    if not wanted.transform or obj.get("kind") != kind.kind:
        return obj
    if wanted.transform == "Table":
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return _table(kind, [obj], query, meta, wanted)
    return _partial(obj, wanted)


def _bookmark(obj: Object, wanted: Accepted) -> Object:
    if wanted.transform == "Table":
        meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        row = {"cells": [], "object": _partial(obj, wanted)}
        kind = {"kind": "Table", "apiVersion": wanted.group_version, "metadata": meta}
        return {**kind, "columnDefinitions": [], "rows": [row]}
    return _partial(obj, wanted) if wanted.transform else obj


def _line(change: str, obj: bytes) -> bytes:
    return b'{"type":"' + change.encode() + b'","object":' + obj + b"}\n"


def _encoded(kind: Kind, change: Change, wanted: Accepted, query: Mapping[str, str]) -> bytes:
    if wanted.transform or is_view(kind):
        obj = _transformed(kind, from_storage(kind, change.entry.obj), wanted, query)
        return _line(change.type, orjson.dumps(obj))
    if change.event is None:
        return _line(change.type, change.entry.json)
    line = change.event.encoded.get(change.type)
    if line is None:
        line = change.event.encoded[change.type] = _line(change.type, change.entry.json)
    return line
