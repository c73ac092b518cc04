"""What a run sends is valid on old and new clusters, passes their strictest level, and assumes nothing of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from kitlib import train
from kitlib.errors import KitError
from kitlib.train import job as jobs

EVERYTHING = {
    "image": "registry.example:5000/team/torch@sha256:" + "0" * 64,
    "pull_secret": "registry",
    "node_selector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
    "tolerations": ["gpu=true:NoSchedule", "spot", "cloud.example/busy=:NoExecute"],
    "env": {"NCCL_SOCKET_IFNAME": "eth0", "NCCL_DEBUG": "INFO"},
    "cpu": "8",
    "memory": "64Gi",
}
SHAPES: list[dict[str, Any]] = [
    {"workers": 1, "gpus_per_worker": 0},
    {"workers": 2, "gpus_per_worker": 1, "checkpoints": "pvc:claim"},
    {"workers": 16, "gpus_per_worker": 8, "preset": "gpt2-124m", "checkpoints": "pvc:claim", **EVERYTHING},
]
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def manifests(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of a run on a cluster that is not the embedded one."""
    return jobs.manifests(jobs.place_checkpoints(train.describe(name="one", **options), False, "x"))


def pod(options: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifests(options)[0]["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("version", ["1.30.0", "latest"])
@pytest.mark.parametrize("options", SHAPES)
def test_every_object_is_valid_to_the_last_field(
    options: dict[str, Any], version: str, kubernetes_validate: ModuleType
) -> None:
    if version == "latest":
        version = kubernetes_validate.latest_version()
    for manifest in manifests(options):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("options", SHAPES)
def test_the_pods_pass_the_restricted_level(options: dict[str, Any]) -> None:
    """The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/, level restricted."""
    spec = pod(options)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all((set(volume) - {"name"}) <= VOLUMES for volume in spec["volumes"])
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] != 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in context and "procMount" not in context
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize("options", SHAPES)
def test_nothing_is_assumed_that_only_the_embedded_cluster_gives(options: dict[str, Any]) -> None:
    text = yaml.safe_dump_all([one for one in manifests(options) if one["kind"] != "ConfigMap"])
    for word in ("127.0", "localhost", "hostPath", str(Path.home()), "kit/gpu", sys.executable):
        assert word not in text


@pytest.mark.parametrize("options", SHAPES)
def test_everything_carries_the_kits_labels_and_a_finished_job_goes_away(options: dict[str, Any]) -> None:
    job, *others = manifests(options)
    for labels in [job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]] + [
        one["metadata"]["labels"] for one in others
    ]:
        assert labels["app.kubernetes.io/part-of"] == "kit" and labels["kit/run"] == "one"
    assert job["spec"]["ttlSecondsAfterFinished"] > 0


def test_the_place_of_the_pods_is_the_users_choice() -> None:
    spec = pod(SHAPES[2])
    assert spec["imagePullSecrets"] == [{"name": "registry"}] and spec["nodeSelector"] == EVERYTHING["node_selector"]
    assert spec["tolerations"] == [
        {"key": jobs.GPU, "operator": "Exists", "effect": "NoSchedule"},
        {"key": "gpu", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists"},
        {"key": "cloud.example/busy", "operator": "Equal", "value": "", "effect": "NoExecute"},
    ]
    env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert env["NCCL_SOCKET_IFNAME"] == "eth0" and env["NCCL_DEBUG"] == "INFO"
    assert spec["containers"][0]["image"] == EVERYTHING["image"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tolerations": ["a b"]}, "write KEY, KEY=VALUE or KEY=VALUE:NoSchedule"),
        ({"tolerations": [{"key": "a"}]}, "tolerations has"),
        ({"node_selector": {"zone": 1}}, "must be a dict of strings"),
        ({"node_selector": "zone=a"}, "must be a dict of strings"),
        ({"env": {"MASTER_ADDR": "x"}}, "which the run sets itself"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(KitError) as raised:
        train.describe(**options)
    assert words in str(raised.value)


RANKS = """
import os, torch.distributed as dist
dist.init_process_group("gloo")
parts = [None] * dist.get_world_size()
dist.all_gather_object(parts, (dist.get_rank(), int(os.environ["LOCAL_RANK"])))
print("ranks", parts, flush=True)
dist.destroy_process_group()
"""


def test_pods_with_two_gpus_each_meet_by_torchrun(tmp_path: Path) -> None:
    """Two Pods, four ranks: what a Service's variables say is enough, whatever addresses a cluster gives."""
    for name, text in (("worker.py", RANKS), ("workers", "2"), ("launch.py", (jobs.SCRIPTS / "launch.py").read_text())):
        (tmp_path / name).write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"KIT_SERVICE": "one", "KIT_PORT": port, "KIT_GPUS": "2", "POD_IP": "127.0.0.1", "OMP_NUM_THREADS": "1",
              "ONE_SERVICE_HOST": "127.0.0.1", "ONE_SERVICE_PORT": port}  # fmt: skip
    pods = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "launch.py")],
            env={**os.environ, **shared, "JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in (0, 1)
    ]  # fmt: skip
    try:
        said = [one.communicate(timeout=120)[0] for one in pods]
    finally:
        for one in pods:
            one.kill()
    assert [one.returncode for one in pods] == [0, 0], said
    assert "ranks [(0, 0), (1, 1), (2, 0), (3, 1)]" in said[0] and said[1].count("ranks [") == 2
