"""Exec and attach: a process on one side, the client's named channels on the other.

Stands for `k8s.io/kubelet/pkg/cri/streaming/remotecommand`. A session knows nothing of what carries it:
SPDY streams and websocket channels both give it bytes by name and take bytes by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from kitlib.cluster.kubelet.pod_manager import ContainerNotRunning, ExecFailed, ExecProcess
from kitlib.cluster.kubelet.streaming.spdy import Connection, Stream, chunks_of
from kitlib.cluster.splice import other_end_left

WEBSOCKET_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
SPDY_PROTOCOLS = ("v4.channel.k8s.io",)
CHANNELS = ("stdin", "stdout", "stderr", "error", "resize")
"""Names of the websocket channels by number."""
CLOSE = 255
CHUNK = 64 << 10
STREAM_CREATION_TIMEOUT = 30.0
IDLE_AFTER_END = 10.0
"""How long the client may take to hang up after the last word, in seconds."""

Status = dict[str, Any]
Write = Callable[[str, bytes], Awaitable[None]]
Start = Callable[[], Awaitable[ExecProcess]]


@dataclass(frozen=True)
class Options:
    """What a client asked for.

    Attributes:
        stdin: Whether it sends input.
        stdout: Whether it wants the output.
        stderr: Whether it wants the error output; never with a tty.
        tty: Whether the process gets a terminal.
    """

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def parse(cls, query: Any) -> Options:
        """Read the kubelet's query parameters `input`, `output`, `error`, `tty`.

        Raises:
            ValueError: None of the three streams is asked for.
        """
        given = {name: query.get(name, "") in ("1", "true") for name in ("input", "output", "error", "tty")}
        if not (given["input"] or given["output"] or given["error"]):
            raise ValueError("you must specify at least 1 of stdin, stdout, stderr")
        return cls(given["input"], given["output"], given["error"] and not given["tty"], given["tty"])

    @property
    def streams(self) -> set[str]:
        """Names of the SPDY streams that the client will open."""
        wanted = {"error": True, "stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr, "resize": self.tty}
        return {name for name, is_wanted in wanted.items() if is_wanted}


def exit_status(code: int) -> Status:
    """Return the Status that tells a client how a command ended."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure_status(message: str, relayed: bool = False) -> Status:
    """Return the Status for a command that could not be started.

    Args:
        message: Why.
        relayed: The client speaks v5: a real API server translates that protocol for the kubelet, and wraps its error.
    """
    text = f"Internal error occurred: {message}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {text}" if relayed else text,
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


class Session:
    """One exec or attach.

    Args:
        start: Starts the process, or attaches to it.
        options: What the client asked for.
        write: Sends bytes on the channel of that name; waits while the client is slow.
        reports_exit: Whether the process's exit code is the session's (exec) or not (attach).
        relayed: See `failure_status`.
    """

    def __init__(
        self, start: Start, options: Options, write: Write, *, reports_exit: bool, relayed: bool = False
    ) -> None:
        """Prepare the session; `run` starts the process."""
        self._start = start
        self._options = options
        self._write = write
        self._reports_exit, self._relayed = reports_exit, relayed
        self._process: ExecProcess | None = None
        self._ready = asyncio.Event()

    async def receive(self, channel: str, data: bytes) -> None:
        """Take what the client sent on a channel; `b""` is the channel's end. Waits while the process is slow."""
        await self._ready.wait()
        if self._process is None:
            return
        if channel == "resize" and data:
            self._resize(self._process, data)
        elif channel == "stdin" and self._process.stdin is not None:
            await _feed(self._process.stdin, data)

    @staticmethod
    def _resize(process: ExecProcess, data: bytes) -> None:
        try:
            size = orjson.loads(data)
            rows, cols = int(size["Height"]), int(size["Width"])
        except (ValueError, TypeError, KeyError):
            return
        if 0 < rows < 1 << 16 and 0 < cols < 1 << 16:
            process.resize(rows, cols)

    async def run(self) -> None:
        """Run to the end of the process, sending its output and then its Status."""
        try:
            self._process = await self._start()
        except (ExecFailed, ContainerNotRunning, KeyError) as error:
            await self._write("error", orjson.dumps(failure_status(str(error).strip("'\""), self._relayed)))
            return
        finally:
            self._ready.set()
        try:
            code = await self._pump(self._process)
            status = exit_status(code if self._reports_exit else 0)
            await self._write("error", orjson.dumps(status))
        finally:
            self._process.kill()

    async def _pump(self, process: ExecProcess) -> int:
        outputs = [self._copy(process.stdout, "stdout", self._options.stdout)]
        if process.stderr is not None:
            outputs.append(self._copy(process.stderr, "stderr", self._options.stderr))
        await gather(*outputs)
        return await process.wait()

    async def _copy(self, source: asyncio.StreamReader, channel: str, wanted: bool) -> None:
        while data := await source.read(CHUNK):
            if wanted:
                await self._write(channel, data)


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    try:
        if data:
            stdin.write(data)
            await stdin.drain()
        else:
            stdin.close()
    except (ConnectionError, RuntimeError):
        pass  # the process reads no more; its end will come as its output's end


async def gather(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run the jobs together; the first error, or being cancelled, cancels the others and waits for them."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_either_ends(
    request: web.Request, session: Coroutine[Any, Any, None], client: Coroutine[Any, Any, None]
) -> None:
    """Run a session while its client is read; when the client leaves, the session is cancelled.

    When the session is over, the client has `IDLE_AFTER_END` to hang up, so that nothing sent to it is lost.
    """
    running, reading = asyncio.ensure_future(session), asyncio.ensure_future(client)
    left = asyncio.ensure_future(other_end_left(request.transport))
    try:
        await asyncio.wait({running, reading, left}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await asyncio.wait({reading, left}, timeout=IDLE_AFTER_END, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (running, reading, left):
            task.cancel()
        results = await asyncio.gather(running, reading, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, ConnectionError):
            raise result


async def serve_websocket(
    request: web.Request, start: Start, options: Options, *, reports_exit: bool
) -> web.StreamResponse:
    """Carry a session over the websocket protocols v4 and v5.channel.k8s.io."""
    socket = web.WebSocketResponse(protocols=WEBSOCKET_PROTOCOLS, compress=False, timeout=IDLE_AFTER_END)
    await socket.prepare(request)

    async def write(channel: str, data: bytes) -> None:
        await socket.send_bytes(bytes([CHANNELS.index(channel)]) + data)

    relayed = socket.ws_protocol == WEBSOCKET_PROTOCOLS[0]
    session = Session(start, options, write, reports_exit=reports_exit, relayed=relayed)

    async def run() -> None:
        await socket.send_bytes(b"\x01")
        await session.run()
        await socket.close()

    await until_either_ends(request, run(), _read_websocket(socket, session))
    await socket.close()
    return socket


async def _read_websocket(socket: web.WebSocketResponse, session: Session) -> None:
    while True:
        message = await socket.receive()
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            return
        data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
        if len(data) == 2 and data[0] == CLOSE and socket.ws_protocol == WEBSOCKET_PROTOCOLS[0]:
            await session.receive(_channel(data[1]), b"")
        elif len(data) > 1:
            await session.receive(_channel(data[0]), data[1:])


def _channel(number: int) -> str:
    return CHANNELS[number] if number < len(CHANNELS) else ""


class SPDYSession:
    """Collects the SPDY streams of one session and then runs it.

    Args:
        start: Starts the process, or attaches to it.
        options: What the client asked for.
        reports_exit: See `Session`.
        send: Writes bytes to the client.
    """

    def __init__(
        self, start: Start, options: Options, send: Callable[[bytes], Awaitable[None]], *, reports_exit: bool
    ) -> None:
        """Prepare; `run` serves it."""
        self._wanted = options.streams
        self._streams: dict[str, Stream] = {}
        self._complete = asyncio.Event()
        self._session = Session(start, options, self._write, reports_exit=reports_exit)
        self._connection = Connection(send, self._accept)

    def _accept(self, stream: Stream) -> bool:
        kind = stream.headers.get("streamtype", "")
        if kind not in self._wanted or kind in self._streams:
            return False
        self._streams[kind] = stream

        async def receive(data: bytes) -> None:
            await self._session.receive(kind, data)

        stream.receive = receive
        if len(self._streams) == len(self._wanted):
            self._complete.set()
        return True

    async def _write(self, channel: str, data: bytes) -> None:
        stream = self._streams.get(channel)
        if stream is not None:
            await stream.write(data)

    async def _run(self) -> None:
        try:
            await asyncio.wait_for(self._complete.wait(), STREAM_CREATION_TIMEOUT)
            await self._session.run()
            for stream in self._streams.values():
                await stream.close()
        except asyncio.TimeoutError:
            pass
        await self._connection.goaway()

    async def run(self, request: web.Request, reader: asyncio.StreamReader) -> None:
        """Serve the session to its end."""
        await until_either_ends(request, self._run(), self._connection.run(chunks_of(reader)))
