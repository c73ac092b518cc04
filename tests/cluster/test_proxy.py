"""What a Service's address does with connections."""

# ruff: noqa: ASYNC110

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import EmbeddedCluster, eventually

from kitlib.cluster.apiserver.server import APIServer
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.proxy.balancer import Balancer, Endpoint, endpoints_of
from kitlib.cluster.proxy.proxier import Proxy, port_map
from kitlib.cluster.store import Store

BLOCK = 253
NODE_IP = f"127.{BLOCK}.0.1"
SLICES = "endpointslices.discovery.k8s.io"


# --- the choice of an endpoint


def endpoint(address: str, **conditions: bool) -> dict:
    return {"addresses": [address], "conditions": conditions}


def test_only_ready_endpoints_take_connections() -> None:
    slices = [
        {"ports": [{"name": "web", "port": 80}], "endpoints": [endpoint("a", ready=True), endpoint("b", ready=False)]},
        {"ports": [{"name": "web", "port": 81}], "endpoints": [endpoint("c")]},
        {"ports": [{"name": "other", "port": 82}], "endpoints": [endpoint("d", ready=True)]},
    ]
    assert endpoints_of(slices, "web") == [Endpoint("a", 80), Endpoint("c", 81)]


def test_a_terminating_endpoint_takes_connections_only_when_no_other_is_left() -> None:
    going = endpoint("going", ready=False, serving=True, terminating=True)
    ports = [{"port": 80}]
    assert endpoints_of([{"ports": ports, "endpoints": [going, endpoint("new", ready=True)]}], "") == [
        Endpoint("new", 80)
    ]
    assert endpoints_of([{"ports": ports, "endpoints": [going]}], "") == [Endpoint("going", 80)]


def test_endpoints_take_turns_and_every_other_one_is_tried_next() -> None:
    balancer = Balancer()
    balancer.endpoints = [Endpoint(name, 80) for name in "abc"]
    orders = [balancer.candidates("client") for _ in range(6)]
    assert Counter(order[0].address for order in orders) == {"a": 2, "b": 2, "c": 2}
    assert all(len(set(order)) == 3 for order in orders)


def test_client_ip_affinity_keeps_a_client_with_its_endpoint_while_it_lives() -> None:
    balancer = Balancer()
    balancer.affinity_seconds = 100
    balancer.endpoints = [Endpoint(name, 80) for name in "abc"]
    chosen = balancer.candidates("me")[0]
    balancer.connected("me", chosen)
    assert {balancer.candidates("me")[0] for _ in range(5)} == {chosen}
    assert len({balancer.candidates("other")[0] for _ in range(3)}) == 3
    balancer.endpoints.remove(chosen)
    assert balancer.candidates("me")[0] != chosen


# --- the proxy alone, between an API server and Pods that the test plays itself


class Playground:
    """An API server, a proxy, and EndpointSlices written by hand."""

    def __init__(self, client: Any, proxy: Proxy) -> None:
        self.client, self.proxy = client, proxy

    async def service(self, name: str, port: int = 8080, **spec: Any) -> dict:
        ports = [{"port": port, "protocol": spec.pop("protocol", "TCP"), **spec.pop("more", {})}]
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports, **spec}}
        return await self.client.create("services", body, "default")

    async def endpoints(self, name: str, *addresses: tuple[str, int], protocol: str = "TCP") -> None:
        """Replace the Service's endpoints; all share the port of the first."""
        with contextlib.suppress(Exception):
            await self.client.delete(SLICES, name, "default")
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": addresses[0][1], "protocol": protocol}] if addresses else [],
            "endpoints": [endpoint(address, ready=True) for address, _ in addresses],
        }
        await self.client.create(SLICES, body, "default")


async def playground_of(tmp_path: Path, loopback: str) -> AsyncIterator[Playground]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ClusterConfig("test", tmp_path, port, BLOCK, "token", loopback=loopback)
    config.pki.mkdir(parents=True)
    (config.pki / "tokens.json").write_text("{}")
    store = Store(tmp_path / "state.db")
    server = APIServer(config, store)
    await server.start()
    client = server.client("test")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    await client.create("nodes", {**node, "status": {"addresses": [{"type": "InternalIP", "address": NODE_IP}]}})
    status = {"status": {"addresses": [{"type": "InternalIP", "address": NODE_IP}]}}
    await client.patch("nodes", "node-1", status, subresource="status")
    proxy = Proxy(server.client("kube-proxy"), config)
    running = asyncio.ensure_future(proxy.run())
    yield Playground(client, proxy)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.stop()
    store.close()


@pytest.fixture
async def playground(tmp_path: Path) -> AsyncIterator[Playground]:
    async for made in playground_of(tmp_path, "multi"):
        yield made


@pytest.fixture
async def single_playground(tmp_path: Path) -> AsyncIterator[Playground]:
    async for made in playground_of(tmp_path, "single"):
        yield made


async def pod_that_says(text: str, address: str, port: int = 0) -> asyncio.AbstractServer:
    """A server that answers what it was sent with its own name in front, once the client has said all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(text.encode() + b" " + await reader.read())
            await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, address, port)


def port_of(server: asyncio.AbstractServer) -> int:
    return server.sockets[0].getsockname()[1]


async def say(address: str, port: int, text: bytes = b"hi") -> str:
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(text)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def until(what: Callable[[], Any]) -> Any:
    """Await `what()` until it is true; refused connections count as not yet."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            if found := await what():
                return found
        await asyncio.sleep(0.05)
    raise AssertionError("not within 30 s")


async def refuses(address: str, port: int) -> bool:
    try:
        await say(address, port)
    except ConnectionRefusedError:
        return True
    return False


async def test_cluster_ip_node_port_and_load_balancer_lead_to_the_pods(playground: Playground) -> None:
    pod = await pod_that_says("pod", f"127.{BLOCK}.1.2")
    made = await playground.service("web", type="LoadBalancer")
    await playground.endpoints("web", (f"127.{BLOCK}.1.2", port_of(pod)))
    cluster_ip, node_port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]

    async def ingress() -> Any:
        service = await playground.client.get("services", "web", "default")
        return service["status"]["loadBalancer"].get("ingress")

    (given,) = await until(ingress)
    for address, port in ((cluster_ip, 8080), ("127.0.0.1", node_port), (NODE_IP, node_port), (given["ip"], 8080)):
        assert await until(lambda a=address, p=port: say(a, p)) == "pod hi"
    pod.close()


async def test_a_service_without_endpoints_refuses_connections(playground: Playground) -> None:
    pod = await pod_that_says("pod", f"127.{BLOCK}.1.3")
    address = (await playground.service("web"))["spec"]["clusterIP"]
    assert await refuses(address, 8080)
    await playground.endpoints("web", (f"127.{BLOCK}.1.3", port_of(pod)))
    assert await until(lambda: say(address, 8080)) == "pod hi"
    await playground.endpoints("web")
    assert await until(lambda: refuses(address, 8080))
    pod.close()


async def test_an_endpoint_that_refuses_is_passed_over(playground: Playground) -> None:
    pod = await pod_that_says("alive", f"127.{BLOCK}.1.4")
    address = (await playground.service("web"))["spec"]["clusterIP"]
    dead = [(f"127.{BLOCK}.1.{number}", port_of(pod)) for number in (5, 6)]
    await playground.endpoints("web", (f"127.{BLOCK}.1.4", port_of(pod)), *dead)
    await until(lambda: say(address, 8080))
    assert [await say(address, 8080) for _ in range(9)] == ["alive hi"] * 9
    pod.close()


async def test_a_client_that_has_said_nothing_moves_on_when_its_pod_hangs_up(playground: Playground) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    leaving = await asyncio.start_server(hang_up, f"127.{BLOCK}.1.12", 0)
    pod = await pod_that_says("staying", f"127.{BLOCK}.1.13", port_of(leaving))
    address = (await playground.service("web"))["spec"]["clusterIP"]
    await playground.endpoints("web", *((f"127.{BLOCK}.1.{number}", port_of(leaving)) for number in (12, 13)))
    await until(lambda: say(address, 8080))
    for _ in range(4):
        reader, writer = await asyncio.open_connection(address, 8080)
        late = asyncio.get_running_loop().call_later(0.1, lambda w=writer: (w.write(b"hi"), w.write_eof()))
        assert await reader.read() == b"staying hi"
        late.cancel()
        writer.close()
    leaving.close()
    pod.close()


async def test_an_established_connection_outlives_its_endpoint_and_its_service(playground: Playground) -> None:
    pod = await pod_that_says("pod", f"127.{BLOCK}.1.7")
    address = (await playground.service("web"))["spec"]["clusterIP"]
    await playground.endpoints("web", (f"127.{BLOCK}.1.7", port_of(pod)))
    await until(lambda: say(address, 8080))
    reader, writer = await asyncio.open_connection(address, 8080)
    writer.write(b"still ")
    await playground.endpoints("web")
    await until(lambda: refuses(address, 8080))
    await playground.client.delete("services", "web", "default")
    writer.write(b"here")
    writer.write_eof()
    assert await reader.read() == b"pod still here"
    writer.close()
    pod.close()


async def test_a_slow_reader_holds_its_sender_back_and_loses_nothing(playground: Playground) -> None:
    size = 32 << 20

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(size))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    pod = await asyncio.start_server(pour, f"127.{BLOCK}.1.8", 0)
    address = (await playground.service("web"))["spec"]["clusterIP"]
    await playground.endpoints("web", (f"127.{BLOCK}.1.8", port_of(pod)))
    reader, writer = await until(lambda: asyncio.open_connection(address, 8080))
    total = 0
    while piece := await reader.read(1 << 20):
        total += len(piece)
        await asyncio.sleep(0)
    assert total == size
    writer.close()
    pod.close()


async def test_a_reset_client_resets_the_pods_side(playground: Playground) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    connected = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1000):
                connected.set()
            ended.set_result("end")
        except ConnectionError:
            ended.set_result("reset")
        writer.close()

    pod = await asyncio.start_server(serve, f"127.{BLOCK}.1.9", 0)
    address = (await playground.service("web"))["spec"]["clusterIP"]
    await playground.endpoints("web", (f"127.{BLOCK}.1.9", port_of(pod)))
    _, writer = await until(lambda: asyncio.open_connection(address, 8080))
    writer.write(b"x")
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await asyncio.wait_for(connected.wait(), 30)
    writer.transport.abort()
    assert await asyncio.wait_for(ended, 30) == "reset"
    pod.close()


async def test_a_taken_address_is_an_event_and_hurts_no_other_address(playground: Playground) -> None:
    pod = await pod_that_says("pod", f"127.{BLOCK}.1.10")
    with taken_node_port() as taken:
        made = await playground.service("web", type="NodePort", more={"nodePort": taken})
        await playground.endpoints("web", (f"127.{BLOCK}.1.10", port_of(pod)))
        assert await until(lambda: say(made["spec"]["clusterIP"], 8080)) == "pod hi"
        assert await until(lambda: say(NODE_IP, taken)) == "pod hi"

        async def event() -> Any:
            events = (await playground.client.list("events", "default"))["items"]
            return [item for item in events if item["reason"] == "FailedToBindPort"]

        (found,) = await until(event)
        assert f"127.0.0.1:{taken}/TCP" in found["message"]
        assert found["involvedObject"]["name"] == "web"
    pod.close()


@contextlib.contextmanager
def taken_node_port() -> Iterator[int]:
    """A port that could be a node port and that somebody else listens on."""
    for port in range(31000, 32000):
        with socket.socket() as squatter, contextlib.suppress(OSError):
            squatter.bind(("127.0.0.1", port))
            squatter.listen()
            yield port
            return


async def test_datagrams_find_their_way_back(playground: Playground) -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(b"pod " + data, addr)

    loop = asyncio.get_running_loop()
    pod, _ = await loop.create_datagram_endpoint(Echo, local_addr=(f"127.{BLOCK}.1.11", 0))
    address = (await playground.service("dns", port=5353, protocol="UDP"))["spec"]["clusterIP"]
    await playground.endpoints("dns", pod.get_extra_info("sockname"), protocol="UDP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((address, 5353))

        async def ask() -> bytes:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                client.send(b"hi")
                return await asyncio.wait_for(loop.sock_recv(client, 100), 0.5)
            return b""

        assert await until(ask) == b"pod hi"
    pod.close()


async def test_where_all_share_one_address_the_service_tells_its_mapped_port(single_playground: Playground) -> None:
    playground = single_playground
    pod = await pod_that_says("pod", "127.0.0.1")
    await playground.service("web", port=80)
    await playground.endpoints("web", ("127.0.0.1", port_of(pod)))

    async def mapped() -> int | None:
        return port_map(await playground.client.get("services", "web", "default")).get("80")

    port = await until(mapped)
    assert await until(lambda: say("127.0.0.1", port)) == "pod hi"
    pod.close()


# --- on a whole cluster


def deployment(name: str, image: str, replicas: int) -> dict:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    ports = [{"containerPort": 8080}]
    containers = [{"name": "c", "image": image, "ports": ports, "readinessProbe": probe}]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_a_rolling_update_under_load_drops_no_request(cluster: EmbeddedCluster, namespace: str) -> None:
    old, new = "gcr.io/google-samples/kubernetes-bootcamp:v1", "jocatalin/kubernetes-bootcamp:v2"
    ports = [{"port": 8080}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    service["spec"] = {"type": "NodePort", "selector": {"app": "web"}, "ports": ports}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [deployment("web", old, 4), service]})
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=text)
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=90s")
    url = f"http://127.0.0.1:{cluster.get('-n', namespace, 'service', 'web')['spec']['ports'][0]['nodePort']}/"
    answers: Counter[str] = Counter()
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                with urllib.request.urlopen(url, timeout=30) as answer:
                    answers[answer.read().decode().rsplit("|", 1)[-1].strip()] += 1
            except OSError as error:
                answers[f"failed: {error}"] += 1

    eventually(lambda: urllib.request.urlopen(url, timeout=30).status == 200)
    workers = [threading.Thread(target=load) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        cluster.kubectl("-n", namespace, "set", "image", "deployment/web", f"c={new}")
        cluster.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=90s")
        eventually(lambda: answers["v=2"] > 20)
    finally:
        done.set()
        for worker in workers:
            worker.join()
    assert set(answers) == {"v=1", "v=2"}


async def test_services_beyond_what_the_proxy_may_listen_on_wait_for_room_and_say_so(playground: Playground) -> None:
    pod = await pod_that_says("pod", f"127.{BLOCK}.1.2")
    first = await playground.service("first")
    await playground.endpoints("first", (f"127.{BLOCK}.1.2", port_of(pod)))
    address = first["spec"]["clusterIP"]
    assert await until(lambda: say(address, 8080)) == "pod hi"
    playground.proxy._budget.limit = playground.proxy._budget.used
    second = await playground.service("second")
    await playground.endpoints("second", (f"127.{BLOCK}.1.2", port_of(pod)))

    async def told() -> Any:
        events = (await playground.client.list("events", "default"))["items"]
        return [each for each in events if each["reason"] == "FailedToBindPort"]

    (event,) = await until(told)
    assert event["involvedObject"]["name"] == "second"
    assert f"at most {playground.proxy._budget.limit} addresses" in event["message"]
    assert await say(address, 8080) == "pod hi"
    await playground.client.delete("services", "first", "default")
    assert await until(lambda: say(second["spec"]["clusterIP"], 8080)) == "pod hi"
    pod.close()
