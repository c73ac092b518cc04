"""Port-forward: connections of a client on one side, a port of the Pod on the other.

Stands for `k8s.io/kubelet/pkg/cri/streaming/portforward`. kubectl opens two SPDY streams for each connection (on
a raw connection, or in the messages of a websocket); the Python clients use one websocket with two channels for
each port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from kitlib.cluster.kubelet.streaming.remotecommand import CHUNK, IDLE_AFTER_END, gather, until_either_ends
from kitlib.cluster.kubelet.streaming.spdy import Connection, Stream

SPDY_PROTOCOLS = ("portforward.k8s.io",)
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
WEBSOCKET_PROTOCOL = "v4.channel.k8s.io"
MAX_MESSAGE = 32 << 20

Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class Target:
    """The Pod that connections go to.

    Attributes:
        name: Id of the Pod for error messages.
        ip: Its address.
        port_map: Declared port -> port where it really listens.
    """

    name: str
    ip: str
    port_map: dict[int, int]

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to a port of the Pod.

        Raises:
            ConnectionError: It cannot be opened, in the words of a real kubelet.
        """
        try:
            return await asyncio.open_connection(self.ip, self.port_map.get(port, port))
        except OSError as error:
            reason = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
            raise ConnectionError(
                f"error forwarding port {port} to pod {self.name}, uid : failed to connect to localhost:{port} "
                f'inside namespace "{self.name}": dial tcp4 {self.ip}:{port}: connect: {reason}'
            ) from None


class Forward:
    """One connection from a client to a port of the Pod.

    Args:
        target: The Pod.
        port: Its port.
        send: Sends bytes to the client; waits while the client is slow.
    """

    def __init__(self, target: Target, port: int, send: Write) -> None:
        """Prepare; `run` connects."""
        self._target = target
        self._port = port
        self._send = send
        self._ready = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    async def receive(self, data: bytes) -> None:
        """Pass on what the client sent; `b""` is the end. Waits while the Pod is slow."""
        await self._ready.wait()
        if self._writer is None:
            return
        try:
            if data:
                self._writer.write(data)
                await self._writer.drain()
            else:
                self._writer.write_eof()
        except (OSError, RuntimeError):
            pass  # the Pod closed its end: `run` sees that

    async def run(self) -> None:
        """Connect and pass on what the Pod sends until it ends the connection.

        Raises:
            ConnectionError: The Pod does not accept the connection, or the client is gone.
        """
        try:
            reader, self._writer = await self._target.connect(self._port)
        finally:
            self._ready.set()
        writer = self._writer
        try:
            while data := await reader.read(CHUNK):
                await self._send(data)
        finally:
            self._writer = None
            writer.close()


class SPDYForwarder:
    """All connections of one `kubectl port-forward`.

    Args:
        target: The Pod.
        send: Writes bytes to the client.
    """

    def __init__(self, target: Target, send: Write) -> None:
        """Prepare; `run` serves them."""
        self._target = target
        self._connection = Connection(send, self._accept)
        self._errors: dict[str, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _accept(self, stream: Stream) -> bool:
        kind, request = stream.headers.get("streamtype"), stream.headers.get("requestid", "")
        port = stream.headers.get("port", "")
        if not (port.isdigit() and 0 < int(port) < 1 << 16):
            return False
        if kind == "error" and request not in self._errors:
            self._errors[request] = stream
            return True
        error = self._errors.pop(request, None) if kind == "data" else None
        if error is None:
            return False
        forward = Forward(self._target, int(port), stream.write)
        stream.receive = forward.receive
        task = asyncio.ensure_future(self._forward(forward, stream, error))
        stream.on_reset = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _forward(self, forward: Forward, data: Stream, error: Stream) -> None:
        try:
            await forward.run()
        except OSError as reason:
            await _tell(error, str(reason))
        try:
            await data.close()
            await error.close()
            await data.reset()
            await error.reset()
        except ConnectionError:
            pass

    async def run(self, chunks: AsyncIterator[bytes]) -> None:
        """Serve until the client closes the connection."""
        try:
            await self._connection.run(chunks)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(error: Stream, text: str) -> None:
    try:
        await error.write(text.encode())
    except ConnectionError:
        pass


async def serve_tunnel(request: web.Request, target: Target) -> web.StreamResponse:
    """Carry SPDY frames in the binary messages of a websocket."""
    socket = web.WebSocketResponse(
        protocols=(TUNNEL_PROTOCOL,), compress=False, timeout=IDLE_AFTER_END, max_msg_size=MAX_MESSAGE
    )
    await socket.prepare(request)

    async def messages() -> AsyncIterator[bytes]:
        while (message := await socket.receive()).type is WSMsgType.BINARY:
            yield message.data

    await SPDYForwarder(target, socket.send_bytes).run(messages())
    await socket.close()
    return socket


async def serve_websocket(request: web.Request, target: Target, ports: list[int]) -> web.StreamResponse:
    """Carry one connection for each port: channel 2i is its data, 2i + 1 its error."""
    socket = web.WebSocketResponse(protocols=(WEBSOCKET_PROTOCOL,), compress=False, timeout=IDLE_AFTER_END)
    await socket.prepare(request)
    forwards = []
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        forwards.append(Forward(target, port, _on_channel(socket, 2 * index)))

    async def run(index: int, forward: Forward) -> None:
        try:
            await forward.run()
        except OSError as reason:
            await socket.send_bytes(bytes([2 * index + 1]) + str(reason).encode())

    async def session() -> None:
        await gather(*(run(index, forward) for index, forward in enumerate(forwards)))
        await socket.close()

    async def client() -> None:
        while (message := await socket.receive()).type is WSMsgType.BINARY:
            channel, data = message.data[:1], message.data[1:]
            if data and channel[0] % 2 == 0 and channel[0] // 2 < len(forwards):
                await forwards[channel[0] // 2].receive(data)

    await until_either_ends(request, session(), client())
    await socket.close()
    return socket


def _on_channel(socket: web.WebSocketResponse, channel: int) -> Write:
    prefix = bytes([channel])

    async def write(data: bytes) -> None:
        await socket.send_bytes(prefix + data)

    return write
