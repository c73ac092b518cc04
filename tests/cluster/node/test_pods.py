"""What a Pod does on a node."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from .conftest import BOTH_WAYS, FAST, Node, condition_of, state_of, until

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.05; done"


@BOTH_WAYS
async def test_a_pod_that_ends_well_has_succeeded(node: Node) -> None:
    await node.create("once", "echo done")
    pod = await node.finished("once")
    assert pod["status"]["phase"] == "Succeeded"
    assert state_of(pod)["state"]["terminated"]["reason"] == "Completed"
    assert state_of(pod)["image"] == "docker.io/library/busybox:latest"
    assert state_of(pod)["containerID"].startswith("kit://")
    assert condition_of(pod, "Ready")["reason"] == "PodCompleted"
    assert condition_of(pod, "Initialized")["status"] == "True"
    pod = await node.wait("once", lambda p: condition_of(p, "PodReadyToStartContainers")["status"] == "False")
    assert pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
    assert node.log("once") == "done\n"
    assert {reason for reason, _ in await node.events("once")} == {"Pulled", "Created", "Started"}


async def test_a_pod_that_never_restarts_fails_with_its_exit_code(node: Node) -> None:
    await node.create("fails", "exit 7")
    pod = await node.finished("fails")
    ended = state_of(pod)["state"]["terminated"]
    assert (pod["status"]["phase"], ended["exitCode"], ended["reason"]) == ("Failed", 7, "Error")


async def test_a_container_killed_by_a_signal_exits_with_128_plus_its_number(node: Node) -> None:
    await node.create("signal", "kill -9 $$$$")
    assert state_of(await node.finished("signal"))["state"]["terminated"]["exitCode"] == 137


async def test_a_container_that_keeps_failing_backs_off_and_keeps_its_last_run(node: Node) -> None:
    await node.create("crash", "echo boom; exit 7", pod={"restartPolicy": "Always"})
    pod = await node.waiting("crash", "CrashLoopBackOff")
    words = f"crash_default({pod['metadata']['uid']})"
    assert pod["status"]["phase"] == "Running"
    assert state_of(pod)["restartCount"] >= 1
    assert state_of(pod)["lastState"]["terminated"]["exitCode"] == 7
    assert state_of(pod)["state"]["waiting"]["message"].endswith(f"restarting failed container=c pod={words}")
    assert node.log("crash", previous=True) == "boom\n"
    assert await node.event("crash", "BackOff") == f"Back-off restarting failed container c in pod {words}"


async def test_back_offs_do_not_mind_a_clock_that_is_set_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.create("crash", "exit 7", pod={"restartPolicy": "Always"})
    await node.create("bad", image="no/such")
    await node.waiting("crash", "CrashLoopBackOff")
    await node.waiting("bad", "ImagePullBackOff")
    restarts = state_of(await node.get("crash"))["restartCount"]
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 3600)
    await node.wait("crash", lambda pod: state_of(pod)["restartCount"] > restarts)
    await node.waiting("bad", "ErrImagePull")


async def test_on_failure_restarts_until_the_container_ends_well(node: Node) -> None:
    spec = {"volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "OnFailure"}
    command = "test -e /state/again || { touch /state/again; exit 1; }"
    await node.create("twice", command, pod=spec, volumeMounts=[{"name": "v", "mountPath": "/state"}])
    pod = await node.finished("twice")
    assert (pod["status"]["phase"], state_of(pod)["restartCount"]) == ("Succeeded", 1)


async def test_an_unknown_image_gives_err_image_pull_and_then_backs_off(node: Node) -> None:
    await node.create("bad", image="gcr.io/google-samples/kubernetes-bootcamp:v10")
    pod = await node.waiting("bad", "ImagePullBackOff")
    assert (pod["status"]["phase"], state_of(pod)["imageID"]) == ("Pending", "")
    events = await node.events("bad")
    assert ("Pulling", 'Pulling image "gcr.io/google-samples/kubernetes-bootcamp:v10"') in events
    assert ("BackOff", 'Back-off pulling image "gcr.io/google-samples/kubernetes-bootcamp:v10"') in events
    assert {("Failed", "Error: ErrImagePull"), ("Failed", "Error: ImagePullBackOff")} <= set(events)


@pytest.mark.parametrize(
    "changes", [{"cluster": {"settings": replace(FAST, back_off_period=1e3, image_pull_backoff=10.0)}}]
)
async def test_the_status_shows_a_back_off_with_the_pods_next_sync(node: Node) -> None:
    await node.create("crash", "exit 7", pod={"restartPolicy": "Always"})
    await node.create("bad", image="nosuch")
    assert "restarting failed container c" in await node.event("crash", "BackOff")
    assert await node.event("bad", "BackOff") == 'Back-off pulling image "nosuch"'
    crashed = state_of(await node.wait("crash", lambda pod: state_of(pod)["restartCount"] == 1))
    assert (crashed["state"]["terminated"]["reason"], crashed["lastState"]["terminated"]["exitCode"]) == ("Error", 7)
    await node.waiting("bad", "ErrImagePull")


async def test_a_pod_with_a_bad_image_runs_once_the_image_is_mended(node: Node) -> None:
    await node.create("mend", "sleep 1000", image="nosuch")
    await node.waiting("mend", "ErrImagePull", "ImagePullBackOff")
    patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": "busybox"}]
    await node.client.patch("pods", "mend", patch, "default", content_type="application/json-patch+json")
    await node.ready("mend")


async def test_an_image_name_that_cannot_be_parsed_is_invalid(node: Node) -> None:
    await node.create("invalid", image="Nginx")
    pod = await node.waiting("invalid", "InvalidImageName")
    assert "must be lowercase" in state_of(pod)["state"]["waiting"]["message"]


async def test_a_pull_policy_of_never_needs_the_image_to_be_there(node: Node) -> None:
    await node.create("never", image="nosuch", imagePullPolicy="Never")
    pod = await node.waiting("never", "ErrImageNeverPull")
    assert "is not present with pull policy of Never" in state_of(pod)["state"]["waiting"]["message"]


async def test_a_command_that_does_not_exist_is_a_start_error(node: Node) -> None:
    await node.create("cmd", ["nosuch"])
    ended = state_of(await node.finished("cmd"))["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert ended["message"].endswith('exec: "nosuch": executable file not found in $PATH')


async def test_a_missing_configmap_is_a_config_error_until_it_exists(node: Node) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    await node.create("config", "echo $A", env=env)
    pod = await node.waiting("config", "CreateContainerConfigError")
    assert state_of(pod)["state"]["waiting"]["message"] == 'configmap "late" not found'
    await node.configmap("late", {"a": "there"})
    assert await node.output("config") == "there\n"


async def test_a_missing_key_names_itself(node: Node) -> None:
    await node.configmap("some", {"a": "1"})
    env = [{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "some", "key": "b"}}}]
    await node.create("key", "echo $B", env=env)
    pod = await node.waiting("key", "CreateContainerConfigError")
    assert state_of(pod)["state"]["waiting"]["message"] == "couldn't find key b in ConfigMap default/some"


@pytest.mark.parametrize(
    ("context", "why"),
    [
        ({"runAsNonRoot": True}, "container has runAsNonRoot and image will run as root"),
        ({"runAsNonRoot": True, "runAsUser": 0}, "container's runAsUser breaks non-root policy"),
    ],
)
async def test_a_container_that_must_not_be_root_is_a_config_error(node: Node, context: dict, why: str) -> None:
    await node.create("strict", "true", pod={"securityContext": context})
    pod = await node.waiting("strict", "CreateContainerConfigError")
    uid = pod["metadata"]["uid"]
    message = f'{why} (pod: "strict_default({uid})", container: c)'
    assert state_of(pod)["state"]["waiting"]["message"] == message
    assert await node.event("strict", "Failed") == f"Error: {message}"


@BOTH_WAYS
async def test_a_container_knows_its_pod_and_nothing_of_the_user(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    fields = {"NAME": "metadata.name", "IP": "status.podIP", "NODE": "spec.nodeName"}
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    command = 'echo $NAME $IP $NODE $(hostname) $HOSTNAME "$KUBERNETES_SERVICE_HOST" "[$SECRET_OF_THE_USER]"'
    await node.create("self", command, env=env)
    name, ip, where, hostname, variable, service, secret = (await node.output("self")).split()
    assert (name, where, hostname, variable, secret) == ("self", "node-1", "self", "self", "[]")
    assert ip == (await node.get("self"))["status"]["podIP"]
    assert service == f"127.{node.config.cluster.block}.128.1"


async def test_a_deleted_pod_gets_sigterm_and_time_to_end(node: Node) -> None:
    command = "trap 'echo bye > /shared/out; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    await node.create("polite", command, **node.shares())
    await node.logged("polite", "up")
    await node.client.delete("pods", "polite", "default")
    await node.gone("polite")
    assert (node.home / "shared" / "out").read_text() == "bye\n"
    assert ("Killing", "Stopping container c") in await node.events("polite")


async def test_a_container_that_ignores_sigterm_is_killed_when_its_grace_period_is_over(node: Node) -> None:
    await node.create("deaf", STUBBORN)
    await node.logged("deaf", "up")
    await node.client.delete("pods", "deaf", "default", grace_period_seconds=1)
    await node.gone("deaf")


async def test_a_pod_deleted_by_force_is_gone_at_once_and_its_processes_soon(node: Node) -> None:
    await node.create("forced", STUBBORN)
    await node.logged("forced", "up")
    await node.client.delete("pods", "forced", "default", grace_period_seconds=0)
    await node.gone("forced")

    async def nothing_runs() -> bool:
        return not await node.kubelet.node.runtime.call("stats")

    await until(nothing_runs)


@pytest.mark.parametrize(
    "changes", [{"gpus": 1, "cluster": {"settings": replace(FAST, generic_pleg_relist_period=1e6)}}]
)
async def test_a_pod_that_has_stopped_is_still_shown_until_the_next_relist_but_holds_nothing(node: Node) -> None:
    gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}, "image": "jocatalin/kubernetes-bootcamp:v2"}
    await node.create("first", **gpu)
    await node.ready("first")
    await node.client.delete("pods", "first", "default")
    stopped = await node.finished("first")
    assert stopped["metadata"]["deletionTimestamp"] and stopped["status"]["phase"] == "Failed"
    assert state_of(stopped)["state"]["terminated"]["exitCode"] == 143, "the original does not handle SIGTERM either"
    await node.create("second", **gpu)
    await node.ready("second")
    assert node.kubelet.pods.find("default", "first") is not None
    await node.client.delete("pods", "first", "default", grace_period_seconds=0)
    await node.gone("first")

    async def forgotten() -> bool:
        return not (node.config.node_dir / "pods" / stopped["metadata"]["uid"]).exists()

    await until(forgotten)


async def test_pre_stop_runs_before_sigterm(node: Node) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /shared/hook"]}}}
    await node.create("hook", "sleep 1000", lifecycle=hook, **node.shares())
    await node.ready("hook")
    await node.client.delete("pods", "hook", "default")
    await node.gone("hook")
    assert (node.home / "shared" / "hook").read_text() == "stopping\n"


async def test_a_failing_post_start_hook_kills_the_container(node: Node) -> None:
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "exit 4"]}}}
    await node.create("post", "sleep 1000", lifecycle=hook)
    assert (await node.finished("post"))["status"]["phase"] == "Failed"
    assert "exited with 4" in await node.event("post", "FailedPostStartHook")


async def test_init_containers_run_in_order_before_the_others(node: Node) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    command = ["sh", "-c", "echo $0 >> /v/order"]
    init = [
        {"name": f"i{n}", "image": "busybox", "command": [*command, str(n)], "volumeMounts": mounts} for n in (1, 2)
    ]
    spec = {"initContainers": init, "volumes": [{"name": "v", "emptyDir": {}}]}
    await node.create("init", "cat /v/order", pod=spec, volumeMounts=mounts)
    assert await node.output("init") == "1\n2\n"
    statuses = (await node.get("init"))["status"]["initContainerStatuses"]
    assert [status["state"]["terminated"]["exitCode"] for status in statuses] == [0, 0]


async def test_a_pod_waits_for_an_init_container(node: Node) -> None:
    init = [{"name": "i", "image": "busybox", "command": ["sleep", "1000"]}]
    await node.create("waits", "echo", pod={"initContainers": init})
    pod = await node.wait("waits", lambda p: "running" in state_of(p, "initContainerStatuses")["state"])
    assert pod["status"]["phase"] == "Pending"
    assert state_of(pod)["state"]["waiting"]["reason"] == "PodInitializing"
    condition = condition_of(pod, "Initialized")
    assert condition["reason"] == "ContainersNotInitialized"
    assert condition["message"] == "containers with incomplete status: [i]"


async def test_a_failed_init_container_fails_a_pod_that_never_restarts(node: Node) -> None:
    init = [{"name": "i", "image": "busybox", "command": ["false"]}]
    await node.create("failed-init", "echo", pod={"initContainers": init})
    assert (await node.finished("failed-init"))["status"]["phase"] == "Failed"


async def test_a_sidecar_runs_beside_the_others_and_ends_after_them(node: Node) -> None:
    sidecar = {"name": "s", "image": "busybox", "restartPolicy": "Always", "command": ["sleep", "1000"]}
    await node.create("side", "echo done", pod={"initContainers": [sidecar]})
    assert (await node.finished("side"))["status"]["phase"] == "Succeeded"
    await node.wait("side", lambda p: "terminated" in state_of(p, "initContainerStatuses")["state"])


async def test_a_deadline_fails_a_pod_that_is_still_active(node: Node) -> None:
    await node.create("late", "sleep 1000", pod={"activeDeadlineSeconds": 1})
    pod = await node.finished("late")
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")


async def test_a_container_over_its_memory_limit_is_oom_killed(node: Node) -> None:
    hog = ["python3", "-c", "x = bytearray(b'x') * (200 << 20); import time; time.sleep(1000)"]
    await node.create("hog", hog, resources={"limits": {"memory": "64Mi"}})
    ended = state_of(await node.finished("hog"))["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


@BOTH_WAYS
async def test_a_container_leaves_its_last_words(node: Node) -> None:
    await node.create("words", "printf 'no more disk' > /dev/termination-log; exit 1")
    assert state_of(await node.finished("words"))["state"]["terminated"]["message"] == "no more disk"


async def test_the_end_of_the_log_stands_in_for_missing_last_words(node: Node) -> None:
    await node.create("tail", "echo oops; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    assert state_of(await node.finished("tail"))["state"]["terminated"]["message"] == "oops\n"


@pytest.mark.parametrize("clear", ["", "env -i"])
async def test_processes_that_a_container_leaves_behind_end_with_it(node: Node, clear: str) -> None:
    if clear and node.kubelet.node.isolation == "plain":
        pytest.skip("without namespaces a process is known by its environment alone")
    await node.create("daemon", f"setsid {clear} sh -c 'exec sleep 1000' & sleep 0.1; exit 0")
    await node.finished("daemon")

    async def nothing_left() -> bool:
        return not psutil_children(node)

    await until(nothing_left)


def psutil_children(node: Node) -> list:
    import psutil

    return psutil.Process(node.runtime.process.pid).children(recursive=True)


async def test_the_node_keeps_nothing_of_a_deleted_pod(node: Node) -> None:
    await node.create("trace", "sleep 1000")
    uid = (await node.ready("trace"))["metadata"]["uid"]
    folder = node.config.node_dir / "pods" / uid
    assert folder.is_dir()
    await node.client.delete("pods", "trace", "default")
    await node.gone("trace")
    assert not folder.exists()
    assert node.kubelet.pods.find("default", "trace") is None


async def test_many_pods_start_and_end_at_once(node: Node) -> None:
    names = [f"p{n}" for n in range(12)]
    await asyncio.gather(*(node.create(name, "sleep 1000") for name in names))
    pods = await asyncio.gather(*(node.ready(name) for name in names))
    assert len({pod["status"]["podIP"] for pod in pods}) == 12
    await asyncio.gather(*(node.client.delete("pods", name, "default") for name in names))
    await asyncio.gather(*(node.gone(name) for name in names))


@BOTH_WAYS
async def test_an_ephemeral_container_joins_a_pod_that_runs_and_never_starts_again(node: Node) -> None:
    await node.create("p", "sleep 1000", pod={"restartPolicy": "Always"})
    await node.ready("p")
    look = {"name": "look", "image": "busybox", "command": ["sh", "-c", "echo seen; exit 3"]}
    patch = {"spec": {"ephemeralContainers": [look]}}
    made = await node.client.patch("pods", "p", patch, "default", subresource="ephemeralcontainers")
    assert made["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"] == "File"

    def ended(pod: dict) -> bool:
        (found,) = pod["status"].get("ephemeralContainerStatuses") or [{}]
        return "terminated" in found.get("state", {})

    pod = await node.wait("p", ended)
    assert pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert pod["status"]["phase"] == "Running"
    assert [each["ready"] for each in pod["status"]["containerStatuses"]] == [True]
    (worker,) = node.kubelet.pods.workers()
    assert (worker.ephemeral[0].attempt, (worker.folder / "logs/look/0.log").exists()) == (0, True)
    events = (await node.client.list("events", "default"))["items"]
    assert "spec.ephemeralContainers{look}" in {each["involvedObject"].get("fieldPath") for each in events}
    await node.kubelet.stop()
    await node.start_kubelet()
    (worker,) = node.kubelet.pods.workers()
    assert worker.ephemeral[0].attempt == 0
