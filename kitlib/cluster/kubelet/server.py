"""The kubelet's HTTPS server, which only the API server may call: logs, exec, attach, port-forward and statistics.

Stands for `pkg/kubelet/server`. Left out: `/run`, `/runningpods`, `/metrics/cadvisor`, `/debug`, checkpoints.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from kitlib.cluster.config import NodeConfig
from kitlib.cluster.kubelet.logs import LogError, LogOptions, find_log, read_log
from kitlib.cluster.kubelet.pod_manager import ContainerState, PodManager, PodState
from kitlib.cluster.kubelet.stats import Stats
from kitlib.cluster.kubelet.streaming import portforward, remotecommand
from kitlib.cluster.kubelet.streaming.spdy import Send, chunks_of
from kitlib.cluster.splice import give_back, take_over

PORT = 10250
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_NOTHING_LEFT_BEHIND = 1.0
_quiet = logging.getLogger(f"{__name__}.http")
_quiet.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
"""Bytes that are no HTTP are the sender's trouble."""


class KubeletServer:
    """Serves one node's Pods to the API server.

    Args:
        config: The node.
        pods: Its Pods.
        ssl_context: The node's certificate and key; None serves plain HTTP (in tests).

    Attributes:
        port: Where the server listens: 10250, or a free port where all nodes share one address.
    """

    def __init__(self, config: NodeConfig, pods: PodManager, ssl_context: ssl.SSLContext | None) -> None:
        """Prepare the routes; `start` listens."""
        self.port = 0 if config.cluster.loopback == "single" else PORT
        self._config = config
        self._pods = pods
        self._ssl = ssl_context
        self._stats = Stats(config.name, pods)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address can't be used.
        """
        app = web.Application(middlewares=[self._authenticate])
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/pods", self._list_pods),
                web.get("/pods/", self._list_pods),
                web.get("/containerLogs/{namespace}/{pod}/{container}", self._logs),
                web.route("*", "/exec/{namespace}/{pod}/{container}", self._exec),
                web.route("*", "/attach/{namespace}/{pod}/{container}", self._attach),
                web.route("*", "/portForward/{namespace}/{pod}", self._port_forward),
                web.get("/stats/summary", self._summary),
                web.get("/metrics/resource", self._metrics),
            ]
        )
        runner = web.AppRunner(
            app, access_log=None, logger=_quiet, handler_cancellation=True, shutdown_timeout=_NOTHING_LEFT_BEHIND
        )
        await runner.setup()
        site = web.TCPSite(runner, self._config.internal_ip, self.port, ssl_context=self._ssl)
        try:
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and end every session."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = f"Bearer {self._config.cluster.kubelet_client_token}".encode()
        given = request.headers.get("Authorization", "").encode(errors="replace")
        if not hmac.compare_digest(wanted, given):
            return web.Response(status=401, text="Unauthorized")
        return await handler(request)

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _list_pods(self, request: web.Request) -> web.Response:
        items = [state.pod for state in self._pods.pods()]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def _summary(self, request: web.Request) -> web.Response:
        return web.json_response(await self._stats.summary())

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=await self._stats.metrics())

    def _pod(self, request: web.Request) -> PodState:
        pod = self._pods.find(request.match_info["namespace"], request.match_info["pod"])
        if pod is None:
            _refuse(web.HTTPNotFound, "pod does not exist")
        return pod

    def _container(self, request: web.Request) -> tuple[PodState, ContainerState]:
        pod, name = self._pod(request), request.match_info["container"]
        container = pod.containers.get(name)
        if container is None:
            _refuse(web.HTTPNotFound, f'container "{name}" not found in pod "{request.match_info["pod"]}"')
        return pod, container

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        pod, container = self._container(request)
        try:
            options = LogOptions.parse(request.query)
            path = find_log(pod, container, options.previous)
        except (LogError, ValueError, OverflowError) as error:
            _refuse(web.HTTPBadRequest, str(error))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        if path is not None:

            def is_running() -> bool:
                state = self._pods.find(request.match_info["namespace"], request.match_info["pod"])
                now = state.containers.get(container.name) if state else None
                return bool(state and now and now.running and state.log_path(container.name) == path)

            async for piece in read_log(path, options, is_running):
                if piece:
                    await response.write(piece)
        await response.write_eof()
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        argv = request.query.getall("command", [])
        if not argv:
            _refuse(web.HTTPBadRequest, "you must specify at least one command for the container")
        options = self._session_options(request, 'container not found ("{container}")')
        namespace, pod, container = (request.match_info[name] for name in ("namespace", "pod", "container"))

        def start() -> Awaitable[Any]:
            return self._pods.exec(namespace, pod, container, argv, stdin=options.stdin, tty=options.tty)

        return await self._remote_command(request, start, options, reports_exit=True)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        options = self._session_options(request, "container {container} not found in pod {pod}_{namespace}")
        namespace, pod, container = (request.match_info[name] for name in ("namespace", "pod", "container"))

        def start() -> Awaitable[Any]:
            return self._pods.attach(namespace, pod, container, stdin=options.stdin, tty=options.tty)

        return await self._remote_command(request, start, options, reports_exit=False)

    def _session_options(self, request: web.Request, refusal: str) -> remotecommand.Options:
        container = self._pod(request).containers.get(request.match_info["container"])
        if container is None or not container.running:
            _refuse(web.HTTPInternalServerError, refusal.format_map(request.match_info))
        try:
            return remotecommand.Options.parse(request.query)
        except ValueError as error:
            _refuse(web.HTTPBadRequest, str(error))

    async def _remote_command(
        self, request: web.Request, start: Any, options: remotecommand.Options, *, reports_exit: bool
    ) -> web.StreamResponse:
        if _wants(request, "websocket"):
            _offer(request, remotecommand.WEBSOCKET_PROTOCOLS)
            return await remotecommand.serve_websocket(request, start, options, reports_exit=reports_exit)

        async def serve(reader: asyncio.StreamReader, send: Send) -> None:
            await remotecommand.SPDYSession(start, options, send, reports_exit=reports_exit).run(request, reader)

        return await _serve_spdy(request, remotecommand.SPDY_PROTOCOLS, serve)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        state = self._pod(request)
        name = f"{request.match_info['namespace']}/{request.match_info['pod']}"
        if not state.pod_ip:
            _refuse(web.HTTPInternalServerError, f"pod {name} has no address")
        target = portforward.Target(name, state.pod_ip, state.port_map)
        if _wants(request, "websocket"):
            tunnel = (portforward.TUNNEL_PROTOCOL,)
            if _offer(request, (*tunnel, portforward.WEBSOCKET_PROTOCOL)) in tunnel:
                return await portforward.serve_tunnel(request, target)
            return await portforward.serve_websocket(request, target, _ports(request))

        async def serve(reader: asyncio.StreamReader, send: Send) -> None:
            await portforward.SPDYForwarder(target, send).run(chunks_of(reader))

        return await _serve_spdy(request, portforward.SPDY_PROTOCOLS, serve)


def _refuse(kind: type[web.HTTPException], message: str) -> NoReturn:
    raise kind(text=message)


def _wants(request: web.Request, protocol: str) -> bool:
    return request.headers.get("Upgrade", "").lower() == protocol


def _ports(request: web.Request) -> list[int]:
    values = [value for field in request.query.getall("port", []) for value in field.split(",")]
    if not values or not all(value.isdigit() and 0 < int(value) < 1 << 16 for value in values):
        _refuse(web.HTTPBadRequest, 'query parameter "port" must be one or more port numbers')
    return [int(value) for value in values]


def _offer(request: web.Request, accepted: tuple[str, ...]) -> str:
    """Return the first protocol of the client's list that is accepted; a client may name none."""
    fields = request.headers.getall("Sec-WebSocket-Protocol", [])
    return _choose([name.strip() for field in fields for name in field.split(",")], accepted)


def _choose(offered: list[str], accepted: tuple[str, ...]) -> str:
    for name in offered or accepted[-1:]:
        if name in accepted:
            return name
    message = f"unable to upgrade: unable to negotiate protocol: client supports {json.dumps(offered)}"
    _refuse(web.HTTPForbidden, f"{message}, server accepts {json.dumps(accepted)}")


class _Streams(asyncio.StreamReaderProtocol):
    """The connection as stream reader and writer, remembering whether it is lost."""

    lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        super().connection_lost(exc)


async def _serve_spdy(
    request: web.Request,
    accepted: tuple[str, ...],
    serve: Callable[[asyncio.StreamReader, Send], Awaitable[None]],
) -> web.StreamResponse:
    if not _wants(request, "spdy/3.1"):
        _refuse(web.HTTPBadRequest, "unable to upgrade: missing upgrade headers in request")
    protocol = _choose(request.headers.getall("X-Stream-Protocol-Version", []), accepted)
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"X-Stream-Protocol-Version: {protocol}\r\n\r\n"
    )
    reader = asyncio.StreamReader()
    streams = _Streams(reader)
    transport = request.transport
    take_over(request, streams, head.encode())
    writer = asyncio.StreamWriter(transport, streams, reader, asyncio.get_running_loop())  # type: ignore[arg-type]
    turn = asyncio.Lock()

    async def send(data: bytes) -> None:
        writer.write(data)
        async with turn:
            await writer.drain()

    try:
        await serve(reader, send)
    finally:
        answer = give_back(request, streams.lost)
    return answer
