"""What a container sees of its Pod's volumes, with namespaces and in plain mode."""

from __future__ import annotations

import base64
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from kitlib.cluster.kubelet import pod_worker
from kitlib.cluster.kubelet.isolation import namespaces_work
from kitlib.cluster.kubelet.node import token_of
from kitlib.cluster.kubelet.volumes import MountFailed, write_atomically
from kitlib.cluster.kubelet.volumes import mounts as container_mounts

from .conftest import BOTH_WAYS, Node, until


def mounts(path: str, **options: object) -> list[dict]:
    return [{"name": "v", "mountPath": path, **options}]


@BOTH_WAYS
async def test_a_configmap_is_a_folder_of_files_that_follow_its_changes(node: Node) -> None:
    await node.configmap("page", {"index.html": "one\n"})
    spec = {"volumes": [{"name": "v", "configMap": {"name": "page"}}]}
    command = "while ! grep -q two /usr/share/nginx/html/index.html; do sleep 0.05; done; cat /usr/share/nginx/html/*"
    await node.create("web", command, pod=spec, volumeMounts=mounts("/usr/share/nginx/html"))
    await node.ready("web")
    await node.client.patch("configmaps", "page", {"data": {"index.html": "two\n"}}, "default")
    assert await node.output("web") == "two\n"


@BOTH_WAYS
async def test_a_secret_shows_chosen_keys_under_chosen_names_and_modes(node: Node) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in (("user", "kim"), ("password", "x"))}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data}
    await node.client.create("secrets", secret, "default")
    items = [{"key": "user", "path": "sub/name", "mode": 0o400}]
    spec = {"volumes": [{"name": "v", "secret": {"secretName": "s", "items": items}}]}
    command = "ls /secret; cat /secret/sub/name; echo; stat -L -c %a /secret/sub/name"
    await node.create("secret", command, pod=spec, volumeMounts=mounts("/secret"))
    assert await node.output("secret") == "sub\nkim\n400\n"


@BOTH_WAYS
async def test_the_containers_of_a_pod_share_an_empty_dir(node: Node) -> None:
    other = {"name": "d", "image": "busybox", "command": ["sh", "-c", "echo hello > /out/file"]}
    first = {"name": "c", "image": "busybox", "volumeMounts": mounts("/in")}
    first["command"] = ["sh", "-c", "until cat /in/file; do sleep 0.05; done 2>/dev/null"]
    containers = [first, {**other, "volumeMounts": mounts("/out")}]
    spec = {"volumes": [{"name": "v", "emptyDir": {}}], "containers": containers}
    await node.create("share", pod=spec)
    assert await node.output("share") == "hello\n"


@BOTH_WAYS
async def test_the_objects_of_a_namespace_are_watched_while_it_has_pods_on_the_node(node: Node) -> None:
    await node.configmap("conf", {"a": "1"})
    spec = {"volumes": [{"name": "v", "configMap": {"name": "conf"}}]}
    await node.create("p", "sleep 1000", pod=spec, volumeMounts=mounts("/v"))
    await node.ready("p")
    listeners = node.api.rest.store._listeners["configmaps"]
    assert len(listeners) == 1
    await node.client.delete("pods", "p", "default", grace_period_seconds=0)

    async def forgotten() -> bool:
        return not listeners

    await until(forgotten)


@BOTH_WAYS
async def test_a_host_path_is_the_machines_own_folder(node: Node, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    spec = {"volumes": [{"name": "v", "hostPath": {"path": str(shared), "type": "Directory"}}]}
    await node.create("host", "echo kept > /data/file", pod=spec, volumeMounts=mounts("/data"))
    await node.finished("host")
    await node.client.delete("pods", "host", "default")
    await node.gone("host")
    assert (shared / "file").read_text() == "kept\n"


@pytest.mark.parametrize(("kind", "path"), [("Directory", "nope"), ("DirectoryOrCreate", "file")])
async def test_a_host_path_of_the_wrong_type_fails_to_mount(node: Node, tmp_path: Path, kind: str, path: str) -> None:
    (tmp_path / "file").touch()
    spec = {"volumes": [{"name": "v", "hostPath": {"path": str(tmp_path / path), "type": kind}}]}
    await node.create("wrong", "true", pod=spec, volumeMounts=mounts("/data"))
    assert "hostPath type check failed" in await node.event("wrong", "FailedMount")


async def test_a_pod_waits_for_a_configmap_that_it_mounts(node: Node) -> None:
    spec = {"volumes": [{"name": "v", "configMap": {"name": "late"}}]}
    await node.create("waits", "cat /c/a", pod=spec, volumeMounts=mounts("/c"))
    assert 'configmap "late" not found' in await node.event("waits", "FailedMount")
    status = (await node.waiting("waits", "ContainerCreating"))["status"]
    assert status["phase"] == "Pending" and "podIP" not in status
    await node.configmap("late", {"a": "there"})
    assert await node.output("waits") == "there\n"


@BOTH_WAYS
async def test_a_sub_path_shows_one_file_of_a_volume(node: Node) -> None:
    await node.configmap("conf", {"app.conf": "x=1", "other": "y"})
    spec = {"volumes": [{"name": "v", "configMap": {"name": "conf"}}]}
    subpath = mounts("/opt/app/app.conf", subPath="app.conf")
    await node.create("sub", "cat /opt/app/app.conf", pod=spec, volumeMounts=subpath)
    assert await node.output("sub") == "x=1\n"


def test_no_link_in_a_volume_leads_a_sub_path_out_of_it(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    for folder in (volume / "inner", tmp_path / "secret"):
        folder.mkdir(parents=True)
    for name, target in (("out", "../secret"), ("new", tmp_path / "new"), ("in", "inner")):
        (volume / name).symlink_to(target)
    for sub in ("out", "new", "new/deep", "in/../../secret", "/etc"):
        with pytest.raises(MountFailed):
            container_mounts({"volumeMounts": mounts("/m", subPath=sub)}, {"v": volume}, {})
    assert not (tmp_path / "new").exists()
    assert container_mounts({"volumeMounts": mounts("/m", subPath="in")}, {"v": volume}, {})[0][0].endswith("/inner")


@BOTH_WAYS
async def test_the_downward_api_tells_a_pod_its_labels(node: Node) -> None:
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volume = {"name": "v", "projected": {"sources": [{"downwardAPI": {"items": items}}]}}
    spec = {"metadata": {"labels": {"app": "x", "tier": "y"}}, "volumes": [volume]}
    await node.create("labels", "cat /info/labels", pod=spec, volumeMounts=mounts("/info"))
    assert (await node.output("labels")).split() == ['app="x"', 'tier="y"']


async def test_a_claim_that_is_not_bound_fails_to_mount(node: Node) -> None:
    spec = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]}
    await node.create("claim", "true", pod=spec, volumeMounts=mounts("/data"))
    assert "PVC" in await node.event("claim", "FailedMount")


@BOTH_WAYS
async def test_no_mount_changes_the_machine(node: Node) -> None:
    spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
    command = "echo x > /nowhere/deep/file; sleep 1000"
    await node.create("quiet", command, pod=spec, volumeMounts=mounts("/nowhere/deep"))
    await node.ready("quiet")
    assert not Path("/nowhere").exists()
    assert not [part for part in psutil.disk_partitions(all=True) if part.mountpoint.startswith(str(node.home))]


async def test_service_names_resolve_where_a_container_has_its_own_hosts_file(node: Node) -> None:
    await node.create("early", "until grep late /etc/hosts; do sleep 0.05; done")
    await node.ready("early")
    service = {"metadata": {"name": "late"}, "spec": {"ports": [{"port": 80}]}, "apiVersion": "v1", "kind": "Service"}
    made = await node.client.create("services", service, "default")
    if node.kubelet.node.isolation == "namespaces":
        assert (await node.output("early")).split()[:2] == [made["spec"]["clusterIP"], "late.default.svc.cluster.local"]


async def test_with_namespaces_tmp_is_the_containers_own(node: Node) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as marker:
        await node.create("tmp", f"touch /tmp/mine; test -e {marker.name} && echo shared || echo own")
        expected = "own" if node.kubelet.node.isolation == "namespaces" else "shared"
        assert await node.output("tmp") == f"{expected}\n"


async def test_files_in_memory_go_with_their_pod_or_their_node(node: Node) -> None:
    spec = {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}
    memory = node.config.memory_dir
    for name in ("first", "second"):
        command = "echo x > /cache/f; cat /cache/f"
        await node.create(name, command, pod=spec, volumeMounts=mounts("/cache"))
        assert await node.output(name) == "x\n"
    uid = (await node.get("first"))["metadata"]["uid"]
    await node.client.delete("pods", "first", "default")
    await node.gone("first")

    async def removed() -> bool:
        return not (memory / uid).exists()

    await until(removed)
    await node.power_cycle()
    assert not memory.exists()


def test_a_volume_recovers_from_a_kubelet_that_was_killed_while_it_changed(tmp_path: Path) -> None:
    write_atomically(tmp_path, {"a": (b"one", 0o644)})
    (tmp_path / "..data_tmp").symlink_to("..2026_gone")
    write_atomically(tmp_path, {"a": (b"two", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"two"


def test_a_token_is_renewed_at_four_fifths_of_its_life_and_after_a_day_at_the_latest() -> None:
    assert token_of("t", 1000.0, 1000.0 + 3600).renew_at == 1000.0 + 2880
    assert token_of("t", 0.0, 365 * 86400.0).renew_at == 86400.0


async def test_a_token_in_a_volume_is_replaced_before_it_expires(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_worker, "_CLOCK_SECONDS", 0.1)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    await node.client.create("serviceaccounts", account, "default")
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "vault"}}
    spec = {"serviceAccountName": "robot", "volumes": [{"name": "v", "projected": {"sources": [source]}}]}
    command = 'first=$(cat /v/token); while [ "$first" = "$(cat /v/token)" ]; do sleep 0.05; done; echo $first'
    await node.create("p", f"{command}; cat /v/token", pod=spec, volumeMounts=mounts("/v"))
    await node.ready("p")
    (worker,) = node.kubelet.pods.workers()
    first = worker._facts._tokens["vault"]
    assert 470 < worker._facts.seconds_to_renewal() <= 480
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 500)  # the machine slept: none of its timers ran
    before, after = (await node.output("p")).split()
    assert before == first.text != after
    user, audiences = node.api.authenticator.identify(after, ["vault", "other"])
    assert user is not None
    assert (user.name, audiences) == ("system:serviceaccount:default:robot", ["vault"])
    assert user.extra["authentication.kubernetes.io/pod-name"] == ["p"]


@pytest.mark.skipif(not namespaces_work(), reason="the kernel allows no namespaces")
async def test_a_container_has_a_root_of_its_own_and_can_neither_see_nor_change_the_machines_files(
    node: Node, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("precious")
    command = f"pwd; echo $HOME; ls /; echo x > /file && cat /file; ls {tmp_path}; rm -rf {tmp_path}; touch /usr/x"
    await node.create("own", command)
    output = await node.output("own")
    words = output.split("\n")
    assert words[:2] == ["/", "/root"] and {"bin", "dev", "etc", "home", "proc", "root", "tmp", "usr"} <= set(words)
    assert "x" in words and "mine" not in words
    assert "Read-only file system" in output
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.skipif(not namespaces_work(), reason="the kernel allows no namespaces")
async def test_a_configmap_is_mounted_read_only(node: Node) -> None:
    await node.configmap("conf", {"a": "1"})
    spec = {"volumes": [{"name": "v", "configMap": {"name": "conf"}}]}
    await node.create("reader", "touch /c/new; touch /c/a; cat /c/a", pod=spec, volumeMounts=mounts("/c"))
    assert (await node.output("reader")).count("Read-only file system") == 2


@pytest.mark.skipif(not namespaces_work(), reason="the kernel allows no namespaces")
async def test_a_read_only_root_file_system_takes_no_file(node: Node) -> None:
    options = {"securityContext": {"readOnlyRootFilesystem": True}}
    await node.create("ro", "touch /file; touch /tmp/file && echo tmp", **options)
    assert "Read-only file system" in await node.output("ro")
