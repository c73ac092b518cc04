from __future__ import annotations

from typing import Any

import pytest
from lab import FakeClock, Lab, job

from kitlib.cluster.controllers.job_rules import format_indexes, parse_indexes


async def _active(lab: Lab, number: int) -> list[dict[str, Any]]:
    pods = await lab.list("pods")
    active = [p for p in pods if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"]]
    return active if len(active) == number else []


async def _ended(lab: Lab, kind: str) -> dict[str, Any] | None:
    found = await lab.get("jobs.batch", "work")
    kinds = [item["type"] for item in found["status"].get("conditions", []) if item["status"] == "True"]
    return found if kind in kinds else None


async def test_an_indexed_job_numbers_its_pods_and_completes_in_two_steps(lab: Lab) -> None:
    lab.start()
    await lab.client.create(
        "jobs.batch", job("work", completions=2, parallelism=2, completionMode="Indexed"), "default"
    )
    pods = await lab.until(lambda: _active(lab, 2))
    assert sorted(p["spec"]["hostname"] for p in pods) == ["work-0", "work-1"]
    first = min(pods, key=lambda p: p["spec"]["hostname"])
    assert first["metadata"]["name"].startswith("work-0-")
    assert first["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "0"
    assert first["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    for p in pods:
        await lab.finish(p["metadata"]["name"])
    done = await lab.until(lambda: _ended(lab, "Complete"))
    status = done["status"]
    assert [(c["type"], c["reason"], c["message"]) for c in status["conditions"]] == [
        ("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"),
        ("Complete", "CompletionsReached", "Reached expected number of succeeded pods"),
    ]
    fields = ("completedIndexes", "succeeded", "ready", "terminating", "uncountedTerminatedPods")
    assert [status[field] for field in fields] == ["0,1", 2, 0, 0, {}]
    assert "active" not in status and "failed" not in status
    assert all("finalizers" not in p["metadata"] for p in await lab.list("pods"))
    assert await lab.until(lambda: lab.events("Completed")) == ["Job completed"]


async def test_a_job_without_retries_fails_with_its_first_pod(lab: Lab) -> None:
    lab.start()
    await lab.client.create("jobs.batch", job("work", completions=2, parallelism=2, backoffLimit=0), "default")
    first, _ = await lab.until(lambda: _active(lab, 2))
    await lab.finish(first["metadata"]["name"], 1)
    failed = await lab.until(lambda: _ended(lab, "Failed"))
    reasons = [(c["type"], c["reason"]) for c in failed["status"]["conditions"]]
    assert reasons == [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]
    assert failed["status"]["failed"] == 2
    message = "Job has reached the specified backoff limit"
    assert await lab.until(lambda: lab.events("BackoffLimitExceeded")) == [message]


async def test_a_failed_pod_is_replaced_after_a_backoff_that_doubles(slow_lab: Lab) -> None:
    lab, clock = slow_lab, slow_lab.clock
    assert isinstance(clock, FakeClock)
    lab.start()
    await lab.client.create("jobs.batch", job("work"), "default")
    for wait in (2, 4):
        (running,) = await lab.until(lambda: _active(lab, 1))
        await lab.finish(running["metadata"]["name"], 1)

        async def counted() -> bool:
            status = (await lab.get("jobs.batch", "work"))["status"]
            return not status.get("active") and not status["uncountedTerminatedPods"]

        await lab.until(counted)
        await clock.advance(wait - 1)
        assert not await _active(lab, 1)
        await clock.advance(2)
    assert await lab.until(lambda: _active(lab, 1))


async def test_a_pod_failure_policy_ends_the_job_on_an_exit_code(lab: Lab) -> None:
    lab.start()
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
    await lab.client.create("jobs.batch", job("work", podFailurePolicy={"rules": rules}), "default")
    (running,) = await lab.until(lambda: _active(lab, 1))
    name = running["metadata"]["name"]
    await lab.finish(name, 42)
    failed = await lab.until(lambda: _ended(lab, "Failed"))
    condition = failed["status"]["conditions"][-1]
    text = f"Container work for pod default/{name} failed with exit code 42 matching FailJob rule at index 0"
    assert (condition["reason"], condition["message"]) == ("PodFailurePolicy", text)


async def test_ignored_failures_do_not_count(lab: Lab) -> None:
    lab.start()
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    spec = job("work", podFailurePolicy={"rules": rules}, backoffLimit=0)
    await lab.client.create("jobs.batch", spec, "default")
    (running,) = await lab.until(lambda: _active(lab, 1))
    conditions = [*running["status"]["conditions"], {"type": "DisruptionTarget", "status": "True"}]
    name = running["metadata"]["name"]
    await lab.client.patch("pods", name, {"status": {"conditions": conditions}}, "default", subresource="status")
    await lab.finish(name, 137)

    async def replaced() -> bool:
        pods = await _active(lab, 1)
        return bool(pods) and pods[0]["metadata"]["name"] != name

    await lab.until(replaced)
    assert not (await lab.get("jobs.batch", "work"))["status"].get("failed")


async def test_a_suspended_job_has_no_pods_until_it_is_resumed(lab: Lab) -> None:
    lab.start()
    await lab.client.create("jobs.batch", job("work", suspend=True), "default")
    await lab.until(lambda: _ended(lab, "Suspended"))
    assert not await lab.list("pods")
    await lab.client.patch("jobs.batch", "work", {"spec": {"suspend": False}}, "default")
    await lab.until(lambda: _active(lab, 1))
    await lab.client.patch("jobs.batch", "work", {"spec": {"suspend": True}}, "default")

    async def gone() -> bool:
        return not await lab.list("pods")

    await lab.until(gone)
    status = (await lab.get("jobs.batch", "work"))["status"]
    assert not status.get("failed") and "startTime" not in status
    assert set(await lab.events("Suspended")) == {"Job suspended"}


async def test_a_job_past_its_deadline_fails(slow_lab: Lab) -> None:
    lab = slow_lab
    lab.start()
    await lab.client.create("jobs.batch", job("work", activeDeadlineSeconds=30), "default")
    await lab.until(lambda: _active(lab, 1))
    await lab.clock.advance(31)
    failed = await lab.until(lambda: _ended(lab, "Failed"))
    condition = failed["status"]["conditions"][-1]
    assert (condition["reason"], condition["message"]) == (
        "DeadlineExceeded",
        "Job was active longer than specified deadline",
    )


async def test_an_index_that_fails_too_often_is_given_up_while_others_go_on(lab: Lab) -> None:
    lab.start()
    spec = job("work", completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=0, backoffLimit=9)
    await lab.client.create("jobs.batch", spec, "default")
    pods = sorted(await lab.until(lambda: _active(lab, 2)), key=lambda p: p["spec"]["hostname"])
    await lab.finish(pods[0]["metadata"]["name"], 1)
    await lab.until(lambda: _active(lab, 1))
    await lab.finish(pods[1]["metadata"]["name"], 0)
    failed = await lab.until(lambda: _ended(lab, "Failed"))
    status = failed["status"]
    assert (status["failedIndexes"], status["completedIndexes"]) == ("0", "1")
    assert status["conditions"][-1]["reason"] == "FailedIndexes"


async def test_a_deleted_job_takes_its_pods_along(lab: Lab) -> None:
    lab.start()
    await lab.client.create("jobs.batch", job("work", completions=3, parallelism=3), "default")
    await lab.until(lambda: _active(lab, 3))
    await lab.client.delete("jobs.batch", "work", "default", propagation_policy="Background")

    async def gone() -> bool:
        return not await lab.list("pods")

    await lab.until(gone)


async def test_a_finished_job_goes_when_its_time_to_live_is_over(slow_lab: Lab) -> None:
    lab = slow_lab
    lab.start()
    await lab.client.create("jobs.batch", job("work", ttlSecondsAfterFinished=60), "default")
    (running,) = await lab.until(lambda: _active(lab, 1))
    await lab.finish(running["metadata"]["name"])
    await lab.until(lambda: _ended(lab, "Complete"))
    await lab.clock.advance(50)
    assert await lab.list("jobs.batch")
    await lab.clock.advance(12)

    async def gone() -> bool:
        return not await lab.list("jobs.batch") and not await lab.list("pods")

    await lab.until(gone)


@pytest.mark.parametrize(
    ("text", "indexes"), [("", set()), ("0,1", {0, 1}), ("0-2", {0, 1, 2}), ("0,2,4-7", {0, 2, 4, 5, 6, 7})]
)
def test_indexes_are_written_as_runs_of_three_or_more(text: str, indexes: set[int]) -> None:
    assert format_indexes(indexes) == text
    assert parse_indexes(text) == indexes
