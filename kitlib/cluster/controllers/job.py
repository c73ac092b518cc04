"""Job: runs Pods until enough of them have succeeded.

Stands for `pkg/controller/job`. The rule: keep `parallelism` Pods active while successes are missing, replace failed
ones after a back-off, give up beyond `backoffLimit`. Each Pod carries the finalizer `batch.kubernetes.io/job-tracking`
until its end is counted, so that no end is lost or counted twice: first its uid enters
`status.uncountedTerminatedPods`, then the finalizer goes, then the counter rises. The rules are in `job_rules.py`.
A Job ends in two steps, `SuccessCriteriaMet` then `Complete`, or `FailureTarget` then `Failed`, the second when its
last Pod has stopped.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kitlib.cluster.client import ignoring
from kitlib.cluster.clock import rfc3339
from kitlib.cluster.controllers import job_rules as rules
from kitlib.cluster.controllers.common import (
    Context,
    claim,
    create_pod,
    delete_pod,
    pod_from_template,
    slow_start,
    update_status,
    watch_own,
    watch_owned,
)
from kitlib.cluster.controllers.job_rules import TRACKING, Tally, Verdict
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import (
    Key,
    Object,
    condition,
    condition_true,
    controller_of,
    deep_copy,
    is_deleting,
    is_ready,
    key_of,
)

JOBS = "jobs.batch"
BURST = 500


def is_finished(job: Object) -> bool:
    """Tell whether the Job is Complete or Failed."""
    return condition_true(job, "Complete") or condition_true(job, "Failed")


class JobController(Controller):
    name = "job-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._jobs = ctx.informers(JOBS)
        self._pods = ctx.informers("pods")
        self._pods.add_index("job", _job_of)
        watch_own(self._jobs, self)
        watch_owned(self._pods, "Job", self.add_dependent)

    async def reconcile(self, key: Key) -> None:
        """Count what has ended, start what is missing, and write the status."""
        job = self._jobs.get(*key)
        if job is None or is_deleting(job) or is_finished(job):
            self.sizes.pop(key, None)
            await self._untrack([pod for pod in self._pods.indexed("job", "/".join(key)) if _abandoned(pod, job)])
            return
        if job["spec"].get("managedBy", "kubernetes.io/job-controller") != "kubernetes.io/job-controller":
            return
        await claim(self._ctx, job, self._pods, job["spec"]["selector"], TRACKING)
        job = self._with_start(job)
        pods = self._owned(job)
        self.sizes[key] = len(pods)
        counts = rules.tally(job, pods)
        verdict, failed = self._verdict(job, counts)
        if verdict is not None:
            await asyncio.gather(*(delete_pod(self._ctx, job, pod) for pod in counts.active))
        elif job["spec"].get("suspend"):
            await self._discard(job, counts.active)
        else:
            await self._manage(job, counts)
        await self._count(job, counts, verdict, failed)

    def _owned(self, job: Object) -> list[Object]:
        uid = job["metadata"]["uid"]
        return [pod for pod in self._pods.owned_by(uid) if (controller_of(pod) or {}).get("uid") == uid]

    def _with_start(self, job: Object) -> Object:
        """Return the Job with its start time and its Suspended condition up to date (not written yet)."""
        status = dict(job.get("status") or {})
        suspend = bool(job["spec"].get("suspend"))
        known = condition_true(job, "Suspended")
        now = rfc3339(self._ctx.clock.now())
        if suspend != known:
            word = "suspended" if suspend else "resumed"
            self._ctx.events.event(job, "Normal", word.title(), f"Job {word}")
            state = ("True" if suspend else "False", f"Job{word.title()}", f"Job {word}")
            status["conditions"] = [c for c in status.get("conditions") or () if c["type"] != "Suspended"]
            status["conditions"].append(_condition("Suspended", *state, now))
            status.pop("startTime", None)
        if not suspend and not status.get("startTime"):
            status["startTime"] = now
        return {**job, "status": status}

    def _verdict(self, job: Object, counts: Tally) -> tuple[Verdict | None, bool]:
        """Return why the Job ends, None while it does not, and whether that is a failure."""
        for kind in ("FailureTarget", "SuccessCriteriaMet"):
            decided = condition(job, kind)
            if decided is not None and decided["status"] == "True":
                return (decided["reason"], decided.get("message", "")), kind == "FailureTarget"
        now = self._ctx.clock.now()
        failure = rules.failure(job, counts, now)
        if failure is not None:
            return failure, True
        left = rules.deadline_left(job, now)
        if left is not None:
            self.queue.add_after(key_of(job), left)
        return rules.success(job, counts), False

    async def _manage(self, job: Object, counts: Tally) -> None:
        """Start or remove Pods."""
        wanted = rules.wanted_active(job, counts)
        surplus = rules.surplus_pods(job, counts, wanted)
        if surplus:
            await self._discard(job, surplus)
            return
        missing = wanted - len(counts.active)
        if rules.replaces_only_failed(job):
            missing -= len(counts.terminating)
        if missing <= 0:
            return
        if rules.is_indexed(job):
            indexes = self._due_indexes(job, rules.missing_indexes(job, counts))[:missing]
            await slow_start(min(len(indexes), BURST), lambda i: self._create(job, indexes[i]))
        elif self._is_due(job, self._owned(job)):
            await slow_start(min(missing, BURST), lambda _: self._create(job, None))

    def _due_indexes(self, job: Object, indexes: list[int]) -> list[int]:
        """Return the indexes whose back-off is over: one back-off for all, or each its own."""
        pods = self._owned(job)
        if job["spec"].get("backoffLimitPerIndex") is None:
            return indexes if self._is_due(job, pods) else []
        by_index: dict[int, list[Object]] = {}
        for pod in pods:
            by_index.setdefault(rules.index_of(pod), []).append(pod)
        return [index for index in indexes if self._is_due(job, by_index.get(index, []))]

    def _is_due(self, job: Object, pods: list[Object]) -> bool:
        left = rules.backoff_left(pods, self._ctx.config.settings.job_pod_failure_backoff, self._ctx.clock.now(), job)
        if left > 0:
            self.queue.add_after(key_of(job), left)
        return left <= 0

    async def _create(self, job: Object, index: int | None) -> Object:
        pod = pod_from_template(job["spec"]["template"], job)
        pod["metadata"]["generateName"] = f"{job['metadata']['name']}-"
        pod["metadata"]["finalizers"] = [*pod["metadata"].get("finalizers", []), TRACKING]
        if index is not None:
            pod = rules.index_patch(job, pod, index)
        return await create_pod(self._ctx, job, pod)

    async def _discard(self, job: Object, pods: list[Object]) -> None:
        """Delete Pods that must not count as failed: their finalizer goes first."""
        await self._untrack(pods)
        await asyncio.gather(*(delete_pod(self._ctx, job, pod) for pod in pods))

    async def _untrack(self, pods: list[Object]) -> None:
        await asyncio.gather(*(self._remove_finalizer(pod) for pod in pods if rules.is_tracked(pod)))

    async def _remove_finalizer(self, pod: Object) -> None:
        namespace, name = key_of(pod)
        metadata = pod["metadata"]
        kept = [item for item in metadata["finalizers"] if item != TRACKING]
        patch = {"metadata": {"uid": metadata["uid"], "finalizers": kept or None}}
        with ignoring(404, 409, 422):
            await self._ctx.client.patch("pods", name, patch, namespace)

    # Status

    async def _count(self, job: Object, counts: Tally, verdict: Verdict | None, failed: bool) -> None:
        """Record the ends, take the finalizers off, raise the counters; each step may be the last before a crash."""
        uncounted = deep_copy(job["status"].get("uncountedTerminatedPods") or {})
        if not rules.is_indexed(job):
            _add(uncounted, "succeeded", counts.new_succeeded)
        _add(uncounted, "failed", counts.new_failed)
        target = ("FailureTarget" if failed else "SuccessCriteriaMet", verdict) if verdict else None
        job = await self._write(job, self._status(job, counts, uncounted, target))
        recorded = {pod["metadata"]["uid"]: pod for pod in self._owned(job) if rules.is_tracked(pod)}
        named = [uid for uids in uncounted.values() for uid in uids]
        ended = {pod["metadata"]["uid"] for pod in [*counts.new_succeeded, *counts.ignored]}
        await self._untrack([recorded[uid] for uid in {*named, *ended} if uid in recorded])
        await self._settle(job, verdict, failed)

    async def _settle(self, job: Object, verdict: Verdict | None, failed: bool) -> None:
        """Move recorded ends into the counters and finish the Job once nothing runs."""
        counts = rules.tally(job, self._owned(job))
        status = deep_copy(job["status"])
        tracked = {pod["metadata"]["uid"] for pod in self._owned(job) if rules.is_tracked(pod)}
        uncounted = status.get("uncountedTerminatedPods") or {}
        for field in ("succeeded", "failed"):
            done = [uid for uid in uncounted.get(field) or () if uid not in tracked]
            if done:
                status[field] = status.get(field, 0) + len(done)
                uncounted[field] = [uid for uid in uncounted[field] if uid in tracked]
        status["uncountedTerminatedPods"] = {field: uids for field, uids in uncounted.items() if uids}
        open_ends = [counts.active, counts.terminating, counts.new_failed, counts.new_succeeded]
        if verdict and not any(open_ends) and not status["uncountedTerminatedPods"]:
            self._finish(job, status, verdict, failed)
        await self._write(job, status)

    def _finish(self, job: Object, status: Object, verdict: Verdict, failed: bool) -> None:
        now = rfc3339(self._ctx.clock.now())
        status["conditions"].append(_condition("Failed" if failed else "Complete", "True", *verdict, now))
        if failed:
            self._ctx.events.event(job, "Warning", *verdict)
        else:
            status["completionTime"] = now
            self._ctx.events.event(job, "Normal", "Completed", "Job completed")

    def _status(self, job: Object, counts: Tally, uncounted: Object, target: tuple[str, Verdict] | None) -> Object:
        status = deep_copy(job["status"])
        pods = self._owned(job)
        now_active = rules.tally(job, pods)
        status.update(active=len(now_active.active), ready=sum(map(is_ready, now_active.active)))
        status.update(terminating=len(now_active.terminating), uncountedTerminatedPods=uncounted)
        if rules.is_indexed(job):
            status["completedIndexes"] = rules.format_indexes(counts.completed)
            status["succeeded"] = len(counts.completed)
            if job["spec"].get("backoffLimitPerIndex") is not None:
                status["failedIndexes"] = rules.format_indexes(counts.failed_indexes)
        if target and not condition_true(job, target[0]):
            now = rfc3339(self._ctx.clock.now())
            status.setdefault("conditions", []).append(_condition(target[0], "True", *target[1], now))
        always = ("ready", "terminating", "uncountedTerminatedPods", "failedIndexes")
        return {field: value for field, value in status.items() if value or field in always}

    async def _write(self, job: Object, status: Object) -> Object:
        cached = self._jobs.get(*key_of(job))
        before: Any = cached if cached is not None else job
        written = await update_status(self._ctx, JOBS, {**job, "status": before.get("status") or {}}, status)
        return {**written, "status": {"uncountedTerminatedPods": {}, **(written.get("status") or {})}}


def _job_of(pod: Object) -> list[str]:
    owner = controller_of(pod)
    return [f"{pod['metadata']['namespace']}/{owner['name']}"] if owner and owner["kind"] == "Job" else []


def _abandoned(pod: Object, job: Object | None) -> bool:
    """Tell whether nobody will count the Pod any more."""
    if job is None or (controller_of(pod) or {}).get("uid") != job["metadata"]["uid"]:
        return True
    return is_finished(job) or is_deleting(pod)


def _add(uncounted: Object, field: str, pods: list[Object]) -> None:
    if pods:
        uncounted[field] = [*(uncounted.get(field) or ()), *(pod["metadata"]["uid"] for pod in pods)][:BURST]


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> Object:
    stamps = {"lastProbeTime": now, "lastTransitionTime": now}
    return {"type": kind, "status": status, "reason": reason, "message": message, **stamps}
