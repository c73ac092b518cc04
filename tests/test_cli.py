"""Bad input to the `kit` command: one line that names the mend, exit code 2, nothing half-started."""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import KIT, EmbeddedCluster, eventually, processes_of

from kitlib import bench
from kitlib.errors import KitError
from kitlib.home import kit_home


@pytest.fixture(scope="module")
def nothing_started(make_home: Callable[[], EmbeddedCluster]) -> Iterator[EmbeddedCluster]:
    """A KIT_HOME for commands that must be refused; at the end nothing runs in it."""
    refusing = make_home()
    yield refusing
    assert refusing.status()["engine"] is None


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("kit: ")
    for word in words:
        assert word in lines[0]
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "--nodes", "0"], ["--nodes 0", "1 to"]),
        (["up", "--nodes", "-1"], ["--nodes -1"]),
        (["up", "--nodes", "x"], ["--nodes", "integer"]),
        (["up", "--gpus", "-2"], ["--gpus -2"]),
        (["up", "--hollow", "-1"], ["--hollow -1"]),
        (["up", "--port", "70000"], ["--port 70000"]),
        (["nosuch"], ["nosuch", "kit --help"]),
        (["train", "--preset", "huge"], ["huge", "tiny"]),
        (["train", "--workers", "0"], ["workers"]),
        (["train", "--workers", "-1"], ["workers"]),
        (["train", "--steps", "0"], ["steps"]),
        (["study", "--worlds", "1,two"], ["--worlds 1,two", "such as 1,2"]),
        (["train", "--cpu", "abc"], ["cpu is 'abc'", "such as '500m'"]),
        (["train", "--out", "/dev/null/out"], ["--out /dev/null/out: Not a directory"]),
        (["study", "--worlds", "0"], ["worlds of at least 1"]),
        (["study", "--worlds", "1,0"], ["worlds of at least 1"]),
        (["study", "--repeats", "0"], ["repeats of at least 1"]),
        (["study", "--out", "/dev/null/out"], ["--out /dev/null/out: Not a directory"]),
        (["run", "77"], ["77"]),
        (["run", ""], ["''"]),
        (["bench", "cluster", "--repeats", "0"], ["--repeats"]),
        (["bench", "train", "--steps", "1"], ["--steps"]),
        (["bench", "api", "--kubeconfig", "/no/such"], ["/no/such"]),
        (["kubeconfig"], ["kit up"]),
        (["node", "kill", "node-1"], ["kit up"]),
    ],
)
def test_bad_arguments_are_one_line_and_start_nothing(
    nothing_started: EmbeddedCluster, arguments: list[str], words: list[str]
) -> None:
    assert_one_line(nothing_started.kit(*arguments, code=2), *words)


def test_in_a_folder_that_was_deleted_it_says_so(tmp_path: Path) -> None:
    script = f'mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec "$@"'
    done = subprocess.run(["/bin/sh", "-c", script, "sh", *KIT, "status"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert_one_line(done, "the folder you are in", "`cd`")


@pytest.mark.parametrize("command", ["doctor", "clean", "train", "run"])
@pytest.mark.parametrize("choice", ["minikube", "context:"])
def test_a_choice_that_is_none_is_refused_by_every_command(
    nothing_started: EmbeddedCluster, command: str, choice: str
) -> None:
    asked = EmbeddedCluster(nothing_started.home, {**nothing_started.env, "KIT_CLUSTER": choice})
    assert_one_line(asked.kit(command, code=2), choice, "context:NAME")


def test_on_windows_itself_the_way_is_told() -> None:
    unknown = ("fcntl", "termios", "pwd", "grp", "resource", "pty")
    code = f"import sys; sys.platform = 'win32'; sys.modules.update(dict.fromkeys({unknown}))\n"
    code += "from kitlib.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert_one_line(done, "WSL2")


def test_an_interrupt_in_a_finalizer_is_not_lost() -> None:
    program = """
import os, signal, time
from kitlib import cli
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
def command(**_):
    Finalized()
    for _ in range(60):
        time.sleep(0.1)
cli.kit.main = command
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_output_that_nobody_reads_is_no_error(nothing_started: EmbeddedCluster) -> None:
    command = f"{sys.executable} -m kitlib status | true"
    done = subprocess.run(["bash", "-c", command], env=nothing_started.env, capture_output=True, text=True)
    assert done.stderr == ""


def test_results_that_cannot_be_written_are_named(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cluster.kit("run", "00", "--out", str(tmp_path / "file" / "out"), code=2)
    assert_one_line(done, str(tmp_path / "file"), "Not a directory")


def test_a_busy_port_is_named(own_cluster: EmbeddedCluster) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        assert_one_line(own_cluster.kit("up", "--port", port, code=2), port, "--port")
    assert own_cluster.status()["engine"] is None


def test_a_kit_home_that_cannot_be_written_is_named(own_cluster: EmbeddedCluster, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    own_cluster.env["KIT_HOME"] = str(file / "home")
    assert_one_line(own_cluster.kit("up", code=2), str(file), "KIT_HOME")


def test_a_full_disk_is_named(own_cluster: EmbeddedCluster) -> None:
    command = ["bash", "-c", 'ulimit -f 512; exec "$@"', "bash", *KIT, "up"]
    done = subprocess.run(command, env=own_cluster.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert_one_line(done, "File too large", "free some space")
    assert own_cluster.status()["engine"] is None


def test_a_user_without_a_home_is_told_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "KIT_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a user id without an entry
    with pytest.raises(KitError, match="set KIT_HOME"):
        kit_home()


@pytest.mark.parametrize("name", ["state.db", "cluster.json"])
def test_a_corrupt_state_file_is_named_and_can_be_forgotten(own_cluster: EmbeddedCluster, name: str) -> None:
    own_cluster.kit("up", "--nodes", "1")
    mark = own_cluster.cluster_id()
    own_cluster.kit("down")
    for path in own_cluster.home.glob(f"{name}*"):
        path.write_bytes(b"this is no state file" * 4096)
    assert_one_line(own_cluster.kit("up", code=2), name, "kit down --purge")
    assert not processes_of(mark)
    own_cluster.kit("down", "--purge")
    own_cluster.kit("up", "--nodes", "1")


def test_a_second_up_finds_the_first_and_another_shape_is_refused(own_cluster: EmbeddedCluster) -> None:
    own_cluster.kit("up", "--nodes", "2")
    pid = own_cluster.pid("supervisor")
    assert "already running" in own_cluster.kit("up").stdout
    assert_one_line(own_cluster.kit("up", "--nodes", "3", code=2), "2 nodes", "kit down")
    assert own_cluster.pid("supervisor") == pid


def test_two_ups_at_once_start_one_cluster(own_cluster: EmbeddedCluster) -> None:
    from harness import KIT

    pair = [
        subprocess.Popen([*KIT, "up", "--nodes", "1", "--json"], env=own_cluster.env, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in pair]
    assert sorted(answer["started"] for answer in answers) == [False, True]
    assert answers[0]["server"] == answers[1]["server"]


def test_status_follows_the_contract(cluster: EmbeddedCluster) -> None:
    state = cluster.status()
    assert state.keys() == {"engine", "version", "server", "kubeconfig", "nodes", "processes", "memory_mb"}
    assert state["engine"] == "embedded"
    assert state["nodes"] == [
        {"name": f"node-{n}", "ready": True, "gpus": 1, "simulated": state["nodes"][0]["simulated"]} for n in (1, 2, 3)
    ]
    assert all(process.keys() == {"name", "pid", "pss_mb"} for process in state["processes"])
    assert state["memory_mb"] == pytest.approx(sum(p["pss_mb"] for p in state["processes"]), abs=0.1)


def test_an_unknown_node_is_named(cluster: EmbeddedCluster) -> None:
    assert_one_line(cluster.kit("node", "kill", "node-9", code=2), "node-9", "node-1")


def test_state_and_kubeconfig_are_readable_by_their_owner_alone(cluster: EmbeddedCluster) -> None:
    assert stat.S_IMODE(cluster.home.stat().st_mode) == 0o700
    for path in [cluster.home / "kubeconfig", *(cluster.home / "pki").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for folder in ("pki", "logs", "nodes"):
        assert stat.S_IMODE((cluster.home / folder).stat().st_mode) == 0o700


def test_every_socket_of_the_cluster_is_on_loopback_only(cluster: EmbeddedCluster) -> None:
    import psutil

    sockets = [c for p in cluster.status()["processes"] for c in psutil.Process(p["pid"]).net_connections("inet")]
    listening = [c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN]
    assert listening
    assert all(address.startswith("127.") for address in listening), listening


def test_the_users_own_kubeconfig_is_touched_on_request_only(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    cluster.kit("status")
    target = tmp_path / ".kube" / "config"
    merged = EmbeddedCluster(cluster.home, {**cluster.env, "HOME": str(tmp_path)})
    merged.kit("kubeconfig")
    assert not target.exists()
    target.parent.mkdir()
    target.write_text(json.dumps({"current-context": "work", "contexts": [{"name": "work", "context": {}}]}))
    merged.kit("kubeconfig", "--merge")
    merged.kit("kubeconfig", "--merge")
    env = {**os.environ, "KUBECONFIG": str(target)}
    names = subprocess.run(["kubectl", "config", "get-contexts", "-o", "name"], env=env, capture_output=True, text=True)
    assert names.stdout.split() == ["kit", "work"]
    current = subprocess.run(["kubectl", "config", "current-context"], env=env, capture_output=True, text=True)
    assert current.stdout.strip() == "work"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_doctor_finds_nothing_wrong_with_a_running_cluster(cluster: EmbeddedCluster) -> None:
    findings = json.loads(cluster.kit("doctor", "--json").stdout)
    assert {finding["subject"] for finding in findings} >= {"Python", "kubectl", "memory", "GPU", "cluster"}
    assert all(finding["level"] in ("ok", "warn") for finding in findings)


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 3\n", "no program"])
def test_doctor_names_a_kubectl_that_does_not_work(
    nothing_started: EmbeddedCluster, tmp_path: Path, program: str
) -> None:
    broken = tmp_path / "kubectl"
    broken.write_text(program)
    broken.chmod(0o755)
    asked = EmbeddedCluster(nothing_started.home, {**nothing_started.env, "KIT_KUBECTL": str(broken)})
    findings = json.loads(asked.kit("doctor", "--json", code=2).stdout)
    (kubectl,) = [finding for finding in findings if finding["subject"] == "kubectl"]
    assert kubectl["level"] == "fail"
    assert str(broken) in kubectl["text"]


def test_clean_removes_what_is_listed_but_asks_first(cluster: EmbeddedCluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "app.kubernetes.io/part-of=kit")
    folders = [cluster.home / "train" / space / "run.abc" for space in ("default", namespace)]
    for folder in folders:  # what is left of a run whose Job was deleted by kubectl
        folder.mkdir(parents=True)
    asked = cluster.kit("clean", code=2)
    assert f"namespace {namespace}" in asked.stdout and "checkpoints default/run.abc" in asked.stdout
    assert "--yes" in asked.stderr
    assert "removed" in cluster.kit("clean", "--yes").stdout
    assert not any(folder.exists() for folder in folders)
    assert eventually(lambda: cluster.kubectl("get", "namespace", namespace, code=None).returncode)


def test_a_measured_cluster_is_as_it_was_before(cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OBJECTS", 10)
    before = cluster.kubectl("get", "namespaces", "-o", "name").stdout
    numbers = bench.measure_api(str(cluster.home / "kubeconfig"), pods=4)
    assert all(value > 0 for value in numbers.values()), numbers
    assert cluster.kubectl("get", "namespaces", "-o", "name").stdout == before


def test_a_kubeconfig_that_points_nowhere_is_named(nothing_started: EmbeddedCluster, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(json.dumps({"contexts": [{"name": "somewhere", "context": {}}]}))
    env = {**nothing_started.env, "KUBECONFIG": str(config), "KIT_CLUSTER": "context:nowhere"}
    asked = EmbeddedCluster(nothing_started.home, env)
    assert_one_line(asked.kit("train", code=2), "nowhere", "somewhere")
