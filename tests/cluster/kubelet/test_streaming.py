"""What a kubelet's streaming server owes every kubectl, over websocket and over SPDY."""
# ruff: noqa: ASYNC110

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import aiohttp
import pytest
from fake_pods import FakePods
from spdy_client import FIN, SPDYClient, control, data_frame

from kitlib.cluster.config import ClusterConfig, NodeConfig
from kitlib.cluster.kubelet.server import KubeletServer
from kitlib.cluster.kubelet.streaming.spdy import DICTIONARY

TOKEN = "kubelet-client-token"
EXEC = "/exec/default/web/app"
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
SUCCESS = {"metadata": {}, "status": "Success"}


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[SimpleNamespace]:
    """A kubelet's server with one Pod, `default/web` with container `app`: `server`, `pods`, `url` and `http`."""
    cluster = ClusterConfig("test", tmp_path, 0, 0, TOKEN, loopback="single")
    pods = FakePods()
    pods.add_pod(tmp_path)
    server = KubeletServer(NodeConfig(cluster, "node-1", 1, ""), pods, None)
    await server.start()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        yield SimpleNamespace(server=server, pods=pods, url=f"http://127.0.0.1:{server.port}", http=http)
    await server.stop()
    await asyncio.wait_for(until_no_process(pods), 30)


def query(*argv: str, streams: str = "output error") -> list[tuple[str, str]]:
    return [("command", word) for word in argv] + [(name, "1") for name in streams.split()]


async def websocket(kubelet, *argv: str, streams: str = "output error", protocol: str = V5):
    return await kubelet.http.ws_connect(kubelet.url + EXEC, params=query(*argv, streams=streams), protocols=[protocol])


async def collect(socket) -> dict[int, bytes]:
    """Read a websocket to its end; return what came on each channel."""
    channels: dict[int, bytes] = {}
    async for message in socket:
        channels[message.data[0]] = channels.get(message.data[0], b"") + message.data[1:]
    return channels


async def spdy(kubelet, path: str, params: list[tuple[str, str]], protocol: str = V4) -> SPDYClient:
    """Upgrade a connection to SPDY/3.1, as kubectl before 1.30 does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.server.port)
    target = path + "?" + urlencode(params)
    lines = [
        f"POST {target} HTTP/1.1",
        "Host: kubelet",
        f"Authorization: Bearer {TOKEN}",
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        f"X-Stream-Protocol-Version: {protocol}",
        "Content-Length: 0",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert f"X-Stream-Protocol-Version: {protocol}".encode() in head
    return SPDYClient(reader, writer)


async def until_no_process(pods: FakePods) -> None:
    while pods.running:
        await asyncio.sleep(0.02)


def test_the_header_dictionary_is_that_of_the_spdy_draft() -> None:
    import zlib

    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


async def test_only_the_control_plane_may_ask_a_kubelet(kubelet) -> None:
    async with aiohttp.ClientSession() as stranger:
        for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "Bearer \xff"}):
            async with stranger.get(kubelet.url + "/healthz", headers=headers) as answer:
                assert answer.status == 401
    async with kubelet.http.get(kubelet.url + "/healthz") as answer:
        assert await answer.text() == "ok"


@pytest.mark.parametrize("protocol", [V4, V5])
async def test_output_error_output_and_exit_code_travel_apart(kubelet, protocol: str) -> None:
    socket = await websocket(kubelet, "sh", "-c", "echo out; echo err >&2; exit 3", protocol=protocol)
    channels = await collect(socket)
    assert channels[STDOUT] == b"out\n"
    assert channels[STDERR] == b"err\n"
    status = json.loads(channels[ERROR])
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert socket.close_code == 1000


async def test_a_command_that_cannot_start_is_an_internal_error_in_the_runtimes_words(kubelet) -> None:
    channels = await collect(await websocket(kubelet, "no-such-command"))
    status = json.loads(channels[ERROR])
    assert status["reason"] == "InternalError"
    assert 'exec: "no-such-command": executable file not found in $PATH' in status["message"]


async def test_closing_stdin_ends_the_input_in_v5(kubelet) -> None:
    socket = await websocket(kubelet, "cat", streams="input output error")
    await socket.send_bytes(bytes([STDIN]) + b"bytes \x00\xff\n")
    await socket.send_bytes(bytes([CLOSE, STDIN]))
    channels = await collect(socket)
    assert channels[STDOUT] == b"bytes \x00\xff\n"
    assert json.loads(channels[ERROR]) == SUCCESS


async def test_a_large_input_comes_back_whole_through_websocket(kubelet) -> None:
    payload = random.Random(1).randbytes(8 << 20)
    socket = await websocket(kubelet, "cat", streams="input output error")

    async def send() -> None:
        for start in range(0, len(payload), 32 << 10):
            await socket.send_bytes(bytes([STDIN]) + payload[start : start + (32 << 10)])
        await socket.send_bytes(bytes([CLOSE, STDIN]))

    channels, _ = await asyncio.gather(collect(socket), send())
    assert channels[STDOUT] == payload


async def test_a_terminal_has_the_size_that_the_client_says(kubelet) -> None:
    command = ("sh", "-c", "read line; stty size; test -t 0 && echo terminal")
    socket = await websocket(kubelet, *command, streams="input output tty")
    await socket.send_bytes(bytes([RESIZE]) + b'{"Width": 111, "Height": 33}')
    for nonsense in (b"{", b'{"Width": "x"}', b'{"Width": -1, "Height": 1e99}', b"[]"):
        await socket.send_bytes(bytes([RESIZE]) + nonsense)
    await socket.send_bytes(bytes([STDIN]) + b"\n")
    channels = await collect(socket)
    assert b"33 111\r\n" in channels[STDOUT]
    assert b"terminal" in channels[STDOUT]
    assert STDERR not in channels


async def test_attach_tells_success_whatever_the_container_exits_with(kubelet) -> None:
    url = kubelet.url + "/attach/default/web/app"
    socket = await kubelet.http.ws_connect(url, params=query(streams="input output"), protocols=[V5])
    await socket.send_bytes(bytes([STDIN]) + b"hello\n")
    await socket.send_bytes(bytes([CLOSE, STDIN]))
    channels = await collect(socket)
    assert channels[STDOUT] == b"hello\n"
    assert json.loads(channels[ERROR]) == SUCCESS


async def test_what_can_be_known_before_the_upgrade_is_refused_with_http(kubelet) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": V4}
    old = {**upgrade, "X-Stream-Protocol-Version": "v9.channel.k8s.io"}
    for path, params, headers, code, text in (
        (EXEC, query("true"), {}, 400, "missing upgrade headers"),
        (EXEC, query("true"), old, 403, "unable to negotiate protocol"),
        (EXEC, query("true", streams=""), upgrade, 400, "at least 1 of stdin, stdout, stderr"),
        (EXEC, query(), upgrade, 400, "at least one command"),
        ("/exec/default/web/nope", query("true"), upgrade, 500, 'container not found ("nope")'),
        ("/exec/default/nope/app", query("true"), upgrade, 404, "pod does not exist"),
        ("/portForward/default/nope", [], upgrade, 404, "pod does not exist"),
    ):
        async with kubelet.http.post(kubelet.url + path, params=params, headers=headers) as answer:
            assert (answer.status, text in await answer.text()) == (code, True)


async def test_a_process_ends_with_its_client(kubelet) -> None:
    socket = await websocket(kubelet, "sleep", "1000")
    while not kubelet.pods.running:
        await asyncio.sleep(0.02)
    await socket.close()
    await until_no_process(kubelet.pods)


async def test_a_client_that_vanishes_takes_its_process_along(kubelet) -> None:
    client = await spdy(kubelet, EXEC, query("cat", "/dev/zero"))
    for kind in ("error", "stdout", "stderr"):
        client.open(streamtype=kind)
    await client.read_frame()
    while not kubelet.pods.running:
        await asyncio.sleep(0.02)
    client.writer.transport.abort()
    await until_no_process(kubelet.pods)


async def test_spdy_carries_input_output_and_exit_code(kubelet) -> None:
    client = await spdy(kubelet, EXEC, query("sh", "-c", "cat; echo err >&2; exit 4", streams="input output error"))
    error, stdin, stdout, stderr = (client.open(streamtype=k) for k in ("error", "stdin", "stdout", "stderr"))
    payload = random.Random(2).randbytes(4 << 20)

    async def send() -> None:
        for start in range(0, len(payload), 32 << 10):
            client.send(stdin, payload[start : start + (32 << 10)])
            await client.writer.drain()
        client.send(stdin, b"", FIN)

    await asyncio.gather(client.read_until(error, stdout, stderr), send())
    assert client.received[stdout] == payload
    assert client.received[stderr] == b"err\n"
    assert json.loads(client.received[error])["details"]["causes"][0]["message"] == "4"
    client.writer.close()


async def test_spdy_answers_pings_and_ends_with_goaway(kubelet) -> None:
    client = await spdy(kubelet, EXEC, query("true", streams="output"))
    client.writer.write(control(6, struct.pack(">I", 7)))
    await client.read_frame()
    assert client.frames == [(6, struct.pack(">I", 7))]
    error, stdout = client.open(streamtype="error"), client.open(streamtype="stdout")
    await client.read_until(error, stdout)
    assert json.loads(client.received[error]) == SUCCESS
    assert client.received[stdout] == b""
    await client.read_frame()
    assert client.frames[-1][0] == 7
    client.writer.close()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server in the Pod: says what it was told, when it was told all."""
    writer.write(b"you said " + await reader.read())
    writer.close()


@pytest.fixture
async def pod_port(kubelet):
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_port_forward_carries_several_connections_at_once(kubelet, pod_port: int) -> None:
    kubelet.pods.states["default", "web"].port_map[8080] = pod_port
    client = await spdy(kubelet, "/portForward/default/web", [], "portforward.k8s.io")
    streams = []
    for request in ("0", "1", "2"):
        error = client.open(streamtype="error", port="8080", requestid=request)
        streams.append((error, client.open(streamtype="data", port="8080", requestid=request)))
        client.send(error, b"", FIN)
    for error, data in reversed(streams):
        client.send(data, str(error).encode(), FIN)
    await client.read_until(*(data for _, data in streams))
    for error, data in streams:
        assert client.received[data] == f"you said {error}".encode()
        assert client.received[error] == b""
    client.writer.close()


async def test_a_refused_port_is_told_on_the_error_stream(kubelet, pod_port: int) -> None:
    kubelet.pods.states["default", "web"].port_map[81] = 1
    client = await spdy(kubelet, "/portForward/default/web", [], "portforward.k8s.io")
    error = client.open(streamtype="error", port="81", requestid="0")
    client.open(streamtype="data", port="81", requestid="0")
    await client.read_until(error)
    assert b"error forwarding port 81 to pod" in client.received[error]
    assert b"connection refused" in client.received[error]
    client.writer.close()


async def test_the_python_clients_port_forward_says_each_port_first(kubelet, pod_port: int) -> None:
    socket = await kubelet.http.ws_connect(
        kubelet.url + "/portForward/default/web", params={"port": str(pod_port)}, protocols=[V4]
    )
    for channel in (0, 1):
        assert (await socket.receive()).data == bytes([channel]) + struct.pack("<H", pod_port)
    await socket.send_bytes(b"\x00hello")
    await socket.close()


async def test_a_tunnel_carries_spdy_in_websocket_messages(kubelet, pod_port: int) -> None:
    socket = await kubelet.http.ws_connect(
        kubelet.url + "/portForward/default/web", protocols=["SPDY/3.1+portforward.k8s.io"]
    )
    near, far = asyncio.StreamReader(), Messages(socket)
    client = SPDYClient(near, far)  # type: ignore[arg-type]
    client.open(streamtype="error", port=str(pod_port), requestid="0")
    data = client.open(streamtype="data", port=str(pod_port), requestid="0")
    client.send(data, b"hi", FIN)
    await far.flush()
    while data not in client.ended:
        near.feed_data((await socket.receive()).data)
        await client.read_frame()
    assert client.received[data] == b"you said hi"
    await socket.close()


class Messages:
    """Writes each piece as a websocket message, cut at odd places."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.pieces = socket, b""

    def write(self, data: bytes) -> None:
        self.pieces += data

    async def flush(self) -> None:
        for start in range(0, len(self.pieces), 7):
            await self.socket.send_bytes(self.pieces[start : start + 7])


def broken_frames(seed: int) -> bytes:
    """Return bytes that are nearly SPDY."""
    chance = random.Random(seed)
    good = SPDYClient(None, None)  # type: ignore[arg-type]
    pieces = [
        control(1, struct.pack(">IIH", chance.choice([1, 2, 3, 0]), 0, 0) + good.headers({"streamtype": "stdout"})),
        control(chance.randrange(12), chance.randbytes(chance.randrange(20))),
        control(1, struct.pack(">IIH", 5, 0, 0) + chance.randbytes(30)),
        data_frame(chance.randrange(10), chance.randbytes(chance.randrange(50)), chance.randrange(4)),
        chance.randbytes(chance.randrange(1, 40)),
        struct.pack(">II", 0x8003_0001, 0xFF_FFFF),
    ]
    return b"".join(chance.sample(pieces, chance.randrange(1, len(pieces) + 1)))


@pytest.mark.parametrize("path", [EXEC, "/portForward/default/web"])
async def test_broken_frames_end_their_connection_and_nothing_else(kubelet, path: str) -> None:
    protocol = V4 if path == EXEC else "portforward.k8s.io"
    for seed in range(60):
        client = await spdy(kubelet, path, query("true"), protocol)
        client.writer.write(broken_frames(seed))
        client.writer.write_eof()
        await asyncio.wait_for(client.read_to_end(), 30)
        client.writer.close()
    channels = await collect(await websocket(kubelet, "echo", "alive"))
    assert channels[STDOUT] == b"alive\n"


async def test_broken_websocket_messages_end_their_connection_and_nothing_else(kubelet) -> None:
    chance = random.Random(3)
    for _ in range(40):
        socket = await websocket(kubelet, "cat", streams="input output error")
        writer = socket._writer.transport
        for _ in range(chance.randrange(1, 6)):
            await socket.send_bytes(chance.randbytes(chance.randrange(8)))
        writer.write(chance.randbytes(chance.randrange(1, 30)))
        writer.close()
        await socket.close()
    await until_no_process(kubelet.pods)
    channels = await collect(await websocket(kubelet, "echo", "alive"))
    assert channels[STDOUT] == b"alive\n"
