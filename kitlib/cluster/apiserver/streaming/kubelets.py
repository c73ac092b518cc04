"""Where the kubelet of a node is and how to ask it.

Stands for `k8s.io/kubernetes/pkg/kubelet/client`.
"""

from __future__ import annotations

import functools
import ssl
from typing import Any

import aiohttp
from aiohttp import web

from kitlib.cluster.apiserver import errors
from kitlib.cluster.apiserver.streaming.upgrade import Backend
from kitlib.cluster.client import Client
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.objects import Object
from kitlib.cluster.splice import abort

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)


@functools.lru_cache
def tls_context(ca_file: str) -> ssl.SSLContext:
    """Return the context that trusts the cluster's own certificate authority alone."""
    return ssl.create_default_context(cafile=ca_file)


def kubelet_of(node: Object, config: ClusterConfig) -> Backend:
    """Return the address of a node's kubelet.

    Raises:
        ApiError: The node has not published one.
    """
    status = node.get("status") or {}
    addresses = {item["type"]: item["address"] for item in status.get("addresses") or ()}
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 10250
    if "InternalIP" not in addresses:
        raise errors.internal(f"no preferred addresses found; known addresses: {sorted(addresses.values())}")
    return Backend(
        addresses["InternalIP"], port, tls_context(str(config.ca_file)), f"Bearer {config.kubelet_client_token}"
    )


async def kubelet_of_pod(client: Client, pod: Object, config: ClusterConfig) -> Backend:
    """Return the kubelet of the node that a Pod is bound to."""
    return kubelet_of(await client.get("nodes", pod["spec"]["nodeName"]), config)


def session(**options: Any) -> aiohttp.ClientSession:
    """Return an HTTP client for one request to a kubelet or a Pod."""
    return aiohttp.ClientSession(timeout=TIMEOUT, auto_decompress=False, **options)


class Interrupted(ConnectionError):  # noqa: N818
    """An answer that was being passed on broke off; the client's connection is gone too."""


async def relay(
    request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse, beginning: bytes = b""
) -> web.StreamResponse:
    """Pass an answer's body on as it comes.

    Args:
        request: The client's request.
        answer: The answer of a kubelet or Pod, its head read.
        response: The answer to the client, its head complete and not yet sent.
        beginning: What has been read of the body.

    Returns:
        The same response, sent.

    Raises:
        Interrupted: Either connection broke; the client sees an answer that is cut off.
    """
    await response.prepare(request)
    try:
        if beginning:
            await response.write(beginning)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    except (aiohttp.ClientError, OSError) as error:
        if request.transport is not None:
            abort(request.transport)
        raise Interrupted(str(error)) from None
    return response


def dial_error(error: BaseException, backend: Backend) -> str:
    """Return the words in which Go tells that a connection failed."""
    cause: BaseException = getattr(error, "os_error", error)
    where = f"dial tcp {backend.netloc}: "
    if isinstance(cause, ConnectionRefusedError):
        return where + "connect: connection refused"
    if isinstance(cause, (TimeoutError, aiohttp.ServerTimeoutError)):
        return where + "i/o timeout"
    if isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionResetError)):
        return "EOF"
    return str(error) or type(error).__name__
