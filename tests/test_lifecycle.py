"""What is killed comes back or fails clearly; what is acknowledged stays; what is stopped is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from harness import KIT, EmbeddedCluster, eventually, processes_of, with_argument

from kitlib.cluster import local
from kitlib.cluster.clock import parse_time

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "web", "image": "gcr.io/google-samples/kubernetes-bootcamp:v1"}],
            },
        },
    },
}


def running_pods(cluster: EmbeddedCluster) -> dict[str, str]:
    """Return uid -> node of the Pods that are Ready and not on their way out."""
    ready = {}
    for pod in cluster.get("pods", "-l", "app=web")["items"]:
        conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
        if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
            ready[pod["metadata"]["uid"]] = pod["spec"]["nodeName"]
    return ready


def start_web(cluster: EmbeddedCluster) -> dict[str, str]:
    cluster.apply(DEPLOYMENT)
    return eventually(lambda: (pods := running_pods(cluster)) and len(pods) == 3 and pods)


def assert_nothing_left(cluster: EmbeddedCluster, mark: str, ports: list[tuple[str, int]]) -> None:
    assert not processes_of(mark)
    for address in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)


def listening(cluster: EmbeddedCluster) -> list[tuple[str, int]]:
    found = set()
    for process in processes_of(cluster.cluster_id()):
        found |= {tuple(c.laddr) for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return sorted(found)


def test_the_line_that_up_prints_can_be_pasted_into_a_shell(cluster: EmbeddedCluster) -> None:
    line = cluster.kit("up").stdout.partition("to use it:")[2]
    pasted = subprocess.run(["sh"], input=f'{line}\nprintf %s "$KUBECONFIG"', capture_output=True, text=True, env={})
    assert pasted.stdout == cluster.env["KUBECONFIG"]


def test_a_low_limit_on_open_files_is_lifted_for_every_process(own_cluster: EmbeddedCluster) -> None:
    command = ["bash", "-c", 'ulimit -Sn 64; exec "$@"', "bash", *KIT, "up", "--nodes", "1"]
    subprocess.run(command, env=own_cluster.env, stdout=subprocess.DEVNULL, check=True)
    found = processes_of(own_cluster.cluster_id())
    assert len(found) == 4 and all(process.rlimit(psutil.RLIMIT_NOFILE)[0] > 64 for process in found)


def test_down_leaves_no_process_no_port_and_no_file(own_cluster: EmbeddedCluster) -> None:
    before = set(Path("/tmp").iterdir()) | set(Path("/dev/shm").iterdir())
    own_cluster.kit("up")
    start_web(own_cluster)
    mark, ports = own_cluster.cluster_id(), listening(own_cluster)
    assert len(processes_of(mark)) >= 8 and len(ports) >= 7
    own_cluster.kit("down", "--purge")
    assert_nothing_left(own_cluster, mark, ports)
    assert not own_cluster.home.exists()
    mine = {path for path in set(Path("/tmp").iterdir()) | set(Path("/dev/shm").iterdir()) if mark in path.name}
    assert not mine - before


def test_a_killed_control_plane_comes_back_with_every_acknowledged_write(own_cluster: EmbeddedCluster) -> None:
    (own_cluster.home / "logs").mkdir()
    (own_cluster.home / "logs" / "supervisor.log").symlink_to("/dev/full")  # who restarts it can't even say so
    own_cluster.kit("up")
    pods = start_web(own_cluster)
    for round_number in range(3):
        written = [f"w{round_number}-{n}" for n in range(5)]
        for name in written:
            own_cluster.kubectl("create", "configmap", name)
        os.kill(own_cluster.pid("control-plane"), signal.SIGKILL)
        names = [item["metadata"]["name"] for item in own_cluster.get("configmaps")["items"]]
        assert set(written) <= set(names)
    assert eventually(lambda: running_pods(own_cluster).keys() == pods.keys()), "running Pods are adopted"


def test_a_crashed_kubelet_comes_back_and_adopts_its_running_pods(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "1")
    pods = start_web(own_cluster)
    containers = {p.pid for p in processes_of(own_cluster.cluster_id())}
    own_cluster.kit("node", "stop", "node-1")
    own_cluster.kit("node", "start", "node-1")
    eventually(lambda: all(node["ready"] for node in own_cluster.status()["nodes"]))
    assert eventually(lambda: running_pods(own_cluster).keys() == pods.keys())
    assert len(containers & {p.pid for p in processes_of(own_cluster.cluster_id())}) >= 5


def test_a_killed_node_loses_its_pods_which_come_back_elsewhere(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up")
    pods = start_web(own_cluster)
    victim = next(iter(pods.values()))
    os.kill(own_cluster.pid(f"kubelet-{victim}"), signal.SIGKILL)
    eventually(lambda: not any(n["ready"] for n in own_cluster.status()["nodes"] if n["name"] == victim))
    moved = eventually(lambda: len(now := running_pods(own_cluster)) == 3 and victim not in now.values() and now)
    assert moved
    own_cluster.kit("node", "start", victim)
    eventually(lambda: all(node["ready"] for node in own_cluster.status()["nodes"]))
    eventually(lambda: len(own_cluster.get("pods")["items"]) == 3)


def test_a_killed_supervisor_takes_everything_with_it_and_up_brings_it_back(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up")
    before = _pids(own_cluster)
    start_web(own_cluster)
    supervisor = psutil.Process(before["supervisor"])
    eventually(lambda: "lifelines" in supervisor.cmdline()[-1])  # it has executed itself again
    assert _pids(own_cluster) == before
    mark = own_cluster.cluster_id()
    os.kill(own_cluster.pid("supervisor"), signal.SIGKILL)
    eventually(lambda: not processes_of(mark))
    assert own_cluster.status()["engine"] is None
    own_cluster.kit("up")
    eventually(lambda: len(running_pods(own_cluster)) == 3)


def up_with_forks(cluster: EmbeddedCluster, script: str, sleeps: int) -> str:
    """Start one node with a Pod whose script makes so many `sleep`s; return the mark of the cluster's processes."""
    cluster.kit("up", "--nodes", "1")
    spec = {"containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", script]}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "forks"}, "spec": spec})
    mark = cluster.cluster_id()
    eventually(lambda: sum("sleep" in p.name() for p in processes_of(mark)) == sleeps)
    return mark


def test_processes_that_left_their_container_die_with_a_killed_supervisor(own_cluster: EmbeddedCluster) -> None:
    mark = up_with_forks(own_cluster, "for i in 1 2 3 4 5 6; do setsid sleep 7777 & done; exec sleep 7777", sleeps=7)
    os.kill(own_cluster.pid("supervisor"), signal.SIGKILL)
    assert eventually(lambda: not processes_of(mark))


def test_nothing_of_a_node_outlives_its_killed_container_runtime(own_cluster: EmbeddedCluster) -> None:
    mark = up_with_forks(own_cluster, "setsid sh -c 'sleep 7777 & sleep 7777' & sleep 7777; exit", sleeps=3)
    os.kill(own_cluster.pid("runtime-node-1"), signal.SIGKILL)
    assert eventually(lambda: {p.pid for p in processes_of(mark)} == set(_pids(own_cluster).values()))
    assert _pids(own_cluster).keys() == {"supervisor", "control-plane"}


def _pids(cluster: EmbeddedCluster) -> dict[str, int]:
    return {process["name"]: process["pid"] for process in cluster.status()["processes"]}


def test_a_node_started_right_after_it_was_stopped_or_killed_comes_back(
    own_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cluster.kit("up", "--nodes", "1")
    monkeypatch.setenv("KIT_HOME", str(own_cluster.home))
    for action in ("kill", "stop"):
        before = own_cluster.pid("kubelet-node-1")
        local.node(action, "node-1")
        local.node("start", "node-1")
        eventually(lambda: _pids(own_cluster).get("kubelet-node-1", before) != before)  # noqa: B023
        eventually(lambda: own_cluster.status()["nodes"][0]["ready"])


def test_everything_killed_at_once_is_swept_by_down(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "2")
    start_web(own_cluster)
    mark, ports = own_cluster.cluster_id(), listening(own_cluster)
    time_of_its_own = f"7777.{own_cluster.pid('supervisor')}"
    command = ["kubectl", "exec", "deploy/web", "--", "sh", "-c", f"sleep {time_of_its_own}; exit"]
    client = subprocess.Popen(command, env=own_cluster.env, stderr=subprocess.DEVNULL)
    eventually(lambda: with_argument(time_of_its_own))
    for process in own_cluster.status()["processes"]:
        os.kill(process["pid"], signal.SIGKILL)
    client.wait()
    own_cluster.kit("down")
    assert_nothing_left(own_cluster, mark, ports)
    assert not with_argument(time_of_its_own)


def test_a_cluster_whose_folder_was_deleted_is_ended_by_down(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "1")
    mark = own_cluster.cluster_id()
    shutil.rmtree(own_cluster.home)
    assert "stray processes" in own_cluster.kit("down").stdout
    assert not processes_of(mark)


def test_a_killed_kit_command_takes_the_cluster_that_it_started(own_cluster: EmbeddedCluster) -> None:
    command = subprocess.Popen(
        [*KIT, "train", "--steps", "100000", "--out", str(own_cluster.home / "out")],
        env=own_cluster.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: any("worker.py" in " ".join(p.cmdline()) for p in processes_of(own_cluster.cluster_id())))
    mark = own_cluster.cluster_id()
    command.kill()
    command.wait()
    eventually(lambda: not processes_of(mark))


def test_a_killed_notebook_kernel_leaves_the_cluster_in_order(own_cluster: EmbeddedCluster) -> None:
    script = "import kitlib, time; kitlib.connect('01'); print('connected', flush=True); time.sleep(600)"
    kernel = subprocess.Popen([sys.executable, "-c", script], env=own_cluster.env, stdout=subprocess.PIPE, text=True)
    assert kernel.stdout is not None
    assert any("connected" in line for line in kernel.stdout)
    kernel.kill()
    kernel.wait()
    own_cluster.kubectl("get", "nodes")
    mark, ports = own_cluster.cluster_id(), listening(own_cluster)
    own_cluster.kit("down")
    assert_nothing_left(own_cluster, mark, ports)


def test_a_stopped_cluster_starts_again_where_it_was(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "2")
    start_web(own_cluster)
    server = own_cluster.status()["server"]
    own_cluster.kit("down")
    own_cluster.kit("up", "--nodes", "3")
    assert own_cluster.status()["server"] == server
    eventually(lambda: len(running_pods(own_cluster)) == 3)
    own_cluster.kit("down")
    own_cluster.kit("up", "--nodes", "1")
    assert [n["metadata"]["name"] for n in own_cluster.get("nodes")["items"]] == ["node-1"]
    eventually(lambda: set(running_pods(own_cluster).values()) == {"node-1"} and len(running_pods(own_cluster)) == 3)


def test_up_waits_for_the_nodes_themselves_not_for_what_they_said_before(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "2")
    own_cluster.kit("down")
    since = time.time()
    own_cluster.kit("up", "--nodes", "2")
    for node in own_cluster.get("nodes")["items"]:
        ready = next(item for item in node["status"]["conditions"] if item["type"] == "Ready")
        assert parse_time(ready["lastHeartbeatTime"]) >= int(since)


def test_up_that_fails_or_is_interrupted_leaves_nothing_running(
    own_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_HOME", str(own_cluster.home))
    for error in (KeyboardInterrupt, OSError):
        with monkeypatch.context() as patched, pytest.raises(error):
            patched.setattr(local, "_wait_ready", lambda *_: _raise(error))  # noqa: B023
            local.up(nodes=1)
        assert not processes_of(own_cluster.cluster_id())
    assert local.up(nodes=1)["started"]


def _raise(error: type[BaseException]) -> None:
    raise error


def test_two_clusters_live_side_by_side(cluster: EmbeddedCluster, own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "1")
    own_cluster.apply(DEPLOYMENT)
    eventually(lambda: len(running_pods(own_cluster)) == 3)
    assert not cluster.get("deployments")["items"]
    own_cluster.kit("down", "--purge")
    assert cluster.status()["engine"] == "embedded"


def test_hollow_nodes_run_nothing_and_say_so(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "1", "--hollow", "20")
    assert len(own_cluster.get("nodes")["items"]) == 21
    own_cluster.apply({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 40}})
    pods = eventually(lambda: len(now := running_pods(own_cluster)) == 40 and now)
    assert len(set(pods.values())) > 15
    events = json.dumps(own_cluster.get("events"))
    assert "runs nothing" in events or "nothing runs" in events


def test_what_many_pods_cost_is_measured_on_a_cluster_of_its_own(own_cluster: EmbeddedCluster) -> None:
    seen = json.loads(own_cluster.kit("bench", "scale", "--pods", "10", "--pods", "30", "--hollow", "2").stdout)
    assert [numbers["pods"] for numbers in seen] == [10, 30]
    assert all(value > 0 for numbers in seen for value in numbers.values())
    assert own_cluster.status()["engine"] is None
