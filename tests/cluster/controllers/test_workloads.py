"""CronJobs, StatefulSets, DaemonSets, budgets, hollow nodes and autoscalers."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from lab import Lab, deployment, job, pod

from kitlib.cluster.cron import Schedule


def _workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    made = {**deployment(name), "kind": kind}
    made["spec"] = {key: made["spec"][key] for key in ("selector", "template")} | spec
    return made


async def _running(lab: Lab, number: int) -> Any:
    pods = await lab.list("pods")
    up = [item for item in pods if item["status"]["phase"] == "Running"]
    return sorted(item["metadata"]["name"] for item in up) if len(up) == number == len(pods) else None


async def test_a_statefulset_numbers_its_pods_and_waits_for_each(lab: Lab) -> None:
    lab.start()
    lab.silent.add("node-1")
    await lab.client.create(
        "statefulsets.apps", _workload("StatefulSet", "db", replicas=3, serviceName="db"), "default"
    )
    for number in range(3):

        async def waiting(number: int = number) -> Any:
            pods = await lab.list("pods")
            pending = [item for item in pods if item["status"]["phase"] == "Pending" and item["spec"].get("nodeName")]
            return pending if len(pods) == number + 1 and len(pending) == 1 else None

        (next_one,) = await lab.until(waiting)
        assert next_one["metadata"]["name"] == f"db-{number}"
        assert (next_one["spec"]["hostname"], next_one["spec"]["subdomain"]) == (f"db-{number}", "db")
        await lab.run_pod(next_one)
    assert await lab.until(lambda: _running(lab, 3)) == ["db-0", "db-1", "db-2"]
    lab.silent.clear()
    await lab.client.patch("statefulsets.apps", "db", {"spec": {"replicas": 1}}, "default")
    assert await lab.until(lambda: _running(lab, 1)) == ["db-0"]
    assert (await lab.events("SuccessfulCreate"))[0] == "create Pod db-0 in StatefulSet db successful"
    assert await lab.events("SuccessfulDelete") == [
        "delete Pod db-2 in StatefulSet db successful",
        "delete Pod db-1 in StatefulSet db successful",
    ]


async def test_a_statefulset_updates_from_the_last_pod_to_the_partition(lab: Lab) -> None:
    lab.start()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    spec = _workload("StatefulSet", "db", replicas=3, serviceName="db", updateStrategy=strategy)
    await lab.client.create("statefulsets.apps", spec, "default")
    await lab.until(lambda: _running(lab, 3))
    containers = [{"name": "web", "image": "web:v2"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    await lab.client.patch("statefulsets.apps", "db", patch, "default")

    async def updated() -> bool:
        images = {p["metadata"]["name"]: p["spec"]["containers"][0]["image"] for p in await lab.list("pods")}
        up = await _running(lab, 3)
        return bool(up) and images == {"db-0": "web:v1", "db-1": "web:v2", "db-2": "web:v2"}

    await lab.until(updated)
    assert len(await lab.list("controllerrevisions.apps")) == 2


async def test_a_daemonset_has_one_pod_on_every_node_that_fits(lab: Lab) -> None:
    await lab.node("node-2", labels={"disk": "ssd"})
    await lab.node("node-3", spec={"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]})
    lab.start()
    await lab.client.create("daemonsets.apps", _workload("DaemonSet", "agent"), "default")
    await lab.until(lambda: _running(lab, 2))
    assert {item["spec"]["nodeName"] for item in await lab.list("pods")} == {"node-1", "node-2"}
    await lab.node("node-4")
    await lab.until(lambda: _running(lab, 3))

    async def counted() -> bool:
        status = (await lab.get("daemonsets.apps", "agent"))["status"]
        fields = ("desiredNumberScheduled", "numberReady", "numberAvailable", "updatedNumberScheduled")
        return [status.get(field) for field in fields] == [3] * 4

    await lab.until(counted)
    patch = {"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}}
    await lab.client.patch("daemonsets.apps", "agent", patch, "default")

    async def moved() -> bool:
        pods = await lab.list("pods")
        return [(p["spec"]["nodeName"], p["spec"].get("nodeSelector")) for p in pods] == [("node-2", {"disk": "ssd"})]

    await lab.until(moved)


async def test_a_cronjob_makes_a_job_at_its_time_and_keeps_three(slow_lab: Lab) -> None:
    lab = slow_lab
    lab.clock._now -= lab.clock._now % 60  # five steps of 60.5 s then cross five minutes
    lab.start()
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": job("x")["spec"]}}
    metadata = {"name": "tick", "namespace": "default"}
    created = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}
    await lab.client.create("cronjobs.batch", created, "default")
    for number in range(1, 6):
        await lab.clock.advance(60.5)

        async def started() -> Any:
            pods = [item for item in await lab.list("pods") if item["status"]["phase"] == "Running"]
            return pods or None

        (running,) = await lab.until(started)
        await lab.finish(running["metadata"]["name"])

        async def tidy(number: int = number) -> bool:
            jobs = await lab.list("jobs.batch")
            done = all(any(c["type"] == "Complete" for c in each["status"].get("conditions", [])) for each in jobs)
            return done and len(jobs) == min(number, 3)

        await lab.until(tidy)
    names = {item["metadata"]["name"] for item in await lab.list("jobs.batch")}
    scheduled = int((lab.clock.now() - 1) // 60)
    assert f"tick-{scheduled}" in names
    assert f"Created job tick-{scheduled}" in await lab.events("SuccessfulCreate")
    owner = {**(await lab.list("jobs.batch"))[0]["metadata"]["ownerReferences"][0]}
    by_hand = job("by-hand")
    by_hand["metadata"]["ownerReferences"] = [owner]
    await lab.client.create("jobs.batch", by_hand, "default")
    (text,) = await lab.until(lambda: lab.events("UnexpectedJob"))
    assert text == "Saw a job that the controller did not create or forgot: by-hand"
    assert not (await lab.get("cronjobs.batch", "tick"))["status"].get("active")


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("*/15 * * * *", "2026-01-01T10:07", "2026-01-01T10:15"),
        ("0 3 * * 1-5", "2026-01-02T04:00", "2026-01-05T03:00"),
        ("30 6 1 jan,jul *", "2026-01-01T06:30", "2026-07-01T06:30"),
        ("0 0 13 * fri", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("@hourly", "2026-01-01T10:07", "2026-01-01T11:00"),
        ("0 12 * * 0", "2026-01-01T00:00", "2026-01-04T12:00"),
    ],
)
def test_schedules_are_read_as_cron_reads_them(text: str, after: str, expected: str) -> None:
    start = datetime.fromisoformat(after).replace(tzinfo=timezone.utc)
    assert Schedule(text).next(start) == datetime.fromisoformat(expected).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize("text", ["", "* * * *", "61 * * * *", "*/0 * * * *", "a * * * *", "5-2 * * * *", "0 12 * * 7"])
def test_a_bad_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Schedule(text)


async def test_a_budget_allows_as_many_evictions_as_there_are_pods_to_spare(lab: Lab) -> None:
    lab.start()
    await lab.client.create("deployments.apps", deployment("web", 3), "default")
    metadata = {"name": "web", "namespace": "default"}
    spec = {"minAvailable": "60%", "selector": {"matchLabels": {"app": "web"}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec}
    await lab.client.create("poddisruptionbudgets.policy", budget, "default")

    async def counted() -> bool:
        status = (await lab.get("poddisruptionbudgets.policy", "web"))["status"]
        fields = ("expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed")
        return [status[field] for field in fields] == [3, 3, 2, 1]

    await lab.until(counted)
    await lab.client.create("poddisruptionbudgets.policy", {**budget, "metadata": {"name": "x"}, "spec": {}}, "default")
    assert await lab.until(lambda: lab.events("NoPods")) == ["No matching pods found"]


async def test_a_replication_controller_keeps_its_pods(lab: Lab) -> None:
    lab.start()
    made = deployment("old", 2)
    spec = {**made["spec"], "selector": made["spec"]["selector"]["matchLabels"]}
    await lab.client.create(
        "replicationcontrollers", {**made, "apiVersion": "v1", "kind": "ReplicationController", "spec": spec}, "default"
    )

    async def ready() -> Any:
        return (await lab.get("replicationcontrollers", "old"))["status"].get("readyReplicas") == 2

    await lab.until(ready)
    (name, _) = await _running(lab, 2)
    assert name.startswith("old-")
    await lab.client.delete("pods", name, "default")
    await lab.until(lambda: _running(lab, 2))


async def test_pods_on_a_hollow_node_are_marked_running_and_say_that_nothing_runs(lab: Lab) -> None:
    await lab.client.delete("nodes", "node-1")
    await lab.node("hollow-01", labels={"kit/hollow": "true"})
    lab.start(kubelet=False)
    await lab.client.create("pods", pod("ghost"), "default")
    assert await lab.until(lambda: _running(lab, 1)) == ["ghost"]
    (text,) = await lab.until(lambda: lab.events("Hollow"))
    assert "nothing runs" in text
    await lab.client.delete("pods", "ghost", "default")

    async def gone() -> bool:
        return not await lab.list("pods")

    await lab.until(gone)


async def test_an_autoscaler_says_that_nothing_acts_on_it(lab: Lab) -> None:
    lab.start()
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    metadata = {"name": "web", "namespace": "default"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3}
    scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}
    await lab.client.create("horizontalpodautoscalers.autoscaling", scaler, "default")

    async def told() -> bool:
        (condition,) = (await lab.get("horizontalpodautoscalers.autoscaling", "web"))["status"]["conditions"]
        return (condition["type"], condition["status"]) == ("ScalingActive", "False")

    await lab.until(told)


async def test_a_quota_tells_how_much_of_it_is_used(lab: Lab) -> None:
    lab.start()
    metadata = {"name": "small", "namespace": "default"}
    hard = {"pods": "5", "requests.cpu": "2", "count/deployments.apps": "3"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}
    await lab.client.create("resourcequotas", quota, "default")
    container = {"name": "c", "image": "web:v1", "resources": {"requests": {"cpu": "250m"}}}
    for name in ("a", "b"):
        await lab.client.create("pods", pod(name, containers=[container]), "default")

    async def used(pods: str, cpu: str) -> bool:
        status = (await lab.get("resourcequotas", "small")).get("status") or {}
        return status.get("used") == {"pods": pods, "requests.cpu": cpu, "count/deployments.apps": "0"}

    await lab.until(lambda: used("2", "500m"))
    await lab.client.delete("pods", "a", "default", grace_period_seconds=0)
    await lab.until(lambda: used("1", "250m"))


async def test_a_recreate_deployment_waits_for_the_last_old_pod(lab: Lab) -> None:
    lab.start()
    await lab.client.create("deployments.apps", deployment("web", 2, strategy={"type": "Recreate"}), "default")
    await lab.until(lambda: _running(lab, 2))
    lab.silent.add("node-1")
    containers = [{"name": "web", "image": "web:v2"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    await lab.client.patch("deployments.apps", "web", patch, "default")

    async def old_ones_stop() -> Any:
        pods = await lab.list("pods")
        return pods if pods and all("deletionTimestamp" in item["metadata"] for item in pods) else None

    doomed = await lab.until(old_ones_stop)
    assert len(await lab.list("replicasets.apps")) == 1
    lab.silent.clear()
    for item in doomed:
        await lab.remove(item)

    async def new_ones() -> bool:
        images = [item["spec"]["containers"][0]["image"] for item in await lab.list("pods")]
        return images == ["web:v2"] * 2

    await lab.until(new_ones)


async def test_a_paused_deployment_rolls_out_only_when_resumed(lab: Lab) -> None:
    lab.start()
    await lab.client.create("deployments.apps", deployment("web", 2), "default")
    await lab.until(lambda: _running(lab, 2))
    containers = [{"name": "web", "image": "web:v2"}]
    change = {"paused": True, "template": {"spec": {"containers": containers}}, "replicas": 3}
    await lab.client.patch("deployments.apps", "web", {"spec": change}, "default")
    await lab.until(lambda: _running(lab, 3))
    assert len(await lab.list("replicasets.apps")) == 1
    conditions = (await lab.get("deployments.apps", "web"))["status"]["conditions"]
    assert ("Progressing", "DeploymentPaused") in [(item["type"], item["reason"]) for item in conditions]
    await lab.client.patch("deployments.apps", "web", {"spec": {"paused": False}}, "default")

    async def rolled() -> bool:
        images = [item["spec"]["containers"][0]["image"] for item in await lab.list("pods")]
        return images == ["web:v2"] * 3

    await lab.until(rolled)


async def test_a_rollout_that_does_not_move_exceeds_its_deadline(slow_lab: Lab) -> None:
    lab = slow_lab
    lab.start()
    web = deployment("web", 1, image="bad", progressDeadlineSeconds=30)
    await lab.client.create("deployments.apps", web, "default")

    async def reason() -> str:
        conditions = (await lab.get("deployments.apps", "web"))["status"]["conditions"]
        return str(next(item["reason"] for item in conditions if item["type"] == "Progressing"))

    await lab.until(reason)
    await lab.clock.advance(40)

    async def exceeded() -> bool:
        return await reason() == "ProgressDeadlineExceeded"

    await lab.until(exceeded)
