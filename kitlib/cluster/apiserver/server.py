"""The HTTPS front of the API.

Stands for kube-apiserver's handler chain: authentication, request info, content negotiation, REST verbs, and the
Status object for everything that goes wrong. Left out: HTTP/2, API priority and fairness, audit logs (each answer
still has its `Audit-Id`), compression (on loopback it only costs time).
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from kitlib.cluster.apiserver import bootstrap_objects, errors
from kitlib.cluster.apiserver.apiextensions.customresources import CustomResources
from kitlib.cluster.apiserver.auth import PUBLIC_PATHS, Authenticator, impersonated
from kitlib.cluster.apiserver.handlers import Handlers, failure
from kitlib.cluster.apiserver.inprocess import InProcessClient
from kitlib.cluster.apiserver.rest import REST
from kitlib.cluster.apiserver.services import service_network
from kitlib.cluster.client import ApiError
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.store import Store, StoreError

MAX_BODY = 3 * 1024 * 1024
_HOUSEKEEPING_SECONDS = 10.0
"""How often a real API server looks whether its own Service is still there."""
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
"""Returns to the system what a burst has left free; only glibc has it, and needs it."""

log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.http")
_quiet.setLevel(logging.CRITICAL)  # bytes that are no HTTP are the sender's trouble


def server_context(pki: Path) -> ssl.SSLContext:
    """Return the TLS context of a server that shows the certificate in `pki`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
    return context


def _ensure_certificates(pki: Path) -> None:
    if not (pki / "apiserver.crt").exists():  # else `kit up` has looked at them
        from kitlib.cluster.apiserver import tls

        tls.ensure_certificates(pki)


class APIServer:
    """The API server of a cluster.

    Args:
        config: Addresses, KIT_HOME and settings of the cluster.
        store: Where its objects live; the caller closes it.

    Attributes:
        config: As given.
        rest: Reads and writes objects.
        custom: The kinds that CustomResourceDefinitions define.
        authenticator: Knows the bearer tokens.

    Raises:
        ValueError: `config.host` is not a loopback address.
    """

    def __init__(self, config: ClusterConfig, store: Store) -> None:
        """Make certificates where there are none."""
        if not ip_address(config.host).is_loopback:
            raise ValueError(f"{config.host} is no loopback address: the API can run commands, so it stays here")
        self.config = config
        self.rest = REST(store, config)
        self.custom = CustomResources(self.rest)
        _ensure_certificates(config.pki)
        self.authenticator = Authenticator(config.pki / "tokens.json", store.get)
        self._handlers = Handlers(self)
        self._front = web.Server(
            self._handle,
            request_factory=_request,
            access_log=None,
            logger=_quiet,
            keepalive_timeout=300,
            handler_cancellation=True,
        )
        self._servers: list[asyncio.base_events.Server] = []
        self._endpoint = (config.host, config.port)
        self._housekeeper: asyncio.Task[None] | None = None

    async def start(self, sock: socket.socket | None = None, advertise: tuple[str, int] | None = None) -> None:
        """Write the cluster's own objects and answer requests.

        Args:
            sock: A listening socket; without one, `config.host` and `config.port` are bound.
            advertise: Listen there as well, if it is free, and name it as the endpoint of the Service `kubernetes`.
        """
        address = str(service_network(self.config.block)[1])
        context = server_context(self.config.pki)
        if advertise is not None:
            await self._advertise(advertise, context)
        bootstrap_objects.ensure(self.rest, self.config, address, self._endpoint)
        bootstrap_objects.ensure_storage_class(self.rest)
        self.custom.settle()
        loop = asyncio.get_running_loop()
        if sock is not None:
            server = await loop.create_server(self._front, sock=sock, ssl=context, backlog=512)
        else:
            host, port = self.config.host, self.config.port
            server = await loop.create_server(self._front, host, port, ssl=context, backlog=512)
        self._servers.append(server)
        self._housekeeper = asyncio.ensure_future(self._keep_house(address))

    async def _advertise(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        try:
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_server(self._front, *address, ssl=context, backlog=512))
        except OSError as error:
            log.warning("the endpoint of the Service kubernetes is %s:%s: %s", *self._endpoint, error)
            return
        self._endpoint = address

    async def stop(self) -> None:
        """Close the socket and every connection, watches included."""
        if self._housekeeper is not None:
            self._housekeeper.cancel()
        for server in self._servers:
            server.close()
        await self._front.shutdown(timeout=0.1)

    def client(self, user: str) -> InProcessClient:
        """Return a client of this server that needs no network.

        Args:
            user: Component name, such as `kube-scheduler`; the field manager of what it writes.
        """
        return InProcessClient(self.rest, self.custom, self.authenticator, user)

    async def _keep_house(self, address: str) -> None:
        """Drop old Events; bring back the cluster's own objects when somebody deleted them; give memory back."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            try:
                bootstrap_objects.expire_events(self.rest, self.config.settings.event_ttl)
                bootstrap_objects.ensure(self.rest, self.config, address, self._endpoint)
                self.custom.settle()
            except (ApiError, StoreError) as error:
                log.warning("housekeeping: %s", error)
            _malloc_trim(0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._guarded(request)
        return _indented(response) if _is_for_people(request) else response

    async def _guarded(self, request: web.BaseRequest) -> web.StreamResponse:
        """Turn everything that goes wrong into a Status object."""
        try:
            return await self._answer(request)
        except ApiError as error:
            return failure(error)
        except web.HTTPRequestEntityTooLarge:
            return failure(errors.too_large())
        except StoreError as error:
            log.error("%s", error)
            return failure(errors.internal(str(error)))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("%s %s", request.method, request.raw_path)
            return failure(errors.internal(f"{type(error).__name__}: {error}"))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path in PUBLIC_PATHS or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            if request.headers.get("Authorization", "").lower().startswith("bearer "):
                self.authenticator.authenticate(request.headers["Authorization"])
            return await self._handlers.public(request, path)
        user = impersonated(self.authenticator.authenticate(request.headers.get("Authorization")), request.headers)
        return await self._handlers.dispatch(request, path, user)


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)


def _is_for_people(request: web.BaseRequest) -> bool:
    """Whether JSON should come indented: the client asks for it, or is curl, wget or a browser."""
    query = request.raw_path.partition("?")[2]
    if "pretty=" in query:
        return "pretty=0" not in query and "pretty=false" not in query
    return request.headers.get("User-Agent", "").startswith(("curl", "Wget", "Mozilla/5.0"))


def _indented(response: web.StreamResponse) -> web.StreamResponse:
    if isinstance(response, web.Response) and response.content_type == "application/json" and not response.prepared:
        body = response.body
        if isinstance(body, bytes) and body:
            response.body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2) + b"\n"
    return response
