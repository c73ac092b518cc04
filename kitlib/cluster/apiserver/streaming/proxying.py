"""HTTP through the API server to a Pod, to a Service's Pods, or to a node's kubelet: `.../proxy/...`.

Stands for `k8s.io/apimachinery/pkg/util/proxy` and the `ResourceLocation` functions of `pkg/registry/core`: the
client's path, query, method and body go on unchanged; links and redirects that come back get the proxy's path in front.
"""

from __future__ import annotations

import gzip
import random
import re
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from aiohttp import web
from yarl import URL

from kitlib.cluster.apiserver import errors
from kitlib.cluster.apiserver.streaming.kubelets import Interrupted, dial_error, kubelet_of, relay, session, tls_context
from kitlib.cluster.apiserver.streaming.upgrade import Backend, forward_upgrade, forwarded_headers, is_upgrade
from kitlib.cluster.client import ApiError, Client
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.objects import Object
from kitlib.cluster.portmap import port_map

MAX_REWRITTEN = 16 << 20
"""Longest HTML page whose links are rewritten; a longer one passes unchanged."""
_LINK = re.compile(
    rb"""(<[a-z][^<>]*?\s(?:href|src|action|cite|data|formaction|icon|background|poster|longdesc|manifest)\s*=\s*)"""
    rb"""("[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)""",
    re.IGNORECASE,
)


async def handle(request: web.Request, client: Client, config: ClusterConfig, info: Any) -> web.StreamResponse:
    """Pass a request on; see `streams.handle`."""
    prefix, path = _split_path(request)
    if not path and request.method in ("GET", "HEAD"):
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        return web.Response(status=301, headers={"Location": f"{prefix}/{query}"})
    backend = await _locate(client, config, info)
    target = (path or "/") + (f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else "")
    forwarded = {
        "X-Forwarded-Host": request.headers.get("Host", ""),
        "X-Forwarded-Proto": request.scheme,
        "X-Forwarded-Uri": prefix + (path or "/"),
        "X-Forwarded-For": ", ".join([*request.headers.getall("X-Forwarded-For", []), request.remote or ""]),
    }
    try:
        if is_upgrade(request):
            return await forward_upgrade(request, backend, target, forwarded)
        return await _forward(request, backend, target, forwarded, prefix)
    except Interrupted:
        raise
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # an address may be any text
        raise _unavailable(f"error trying to reach service: {dial_error(error, backend)}") from None


def _split_path(request: web.Request) -> tuple[str, str]:
    """Return the path up to `/proxy` and the rest, encoded as the client sent them."""
    parts = request.rel_url.raw_path.split("/")
    depth = 8 if parts[3] == "namespaces" else 6
    return "/".join(parts[:depth]), "/".join(["", *parts[depth:]]) if len(parts) > depth else ""


def _unavailable(message: str) -> ApiError:
    return ApiError(errors.status(503, "ServiceUnavailable", message))


def split_name(text: str) -> tuple[str, str, str]:
    """Split `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT` into scheme, name and port.

    Raises:
        ValueError: The text has another form.
    """
    parts = text.split(":")
    if len(parts) == 3 and parts[0] in ("http", "https", "") and parts[1]:
        return parts[0] or "http", parts[1], parts[2]
    if len(parts) <= 2 and parts[0]:
        return "http", parts[0], parts[1] if len(parts) == 2 else ""
    raise ValueError(text)


async def _locate(client: Client, config: ClusterConfig, info: Any) -> Backend:
    kind = info.resource.removesuffix("s")
    try:
        scheme, name, port = split_name(info.name)
    except ValueError:
        raise errors.bad_request(f'invalid {kind} request "{info.name}"') from None
    if kind == "node":
        return await _locate_node(client, config, name, port)
    if kind == "pod":
        host, number = _pod_address(await client.get("pods", name, info.namespace), port)
    else:
        host, number = await _service_address(client, name, info.namespace, port, info.name)
    return Backend(host, number, _insecure_tls() if scheme == "https" else None)


def _insecure_tls() -> Any:
    """Return a context that trusts any certificate, as the API server does for Pods."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _locate_node(client: Client, config: ClusterConfig, name: str, port: str) -> Backend:
    kubelet = kubelet_of(await client.get("nodes", name), config)
    if port and port != str(kubelet.port):
        return Backend(kubelet.host, _number(port, f"{name}:{port}"))
    return Backend(kubelet.host, kubelet.port, tls_context(str(config.ca_file)), kubelet.authorization)


def _number(port: str, request: str) -> int:
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise errors.bad_request(f'invalid port in request "{request}"')
    return int(port)


def _pod_address(pod: Object, port: str) -> tuple[str, int]:
    name = pod["metadata"]["name"]
    declared = [item for container in pod["spec"]["containers"] for item in container.get("ports") or ()]
    named = {item["name"]: item["containerPort"] for item in declared if item.get("name")}
    number = named.get(port) or (_number(port, f"{name}:{port}") if port else 0)
    number = number or (declared[0]["containerPort"] if declared else 80)
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise errors.bad_request("address not allowed")
    return address, port_map(pod).get(str(number), number)


async def _service_address(client: Client, name: str, namespace: str, port: str, request: str) -> tuple[str, int]:
    service = await client.get("services", name, namespace)
    ports = service["spec"].get("ports") or []
    if port.isdecimal():
        found = [item.get("name", "") for item in ports if item["port"] == int(port)]
        if not found:
            raise _unavailable(f'no service port {port} found for service "{name}"')
        port = found[0]
    elif not port and len(ports) == 1:
        port = ports[0].get("name", "")
    slices = await client.list(
        "endpointslices.discovery.k8s.io", namespace, label_selector=f"kubernetes.io/service-name={name}"
    )
    ready: list[tuple[str, int, Object]] = [
        (address, item["port"], endpoint.get("targetRef") or {})
        for endpointslice in slices["items"]
        for item in endpointslice.get("ports") or ()
        if (item.get("name") or "") == port and item.get("port")
        for endpoint in endpointslice.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint["addresses"][:1]
    ]
    if not ready:
        raise _unavailable(f'no endpoints available for service "{request}"')
    address, number, target = random.choice(ready)
    if target.get("kind") == "Pod" and target.get("name"):
        pod = await client.get("pods", target["name"], namespace)
        number = port_map(pod).get(str(number), number)
    return address, number


async def _forward(
    request: web.Request, backend: Backend, target: str, forwarded: Mapping[str, str], prefix: str
) -> web.StreamResponse:
    url = URL(backend.base + target, encoded=True)
    headers = [*forwarded_headers(request, backend), *forwarded.items()]
    length = request.headers.get("Content-Length")
    if length and request.can_read_body:
        headers.append(("Content-Length", length))
    async with (
        session(skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding", "Content-Type"]) as http,
        http.request(
            request.method,
            url,
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
            ssl=backend.ssl or True,
        ) as answer,
    ):
        return await _relay(request, answer, backend, prefix)


async def _relay(
    request: web.Request, answer: aiohttp.ClientResponse, backend: Backend, prefix: str
) -> web.StreamResponse:
    named = {token.strip().lower() for token in answer.headers.get("Connection", "").split(",")}
    dropped = named | {"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "te", "trailer"}
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in dropped and not name.lower().startswith("access-control-"):
            response.headers.add(name, value)
    if "Location" in answer.headers:
        response.headers["Location"] = rewrite_url(answer.headers["Location"], backend, request, prefix)
    length = answer.content_length
    page = b""
    if "Location" not in answer.headers and answer.content_type == "text/html":
        page = await _beginning(answer)
        if len(page) <= MAX_REWRITTEN:
            return await _relay_html(request, response, answer, page, backend, prefix)
    response.content_length = length
    return await relay(request, answer, response, page)


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """Read a body to its end, or a little more than `MAX_REWRITTEN` of one that is longer."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_REWRITTEN:
            break
    return b"".join(pieces)


async def _relay_html(
    request: web.Request,
    response: web.StreamResponse,
    answer: aiohttp.ClientResponse,
    body: bytes,
    backend: Backend,
    prefix: str,
) -> web.StreamResponse:
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding in ("identity", "gzip", "deflate") and request.method != "HEAD":
        body = _recode(body, encoding, backend, request, prefix)
    if request.method != "HEAD":
        response.content_length = len(body)
    elif answer.content_length is not None:
        response.content_length = answer.content_length
    await response.prepare(request)
    await response.write(body)
    await response.write_eof()
    return response


def _recode(body: bytes, encoding: str, backend: Backend, request: web.Request, prefix: str) -> bytes:
    try:
        if encoding == "gzip":
            plain = zlib.decompressobj(31).decompress(body, MAX_REWRITTEN + 1)
        elif encoding == "deflate":
            plain = zlib.decompressobj().decompress(body, MAX_REWRITTEN + 1)
        else:
            plain = body
    except zlib.error:
        return body
    if len(plain) > MAX_REWRITTEN:
        return body
    plain = rewrite_html(plain, backend, request, prefix)
    if encoding == "gzip":
        return gzip.compress(plain)
    return zlib.compress(plain) if encoding == "deflate" else plain


def rewrite_html(page: bytes, backend: Backend, request: web.Request, prefix: str) -> bytes:
    """Put the links of a page that lead to the backend's root under the proxy's path."""

    def rewrite(match: re.Match[bytes]) -> bytes:
        quoted = match[2]
        mark = quoted[:1] if quoted[:1] in (b'"', b"'") else b""
        link = quoted.strip(mark or None).decode("utf-8", "surrogateescape")
        return match[1] + mark + rewrite_url(link, backend, request, prefix).encode("utf-8", "surrogateescape") + mark

    return _LINK.sub(rewrite, page)


def rewrite_url(link: str, backend: Backend, request: web.Request, prefix: str) -> str:
    """Return a link as seen through the proxy: absolute paths of the backend get the proxy's path in front."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return link
    host = request.headers.get("Host", "")
    if (parts.netloc and parts.netloc not in (backend.netloc, host)) or not parts.path.startswith("/"):
        return link
    path = parts.path if parts.path.startswith(prefix) else prefix + parts.path
    if not parts.netloc:
        return urlunsplit(("", "", path, parts.query, parts.fragment))
    return urlunsplit((request.scheme, host, path, parts.query, parts.fragment))
