"""Logs, exec, attach, port-forward, copies and proxies, as the tools see them on a whole cluster."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import struct
import subprocess
import termios
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import EmbeddedCluster, eventually

SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
CARRIERS = {"websocket": {}, "spdy": SPDY}
PRINT = "echo out; sleep 0.3; echo err >&2; sleep 100000"

ECHO = """
import os
from aiohttp import web

async def echo(request):
    wanted = ("X-Forwarded-Uri", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Mine", "Authorization")
    headers = {name: request.headers[name] for name in wanted if name in request.headers}
    body = await request.text()
    return web.json_response(
        {"method": request.method, "path": request.raw_path, "headers": headers, "body": body}, status=201
    )

async def page(request):
    text = '<a href="/other?x=1">x</a> <img src=/pic.png> <a href="there">y</a> <a href="https://k8s.io/">z</a>'
    return web.Response(text=text, content_type="text/html")

async def away(request):
    raise web.HTTPFound("/other")

async def talk(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str("you said " + message.data)
    return socket

app = web.Application()
app.add_routes([web.get("/page", page), web.get("/away", away), web.get("/talk", talk)])
app.router.add_route("*", "/{rest:.*}", echo)
web.run_app(app, host=os.environ["POD_IP"], port=int(os.environ.get("KIT_PORT_8080", 8080)), print=None)
"""


def container(name: str, *command: str, image: str = "busybox", **more: object) -> dict:
    return {"name": name, "image": image, "command": list(command), **more}


def pod(name: str, *containers: dict, **spec: object) -> dict:
    body = {"terminationGracePeriodSeconds": 0, "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": body}


class Namespace:
    """kubectl in a namespace of the tests' own."""

    def __init__(self, cluster: EmbeddedCluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def kubectl(self, *arguments: str, env: dict[str, str] | None = None, **options):
        return _with_env(self.cluster, env).kubectl("-n", self.name, *arguments, **options)

    def apply(self, *objects: dict) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", stdin=text)

    def start(self, *arguments: str, env: dict[str, str] | None = None, **options) -> subprocess.Popen:
        argv = ["kubectl", "-n", self.name, *arguments]
        return subprocess.Popen(argv, env={**self.cluster.env, **(env or {})}, **options)

    def api(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
        """Ask the API server through `kubectl proxy`'s stand-in: urllib with the kubeconfig's token."""
        return ask(self.cluster, f"/api/v1/namespaces/{self.name}{path}", body, headers or {})


def _with_env(cluster: EmbeddedCluster, env: dict[str, str] | None) -> EmbeddedCluster:
    return EmbeddedCluster(cluster.home, {**cluster.env, **(env or {})})


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        return None


def ask(cluster: EmbeddedCluster, path: str, body: bytes | None, headers: dict[str, str]):
    import ssl

    config = json.loads((cluster.home / "kubeconfig").read_text())
    server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
    context = ssl.create_default_context(cafile=str(cluster.home / "pki" / "ca.crt"))
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _StayHere)
    request = urllib.request.Request(server + path, body, {"Authorization": f"Bearer {token}", **headers})
    try:
        return opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        return error


@pytest.fixture(scope="module")
def here(cluster: EmbeddedCluster) -> Iterator[Namespace]:
    """A namespace with the Pods `two` (containers a and b, ready) and `echo` (an HTTP server with a Service)."""
    name = "streams"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(made))
    here = Namespace(cluster, name)
    ports = [{"containerPort": 8080, "name": "web"}]
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    ready_echo = container("echo", "python", "-c", ECHO, image="python", ports=ports, readinessProbe=probe)
    service_ports = [{"name": "web", "port": 80, "targetPort": "web"}]
    here.apply(
        pod("two", container("a", "sh", "-c", PRINT), container("b", "sleep", "100000")),
        pod("echo", ready_echo),
        service("echo", {"app": "echo"}, service_ports),
        service("nothing", {"app": "nothing"}, service_ports),
    )
    here.kubectl("wait", "--for=condition=Ready", "pod/two", "pod/echo", "--timeout=60s")
    eventually(lambda: here.api("/services/echo/proxy/").status == 201)
    yield here
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def service(name: str, selector: dict, ports: list[dict]) -> dict:
    spec = {"selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


# --- logs


def test_logs_join_both_streams_and_take_options(here: Namespace) -> None:
    eventually(lambda: here.kubectl("logs", "two", "-c", "a").stdout == "out\nerr\n")
    assert here.kubectl("logs", "two", "-c", "a", "--tail=1").stdout == "err\n"
    assert here.kubectl("logs", "two", "-c", "a", "--limit-bytes=5").stdout == "out\ne"
    assert here.kubectl("logs", "two", "-c", "b").stdout == ""
    stamped = here.kubectl("logs", "two", "-c", "a", "--timestamps").stdout.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (out|err)$", line) for line in stamped)
    assert here.kubectl("logs", "two", "-c", "a", "--since-time=2100-01-01T00:00:00Z").stdout == ""


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("", 400, "a container name must be specified for pod two, choose one of: [a b]"),
        ("?container=z", 400, "container z is not valid for pod two"),
        ("?container=a&previous=true", 400, 'previous terminated container "a" in pod "two" not found'),
        ("?container=a&tailLines=-1", 422, 'PodLogOptions "two" is invalid: tailLines: Invalid value: -1: must be'),
        ("?container=a&tailLines=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("?container=a&limitBytes=0", 422, "limitBytes: Invalid value: 0: must be greater than 0"),
    ],
)
def test_logs_are_refused_in_kubernetes_words(here: Namespace, query: str, code: int, message: str) -> None:
    answer = here.api(f"/pods/two/log{query}")
    status = json.load(answer)
    assert (answer.status, status["code"]) == (code, code)
    assert message in status["message"]


def test_a_container_without_its_image_is_waiting_to_start(here: Namespace) -> None:
    here.apply(pod("unknown-image", container("c", image="no-such-image:v9")))
    eventually(lambda: "can't be pulled" in _log_refusal(here) or "failing to pull image" in _log_refusal(here))
    assert 'container "c" in pod "unknown-image" is waiting to start: ' in _log_refusal(here)
    refused = here.kubectl("exec", "unknown-image", "--", "true", code=1).stderr
    assert 'container not found ("c")' in refused


def _log_refusal(here: Namespace) -> str:
    return here.kubectl("logs", "unknown-image", code=1).stderr


def test_a_pod_without_a_node_has_an_empty_log_and_nothing_to_exec_in(here: Namespace) -> None:
    here.apply(pod("pending", container("c", "true"), nodeSelector={"no-node": "has-this"}))
    assert here.kubectl("logs", "pending").stdout == ""
    assert "pod pending does not have a host assigned" in here.kubectl("exec", "pending", "--", "true", code=1).stderr


def test_following_a_log_ends_with_the_container(here: Namespace) -> None:
    script = "echo first; until [ -e go ]; do sleep 0.1; done; echo last"
    here.apply(pod("follow", container("c", "sh", "-c", script), restartPolicy="Never"))
    here.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/follow", "--timeout=60s")
    with here.start("logs", "-f", "follow", stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout.readline() == "first\n"
        here.kubectl("exec", "follow", "--", "touch", "go")
        assert following.stdout.readline() == "last\n"
        assert following.wait(60) == 0


def test_the_previous_run_of_a_restarted_container_keeps_its_log(here: Namespace) -> None:
    here.apply(pod("again", container("c", "sh", "-c", "echo run; exit 1")))
    eventually(lambda: here.kubectl("logs", "again", "-p", code=None).stdout == "run\n")


# --- exec, attach, cp, port-forward


@pytest.mark.parametrize("carrier", CARRIERS)
def test_exec_keeps_streams_apart_and_returns_the_exit_code(here: Namespace, carrier: str) -> None:
    command = ("exec", "two", "-c", "b", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    done = here.kubectl(*command, code=7, env=CARRIERS[carrier])
    assert done.stdout == "out\n"
    assert done.stderr == "err\ncommand terminated with exit code 7\n"


@pytest.mark.parametrize("carrier", CARRIERS)
def test_exec_carries_megabytes_both_ways_unchanged(here: Namespace, carrier: str) -> None:
    payload = random.Random(4).randbytes(6 << 20)
    command = ("exec", "-i", "two", "-c", "b", "--", "cat")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with here.start(*command, env=CARRIERS[carrier], **pipes) as process:
        out, _ = process.communicate(payload, timeout=120)
    assert process.returncode == 0
    assert out == payload


def test_a_command_that_does_not_exist_is_told_as_by_a_container_runtime(here: Namespace) -> None:
    refused = here.kubectl("exec", "two", "-c", "b", "--", "no-such-command", code=1).stderr
    assert "Internal error occurred: error executing command in container: failed to exec in container" in refused
    assert 'exec: "no-such-command": executable file not found in $PATH' in refused


@pytest.mark.parametrize("carrier", CARRIERS)
def test_exec_with_a_terminal_has_the_size_of_the_clients(here: Namespace, carrier: str) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    command = "until [ \"$(stty size)\" = '33 111' ]; do sleep 0.05; done; stty size; tty; exit 5"
    options = {"stdin": slave, "stdout": slave, "stderr": slave, "env": CARRIERS[carrier]}
    with here.start("exec", "-ti", "two", "-c", "b", "--", "sh", "-c", command, **options) as process:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
            while piece := os.read(master, 4096):
                shown += piece
        assert process.wait(60) == 5
    os.close(master)
    assert b"33 111\r\n" in shown
    assert b"/dev/" in shown


def test_run_attaches_to_the_new_pod_and_returns_its_exit_code(here: Namespace) -> None:
    command = ("run", "talk", "--image=busybox", "-i", "--rm", "--restart=Never", "--", "sh")
    done = here.kubectl(*command, stdin="echo from stdin; exit 6\n", code=6)
    assert "from stdin\n" in done.stdout


def test_cp_copies_into_a_container_and_back(here: Namespace, tmp_path: Path) -> None:
    payload = random.Random(5).randbytes(1 << 20)
    (tmp_path / "there").write_bytes(payload)
    here.kubectl("cp", "-c", "b", str(tmp_path / "there"), "two:copied")
    here.kubectl("cp", "-c", "b", "two:copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == payload


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("target", ["pod/echo", "svc/echo"])
def test_port_forward_carries_connection_after_connection(here: Namespace, carrier: str, target: str) -> None:
    port = "8080" if target == "pod/echo" else "80"
    with here.start(
        "port-forward", target, f":{port}", env=CARRIERS[carrier], stdout=subprocess.PIPE, text=True
    ) as forward:
        local = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())[1]
        for number in range(5):
            with urllib.request.urlopen(f"http://127.0.0.1:{local}/{number}", timeout=60) as answer:
                assert json.load(answer)["path"] == f"/{number}"
        forward.terminate()


def test_the_official_python_client_execs_and_forwards_ports(here: Namespace) -> None:
    from kubernetes import client, config
    from kubernetes.stream import portforward, stream

    api = client.CoreV1Api(config.new_client_from_config(str(here.cluster.home / "kubeconfig")))
    wanted = {"container": "b", "stdin": False, "stdout": True, "stderr": True, "tty": False}
    call = api.connect_get_namespaced_pod_exec
    assert stream(call, "two", here.name, command=["echo", "hello"], **wanted) == "hello\n"
    forwarded = portforward(api.connect_get_namespaced_pod_portforward, "echo", here.name, ports="8080")
    sock = forwarded.socket(8080)
    sock.setblocking(True)
    sock.sendall(b"GET /there HTTP/1.0\r\n\r\n")
    answer = b""
    while piece := sock.recv(4096):
        answer += piece
    assert b'"path": "/there"' in answer
    assert forwarded.error(8080) is None


def test_kr8s_execs(here: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import kr8s
    from kr8s.objects import Pod

    api = kr8s.api(kubeconfig=str(here.cluster.home / "kubeconfig"))
    found = Pod.get("two", namespace=here.name, api=api)
    assert found.exec(["echo", "hello"], container="b").stdout == b"hello\n"


# --- proxies


@pytest.mark.parametrize("target", ["pods/echo", "pods/http:echo:8080", "services/echo:80", "services/http:echo:web"])
def test_the_api_server_passes_any_request_on(here: Namespace, target: str) -> None:
    answer = here.api(f"/{target}/proxy/a%2Fb/c?x=1&y=%20", b"body", {"X-Mine": "kept"})
    said = json.load(answer)
    assert answer.status == 201
    assert (said["method"], said["path"], said["body"]) == ("POST", "/a%2Fb/c?x=1&y=%20", "body")
    headers = said["headers"]
    assert headers["X-Mine"] == "kept"
    assert headers["X-Forwarded-Uri"] == f"/api/v1/namespaces/{here.name}/{target}/proxy/a%2Fb/c"
    assert headers["X-Forwarded-Proto"] == "https"
    assert "Authorization" not in headers, "the client's token must not reach a Pod"


def test_links_and_redirects_stay_inside_the_proxy(here: Namespace) -> None:
    prefix = f"/api/v1/namespaces/{here.name}/services/echo/proxy"
    page = here.api("/services/echo/proxy/page").read().decode()
    assert f'href="{prefix}/other?x=1"' in page
    assert f"src={prefix}/pic.png>" in page
    assert 'href="there"' in page
    assert 'href="https://k8s.io/"' in page
    assert here.api("/services/echo/proxy/away").headers["Location"] == f"{prefix}/other"
    bare = here.api("/services/echo/proxy?x=1")
    assert (bare.status, bare.headers["Location"]) == (301, f"{prefix}/?x=1")


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("services/nothing", 503, 'no endpoints available for service "nothing"'),
        ("services/echo:81", 503, 'no service port 81 found for service "echo"'),
        ("services/a:b:c:d", 400, 'invalid service request "a:b:c:d"'),
        ("services/absent", 404, 'services "absent" not found'),
        ("pods/absent", 404, 'pods "absent" not found'),
        ("pods/two:9", 503, "error trying to reach service: dial tcp"),
    ],
)
def test_a_proxy_that_reaches_nobody_says_why(here: Namespace, target: str, code: int, message: str) -> None:
    answer = here.api(f"/{target}/proxy/")
    assert answer.status == code
    assert message in json.load(answer)["message"]


async def test_a_websocket_goes_through_the_service_proxy(here: Namespace) -> None:
    import ssl

    import aiohttp

    config = json.loads((here.cluster.home / "kubeconfig").read_text())
    url = f"{config['clusters'][0]['cluster']['server']}/api/v1/namespaces/{here.name}/services/echo/proxy/talk"
    headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
    context = ssl.create_default_context(cafile=str(here.cluster.home / "pki" / "ca.crt"))
    async with aiohttp.ClientSession() as http, http.ws_connect(url, headers=headers, ssl=context) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=60) == "you said hello"


def test_a_kubelet_answers_through_the_node_proxy(here: Namespace) -> None:
    assert ask(here.cluster, "/api/v1/nodes/node-1/proxy/healthz", None, {}).read() == b"ok"
    metrics = ask(here.cluster, "/api/v1/nodes/node-1/proxy/metrics/resource", None, {}).read().decode()
    assert "node_memory_working_set_bytes" in metrics


def test_top_shows_nodes_and_pods(here: Namespace) -> None:
    assert "node-1" in here.kubectl("top", "nodes").stdout
    assert re.search(r"^echo +\d+m +\d+Mi", here.kubectl("top", "pods").stdout, re.MULTILINE)
