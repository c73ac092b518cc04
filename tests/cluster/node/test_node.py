"""The node itself: registration, heartbeat, GPUs, addresses, and what survives which failure."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from kitlib.cluster.client import STRATEGIC_MERGE_PATCH
from kitlib.cluster.kubelet.main import Kubelet

from .conftest import BOTH_WAYS, FAST, Node, state_of, until

BOOTCAMP = "gcr.io/google-samples/kubernetes-bootcamp:v1"
GPU = "nvidia.com/gpu"


async def ask(address: str, port: int) -> str:
    """Get / over HTTP."""
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def test_a_node_registers_with_what_it_has_and_is_ready(node: Node) -> None:
    found = await node.client.get("nodes", "node-1")
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "KubeletReady")
    assert ready["message"] == "kubelet is posting ready status"
    assert found["status"]["capacity"]["pods"] == "110"
    assert found["status"]["capacity"]["cpu"] == "8"
    assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
    assert all(value for key, value in found["status"]["nodeInfo"].items() if key != "kubeProxyVersion")


async def test_a_node_renews_its_lease(node: Node) -> None:
    async def lease() -> str:
        found = await node.client.get("leases.coordination.k8s.io", "node-1", "kube-node-lease")
        return found["spec"]["renewTime"]

    first = await lease()

    async def renewed() -> bool:
        return await lease() > first

    await until(renewed)


async def test_a_node_that_was_called_lost_says_that_it_is_back(node: Node) -> None:
    lost = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}}
    await node.client.patch("nodes", "node-1", lost, subresource="status", content_type=STRATEGIC_MERGE_PATCH)

    async def back() -> bool:
        found = await node.client.get("nodes", "node-1")
        return next(c for c in found["status"]["conditions"] if c["type"] == "Ready")["status"] == "True"

    await until(back)


async def test_a_restarted_kubelet_adopts_running_pods(node: Node) -> None:
    await node.create("stays", "echo up; sleep 1000", pod={"restartPolicy": "Always"})
    before = await node.ready("stays")
    await node.kubelet.stop()
    await node.start_kubelet()
    after = await node.ready("stays")
    assert state_of(after)["containerID"] == state_of(before)["containerID"]
    assert state_of(after)["restartCount"] == 0
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert (await node.exec("stays", "hostname"))[1] == "stays\n"


async def test_a_restarted_kubelet_learns_of_exits_that_happened_meanwhile(node: Node) -> None:
    await node.create("ends", "echo up; until test -e /shared/flag; do sleep 0.02; done; exit 5", **node.shares())
    await node.logged("ends", "up")
    await node.kubelet.stop()
    (node.home / "shared" / "flag").touch()
    await node.start_kubelet()
    assert state_of(await node.finished("ends"))["state"]["terminated"]["exitCode"] == 5


async def test_a_kubelet_learns_of_exits_that_happen_while_it_starts(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.create("ends", "echo up; until test -e /shared/flag; do sleep 0.02; done; exit 5", **node.shares())
    await node.logged("ends", "up")
    await node.kubelet.stop()
    clean_up = Kubelet._clean_up

    async def after_the_exit(kubelet: Kubelet) -> None:
        async def ended() -> bool:
            return not await kubelet.node.runtime.call("stats")

        (node.home / "shared" / "flag").touch()
        await until(ended)
        await clean_up(kubelet)

    monkeypatch.setattr(Kubelet, "_clean_up", after_the_exit)
    await node.start_kubelet()
    assert state_of(await node.finished("ends"))["state"]["terminated"]["exitCode"] == 5


async def test_a_restarted_kubelet_ends_pods_that_were_deleted_meanwhile(node: Node) -> None:
    await node.create("deleted", "sleep 1000")
    await node.ready("deleted")
    await node.kubelet.stop()
    await node.client.delete("pods", "deleted", "default")
    await node.start_kubelet()
    await node.gone("deleted")
    assert not await node.kubelet.node.runtime.call("stats")


async def test_after_a_power_cut_pods_start_again_or_have_failed(node: Node) -> None:
    await node.create("again", "sleep 1000", pod={"restartPolicy": "Always"})
    await node.create("once", "sleep 1000")
    await node.create("leaving", "sleep 1000")
    for name in ("again", "once", "leaving"):
        await node.ready(name)
    await node.client.delete("pods", "leaving", "default", grace_period_seconds=600)
    await node.power_cycle()
    await node.gone("leaving")
    again = await node.wait("again", lambda p: "running" in state_of(p)["state"] and state_of(p)["restartCount"] == 1)
    assert state_of(again)["lastState"]["terminated"]["exitCode"] == 255
    assert (await node.finished("once"))["status"]["phase"] == "Failed"


@pytest.mark.parametrize("changes", [{"gpus": 2, "gpu_offset": 1}])
async def test_simulated_gpus_say_so_and_are_bound_to_cores_of_their_own(node: Node) -> None:
    found = await node.client.get("nodes", "node-1")
    if node.kubelet.node.devices.real:
        return
    assert found["metadata"]["labels"]["kit/gpu"] == "simulated"
    assert found["status"]["capacity"][GPU] == "2"
    see = "echo $KIT_SIMULATED_GPU [$CUDA_VISIBLE_DEVICES]; taskset -cp $$$$ | sed 's/.*: //'"
    await node.create("gpu", see, resources={"limits": {GPU: "1"}})
    cores = sorted(os.sched_getaffinity(0))
    assert (await node.output("gpu")).split() == ["1", "[]", str(cores[1 % len(cores)])]


@pytest.mark.parametrize("changes", [{"gpus": 1}])
async def test_a_pod_without_a_free_gpu_is_refused_by_the_node(node: Node) -> None:
    await node.create("first", "sleep 1000", resources={"limits": {GPU: "1"}})
    await node.ready("first")
    await node.create("second", "true", resources={"limits": {GPU: "1"}})
    pod = await node.finished("second")
    assert pod["status"]["reason"] == "UnexpectedAdmissionError"
    assert f"devices unavailable for {GPU}. Requested: 1, Available: 0" in pod["status"]["message"]
    await node.client.delete("pods", "first", "default", grace_period_seconds=1)
    await node.gone("first")
    await node.create("third", "true", resources={"limits": {GPU: "1"}})
    assert (await node.finished("third"))["status"]["phase"] == "Succeeded"


async def test_a_pod_that_asks_for_more_cpu_than_is_left_is_refused_by_the_node(node: Node) -> None:
    await node.create("big", "true", resources={"requests": {"cpu": "9"}})
    pod = await node.finished("big")
    assert pod["status"]["reason"] == "OutOfcpu"
    words = "Node didn't have enough resource: cpu, requested: 9000, used: 0, capacity: 8000"
    assert pod["status"]["message"] == f"Pod was rejected: {words}"


async def test_pods_listen_on_the_same_port_at_addresses_of_their_own(node: Node) -> None:
    for name in ("a", "b"):
        await node.create(name, image=BOOTCAMP)
    pods = [await node.ready(name) for name in ("a", "b")]
    for pod in pods:
        await node.logged(pod["metadata"]["name"], "App Started")
        answer = await ask(pod["status"]["podIP"], 8080)
        assert answer.endswith(f"Hello Kubernetes bootcamp! | Running on: {pod['metadata']['name']} | v=1\n")


@pytest.mark.parametrize("changes", [{"cluster": {"loopback": "single"}}])
async def test_with_one_address_ports_are_mapped_and_published(node: Node) -> None:
    for name in ("a", "b"):
        await node.create(name, image=BOOTCAMP, ports=[{"containerPort": 8080}])
        await node.logged(name, "App Started")
        pod = await node.ready(name)
        state = node.kubelet.pods.find("default", name)
        assert pod["status"]["podIP"] == "127.0.0.1"
        assert pod["metadata"]["annotations"]["kit/port-map"] == f'{{"8080": {state.port_map[8080]}}}'
        assert f"Running on: {name}" in await ask("127.0.0.1", state.port_map[8080])
        assert f"Running on: {name}" in (await node.exec(name, "curl", "-s", "localhost:8080"))[1]


async def test_with_namespaces_exec_has_the_environment_of_a_container_and_nothing_of_the_kit(node: Node) -> None:
    if node.kubelet.node.isolation != "namespaces":
        pytest.skip("the kernel allows no namespaces")
    await node.create("p", "sleep 1000", env=[{"name": "A", "value": "b"}])
    pod = await node.ready("p")
    _, text = await node.exec("p", "env")
    names = {line.partition("=")[0] for line in text.splitlines()}
    assert {name for name in names if not name.startswith("KUBERNETES_")} == {"PATH", "HOSTNAME", "HOME", "A"}
    assert await node.exec("p", "hostname", "-i") == (0, pod["status"]["podIP"] + "\n")
    code, text = await node.exec("p", "curl", "-sS", "127.0.0.1:9")
    assert code == 7 and pod["status"]["podIP"] in text, "the stand-in for curl still knows the Pod's address"


@BOTH_WAYS
async def test_exec_runs_in_the_container(node: Node) -> None:
    spec = {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}
    await node.configmap("c", {"a": "1"})
    env = [{"name": "GREETING", "value": "hello"}]
    await node.create("e", "sleep 1000", pod=spec, env=env, volumeMounts=[{"name": "v", "mountPath": "/conf"}])
    await node.ready("e")
    assert await node.exec("e", "sh", "-c", "echo $GREETING $(hostname); exit 3") == (3, "hello e\n")
    assert await node.exec("e", "cat", "/conf/a") == (0, "1")
    assert await node.exec("e", "cat", stdin=b"through") == (0, "through")
    code, output = await node.exec("e", "sh", "-c", "test -t 0 && echo terminal", tty=True)
    assert (code, output) == (0, "terminal\r\n")


async def test_attach_joins_the_containers_own_process(node: Node) -> None:
    await node.create("cat", ["cat"], stdin=True, stdinOnce=True)
    await node.ready("cat")
    process = await node.kubelet.pods.attach("default", "cat", "c", stdin=True, tty=False)
    process.stdin.write(b"hello\n")
    assert await process.stdout.readline() == b"hello\n"
    process.stdin.close()
    assert await process.wait() == 0
    process.kill()
    assert (await node.finished("cat"))["status"]["phase"] == "Succeeded"


async def test_a_readiness_probe_decides_when_a_pod_is_ready(node: Node) -> None:
    probe = {"exec": {"command": ["test", "-e", "/shared/ready"]}, "periodSeconds": 1}
    await node.create("slow", "sleep 1000", readinessProbe=probe, **node.shares())
    assert "Readiness probe failed" in await node.event("slow", "Unhealthy")
    assert not state_of(await node.get("slow"))["ready"]
    (node.home / "shared" / "ready").touch()
    await node.ready("slow")


async def test_a_server_that_comes_up_within_a_second_never_fails_its_readiness_probe(node: Node) -> None:
    probe = {"httpGet": {"path": "/", "port": 80}}
    await node.create("nginx", image="nginx", readinessProbe=probe, livenessProbe=probe)
    await node.ready("nginx")
    assert not [event for event in await node.events("nginx") if event[0] == "Unhealthy"]


async def test_an_http_probe_reaches_the_pod(node: Node) -> None:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    await node.create("web", image=BOOTCAMP, readinessProbe=probe, livenessProbe=probe, startupProbe=probe)
    await node.ready("web")


@BOTH_WAYS
async def test_the_servers_of_other_tutorials_answer(node: Node) -> None:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    command = ["/agnhost", "netexec", "--http-port=8080"]
    image = "registry.k8s.io/e2e-test-images/agnhost:2.53"
    await node.create("hello-node", command, image=image, readinessProbe=probe)
    await node.create("hello", image="gcr.io/google-samples/hello-app:1.0", readinessProbe=probe)
    answers = [await ask((await node.ready(name))["status"]["podIP"], 8080) for name in ("hello-node", "hello")]
    assert "\nNOW: 20" in answers[0] and answers[1].endswith("Hello, world!\nVersion: 1.0.0\nHostname: hello\n")


async def test_an_https_probe_trusts_any_certificate(node: Node) -> None:
    (server,) = (socket for one in node.api._servers for socket in one.sockets)
    host, port = server.getsockname()
    probe = {"httpGet": {"path": "/version", "host": host, "port": port, "scheme": "HTTPS"}}
    await node.create("web", "sleep 1000", readinessProbe=probe)
    await node.ready("web")


async def test_a_failing_liveness_probe_restarts_the_container(node: Node) -> None:
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}
    await node.create("sick", "exec sleep 1000", livenessProbe=probe, pod={"restartPolicy": "Always"})
    await node.wait("sick", lambda p: state_of(p)["restartCount"] >= 1)
    events = await node.events("sick")
    assert ("Killing", "Container c failed liveness probe, will be restarted") in events
    assert any(r == "Unhealthy" and m.endswith("connect: connection refused") for r, m in events)


@pytest.mark.parametrize("changes", [{"cluster": {"settings": replace(FAST, generic_pleg_relist_period=1e4)}}])
async def test_a_quick_command_with_stdin_is_seen_when_it_has_ended(node: Node) -> None:
    phases = set()
    await node.create("quick", "sleep 0.2", stdin=True)

    def ended(pod: dict) -> bool:
        phases.add(pod["status"]["phase"])
        return "Succeeded" in phases

    await node.wait("quick", ended)
    assert "Running" not in phases


async def test_the_stop_of_one_run_does_not_reach_the_next(node: Node) -> None:
    probe = {"exec": {"command": ["test", "-e", "/shared/well"]}, "periodSeconds": 1, "failureThreshold": 1}
    spec = node.shares()
    spec["pod"] = {**spec["pod"], "restartPolicy": "Always"}
    await node.create("once", "exec sleep 1000", livenessProbe=probe, **spec)
    await node.event("once", "Killing")
    (node.home / "shared" / "well").touch()
    await node.wait("once", lambda p: state_of(p)["restartCount"] == 1 and "running" in state_of(p)["state"])
    await asyncio.sleep(0.5)
    assert state_of(await node.get("once"))["state"].keys() == {"running"}


async def test_nginx_serves_its_page_from_a_volume(node: Node) -> None:
    await node.configmap("page", {"index.html": "my page\n"})
    spec = {"volumes": [{"name": "v", "configMap": {"name": "page"}}]}
    mounts = [{"name": "v", "mountPath": "/usr/share/nginx/html"}]
    probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}
    await node.create("nginx", image="nginx", pod=spec, volumeMounts=mounts, readinessProbe=probe)
    await node.ready("nginx")
    assert await node.exec("nginx", "curl", "-s", "localhost") == (0, "my page\n")
    assert "<h1>404 Not Found</h1>" in (await node.exec("nginx", "curl", "-s", "localhost/nosuch"))[1]


async def test_files_of_an_image_are_a_containers_own_to_change(node: Node) -> None:
    for name in ("a", "b"):
        await node.create(name, image="nginx", readinessProbe={"httpGet": {"path": "/", "port": 80}})
        await node.ready(name)
    page = "/usr/share/nginx/html/index.html"
    assert await node.exec("a", "sh", "-c", f"echo mine > {page} && curl -s localhost") == (0, "mine\n")
    assert "Welcome to nginx!" in (await node.exec("b", "cat", page))[1]
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounts = [{"name": "v", "mountPath": "/usr/share/nginx/html"}]
    await node.create("empty", image="nginx", pod=volume, volumeMounts=mounts)
    await node.ready("empty")
    assert await node.exec("empty", "ls", "/usr/share/nginx/html") == (0, "")


async def test_addresses_are_given_back(node: Node) -> None:
    await node.create("a", "sleep 1000")
    ip = (await node.ready("a"))["status"]["podIP"]
    with socket.socket() as sock:
        sock.bind((ip, 0))
    await node.client.delete("pods", "a", "default", grace_period_seconds=1)
    await node.gone("a")
    assert ip not in node.kubelet.node.addresses._used
