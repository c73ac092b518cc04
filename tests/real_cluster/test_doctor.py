"""Every finding of `kit doctor --context NAME`: what is seen, and the mend, on clusters that exist on paper only."""

from __future__ import annotations

import copy
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import EmbeddedCluster
from real_cluster.conftest import Learner
from real_cluster.door import VERSION, Door

from kitlib import preflight

NODES, SETS, CLASSES = "/api/v1/nodes", "/apis/apps/v1/daemonsets", "/apis/storage.k8s.io/v1/storageclasses"
SPACE = "/api/v1/namespaces/lab"
SPACES, JOBS = "/api/v1/namespaces", "/apis/batch/v1/jobs"

Doctor = Callable[..., dict[str, tuple[str, str]]]


def node(name: str = "n", gpus: int = 0, ready: str = "True", arch: str = "amd64", **more: Any) -> dict[str, Any]:
    info = dict.fromkeys(
        ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion",
         "kubeletVersion", "kubeProxyVersion", "operatingSystem"), "x",
    )  # fmt: skip
    status = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"nvidia.com/gpu": str(gpus)},
              "nodeInfo": {**info, "architecture": arch}}  # fmt: skip
    return {"metadata": {"name": name, "labels": more.get("labels", {})}, "spec": {"taints": more.get("taints", [])},
            "status": status}  # fmt: skip


def healthy() -> dict[str, Any]:
    """Return what a cluster without a fault answers."""
    l4 = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/cuda.driver.major": "580"}
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "/version/": VERSION,
        NODES: [node("cpu"), node("gpu", 4, labels=l4, taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}])],
        SETS: [], SPACES: [], JOBS: [],
        CLASSES: [{"metadata": {"name": "fast", "annotations": default}, "provisioner": "x"}],
        SPACE: {"metadata": {"name": "lab", "labels": {}}},
        f"{SPACE}/resourcequotas": [], f"{SPACE}/limitranges": [],
    }  # fmt: skip


class Paper(BaseHTTPRequestHandler):
    """Answers from a dict; an int is a status code; what is not there is forbidden."""

    answers: dict[str, Any]
    denied: set[str]

    def _send(self, code: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        found = self.answers.get(self.path.partition("?")[0], 403)
        if isinstance(found, int):
            return self._send(found, {"kind": "Status", "status": "Failure", "message": "no", "code": found})
        body = {"metadata": {"resourceVersion": "1"}, "items": found} if isinstance(found, list) else found
        self._send(200, body)

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wish = review["spec"]["resourceAttributes"]
        allowed = f"{wish['verb']} {wish['resource']}{'/' if wish['subresource'] else ''}{wish['subresource']}"
        self._send(201, {**review, "status": {"allowed": allowed not in self.denied}})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doctor]:
    """Ask the doctor about a healthy cluster with some answers changed; returns {subject: (level, text)}."""
    servers: list[ThreadingHTTPServer] = []

    def ask(*denied: str, **changes: Any) -> dict[str, tuple[str, str]]:
        answers = {**healthy(), **changes.get("answers", {})}
        handler = type("Handler", (Paper,), {"answers": answers, "denied": set(denied)})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        config = {
            "current-context": "lab", "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{servers[-1].server_port}"}}],
            "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
        }  # fmt: skip
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KIT_HOME", str(tmp_path / "kit"))
        monkeypatch.setenv("KIT_LEARNER", "Ada")
        monkeypatch.setattr(sys.modules["kitlib.connect"], "_outer", str(tmp_path / "config"))
        return {subject: (level, text) for level, subject, text in preflight.check_context("lab")}

    yield ask
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_healthy_cluster_is_ok_in_every_line(doctor: Doctor) -> None:
    found = doctor()
    assert {level for level, _ in found.values()} == {"ok"}, found
    assert found["version"][1] == "v1.36.2" and found["nodes"][1] == "2 of 2 Ready"
    assert found["GPUs"][1] == "4 x NVIDIA-L4"
    assert preflight.IMAGE in found["training image"][1] and "image=" in found["training image"][1]
    assert "default storage class fast" in found["storage"][1]


OLD = {**VERSION, "minor": "27+", "gitVersion": "v1.27.3"}
QUOTA = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "2"}}, "status": {"used": {"pods": "1"}}}
LIMITS = {"metadata": {"name": "cap"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}}
STRICT = {"metadata": {"name": "lab", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
PLUGIN = {"metadata": {"name": "nvidia-device-plugin"}, "spec": {"selector": {}, "template": {}}}
OLD_DRIVER = {"nvidia.com/gpu.product": "T4", "nvidia.com/cuda.driver-version.major": "535"}
SPOT = [{"key": "spot", "value": "yes", "effect": "NoSchedule"}]
OURS = [{"metadata": {"name": f"kit-02-{who}", "labels": {"kit/user": who}}} for who in ("ada", "bob")]


@pytest.mark.parametrize(
    ("answers", "subject", "level", "words"),
    [
        ({"/version/": OLD}, "version", "fail", ["v1.27.3", "1.28 or newer", "upgrade"]),
        ({"/version/": 401}, "cluster", "fail", ["401", "Log in"]),
        ({"/version/": 403}, "cluster", "fail", ["lacks a right"]),
        ({NODES: [node(ready="Unknown")]}, "nodes", "fail", ["0 of 1 Ready", "mend or add"]),
        ({NODES: [node()]}, "GPUs", "warn", ["none", "trains on CPUs", "NVIDIA device plugin"]),
        ({NODES: [node()], SETS: [PLUGIN]}, "GPUs", "warn", ["no node offers a GPU", "logs"]),
        ({NODES: [node(gpus=1)]}, "GPU labels", "warn", ["nvidia.com/gpu.product", "Feature Discovery"]),
        ({NODES: [node(gpus=1, labels=OLD_DRIVER)]}, "GPU driver", "warn", ["535", "580", "image="]),
        ({NODES: [node(gpus=1, taints=SPOT)]}, "GPU taints", "warn", ["tolerations=['spot=yes:NoSchedule']"]),
        ({NODES: [node(arch="arm64")]}, "images", "warn", ["arm64", "amd64"]),
        ({CLASSES: []}, "storage", "warn", ["no default storage class", "PersistentVolumeClaim of your own"]),
        ({f"{SPACE}/resourcequotas": [QUOTA]}, "quota", "warn", ["small in lab: pods 1 of 2", "free some"]),
        ({f"{SPACE}/limitranges": [LIMITS]}, "limits", "warn", ["Container max memory=1Gi", "memory="]),
        ({SPACE: STRICT}, "Pod Security", "warn", ["enforces restricted", "baseline"]),
        ({SPACES: OURS}, "left over", "warn", ["namespace kit-02-ada: `kit clean --context lab"]),
        ({NODES: 403}, "nodes", "warn", ["could not be looked at (403"]),
        ({CLASSES: 403}, "storage", "warn", ["could not be looked at (403"]),
        ({SPACE: 403}, "pod security", "warn", ["could not be looked at (403"]),
    ],
)
def test_a_fault_is_one_line_with_its_mend(
    doctor: Doctor, answers: dict[str, Any], subject: str, level: str, words: list[str]
) -> None:
    found = doctor(answers=copy.deepcopy(answers))
    assert found[subject][0] == level, found
    for word in words:
        assert word in found[subject][1]
    assert not any("\n" in text for _, text in found.values())


@pytest.mark.parametrize(
    ("right", "level", "words"),
    [
        ("create namespaces", "warn", "the course stays in lab"),
        ("list nodes", "warn", "KIT_USABLE_GPUS"),
        ("create deployments", "fail", "you may not create deployments in lab: ask for the role `edit`"),
        ("get pods/log", "fail", "you may not get pods/log in lab"),
        ("delete jobs", "fail", "you may not delete jobs in lab"),
    ],
)
def test_a_missing_right_is_named(doctor: Doctor, right: str, level: str, words: str) -> None:
    found = doctor(right)["rights"]
    assert found[0] == level and words in found[1]


def test_a_cluster_that_is_not_there_is_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "users": [{"name": "u", "user": {}}], "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys.modules["kitlib.connect"], "_outer", str(tmp_path / "config"))
    (line,) = preflight.check_context("lab")
    assert line[:2] == ("fail", "cluster") and "No answer from https://127.0.0.1:1" in line[2]
    (line,) = preflight.check_context("lap")
    assert "no context 'lap'; your kubeconfig has: lab" in line[2]


def test_the_command_follows_kit_cluster_and_judges_a_narrow_account(narrow_door: Door, learner: Learner) -> None:
    """An account with one namespace has warnings, each with its mend, and no failure: the course can run."""
    done = learner(narrow_door).kit("doctor", code=0)
    assert "warn  rights: you may not create namespaces: the course stays in team-a" in done.stdout
    assert "warn  rights: you may not list nodes" in done.stdout and "fail" not in done.stdout
    found = json.loads(learner(narrow_door).kit("doctor", "--context", "school", "--json").stdout)
    assert {"level", "subject", "text"} == set(found[0])


def test_the_command_names_a_context_that_does_not_exist(door: Door, learner: Learner) -> None:
    who: EmbeddedCluster = learner(door)
    assert (
        "no context 'nowhere'; your kubeconfig has: school" in who.kit("doctor", "--context", "nowhere", code=2).stdout
    )
    assert "no context 'nowhere'" in who.kit("clean", "--context", "nowhere", code=2).stderr
