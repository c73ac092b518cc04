"""CronJob: makes a Job at each time of a schedule.

Stands for `pkg/controller/cronjob`. The rule: the latest time that has passed since the last one gets a Job, named
after the CronJob and the time, unless it is suspended, too late (`startingDeadlineSeconds`), or a former Job still runs
and `concurrencyPolicy` forbids two (`Replace` deletes the former one). Finished Jobs beyond the history limits go.
"""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo

from kitlib.cluster.client import ApiError, ignoring
from kitlib.cluster.clock import parse_time, rfc3339
from kitlib.cluster.controllers.common import Context, owner_reference, update_status, watch_owned
from kitlib.cluster.cron import Schedule
from kitlib.cluster.events import object_reference
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, condition_true, controller_of, deep_copy, is_deleting, key_of

RESOURCE, JOBS = "cronjobs.batch", "jobs.batch"
SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
TOO_MANY_MISSED = 100


class CronJobController(Controller):
    name = "cronjob-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._cron_jobs, self._jobs = ctx.informers(RESOURCE), ctx.informers(JOBS)
        self._cron_jobs.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        watch_owned(self._jobs, "CronJob", self.queue.add)

    async def reconcile(self, key: Key) -> None:
        """Start what is due, forget what is over, come back at the next time."""
        cron_job = self._cron_jobs.get(*key)
        if cron_job is None:
            return
        uid = cron_job["metadata"]["uid"]
        jobs = [job for job in self._jobs.owned_by(uid) if (controller_of(job) or {}).get("uid") == uid]
        status = self._known(cron_job, jobs)
        await self._trim(cron_job, jobs)
        if not is_deleting(cron_job) and not cron_job["spec"].get("suspend"):
            await self._start_due(cron_job, jobs, status)
        if not status["active"]:
            del status["active"]
        await update_status(self._ctx, RESOURCE, cron_job, status)

    def _known(self, cron_job: Object, jobs: list[Object]) -> Object:
        """Return the status with the Jobs that run now, and tell of those that have ended."""
        status = deep_copy(cron_job.get("status") or {})
        by_uid = {job["metadata"]["uid"]: job for job in jobs}
        active = {reference["uid"]: reference["name"] for reference in status.get("active") or ()}
        for uid, name in active.items():
            if uid not in by_uid:
                self._ctx.events.event(cron_job, "Normal", "MissingJob", f"Active job went missing: {name}")
        status["active"] = []
        for uid, job in by_uid.items():
            if _is_finished(job):
                self._note_end(cron_job, job, status, uid in active)
            elif uid in active or SCHEDULED_AT in (job["metadata"].get("annotations") or {}):
                status["active"].append(object_reference(job))
            else:
                text = f"Saw a job that the controller did not create or forgot: {job['metadata']['name']}"
                self._ctx.events.event(cron_job, "Warning", "UnexpectedJob", text)
        return status

    def _note_end(self, cron_job: Object, job: Object, status: Object, was_active: bool) -> None:
        complete = condition_true(job, "Complete")
        if was_active:
            text = f"Saw completed job: {job['metadata']['name']}, condition: {'Complete' if complete else 'Failed'}"
            self._ctx.events.event(cron_job, "Normal", "SawCompletedJob", text)
        if complete:
            ended = job["status"]["completionTime"]
            status["lastSuccessfulTime"] = max(status.get("lastSuccessfulTime") or ended, ended)

    async def _start_due(self, cron_job: Object, jobs: list[Object], status: Object) -> None:
        spec, now = cron_job["spec"], self._ctx.clock.now()
        try:
            due, upcoming = times(cron_job, now)
        except (ValueError, KeyError) as error:
            text = f"unparseable schedule: {spec['schedule']} : {error}"
            self._ctx.events.event(cron_job, "Warning", "UnparseableSchedule", text)
            return
        if upcoming is not None:
            self.queue.add_after(key_of(cron_job), upcoming - now + 0.1)
        if due is None:
            return
        limit = spec.get("startingDeadlineSeconds")
        if limit is not None and due + limit < now:
            text = f"Missed scheduled time to start a job: {rfc3339(due)}"
            self._ctx.events.event(cron_job, "Warning", "MissSchedule", text)
            return
        policy = spec.get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and status["active"]:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._ctx.events.event(cron_job, "Normal", "JobAlreadyActive", text)
            return
        if policy == "Replace":
            for job in [job for job in jobs if not _is_finished(job)]:
                await self._delete(cron_job, job)
            status["active"] = []
        job = await self._create(cron_job, due)
        status["active"].append(object_reference(job))
        status["lastScheduleTime"] = rfc3339(due)

    async def _create(self, cron_job: Object, due: float) -> Object:
        namespace, name = key_of(cron_job)
        template = deep_copy(cron_job["spec"]["jobTemplate"])
        metadata = template.get("metadata") or {}
        zone = _zone(cron_job)
        stamp = datetime.fromtimestamp(due, zone).isoformat().replace("+00:00", "Z")
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": f"{name}-{int(due) // 60}",
                "namespace": namespace,
                "labels": metadata.get("labels") or {},
                "annotations": {**(metadata.get("annotations") or {}), SCHEDULED_AT: stamp},
                "ownerReferences": [owner_reference(cron_job)],
            },
            "spec": template["spec"],
        }
        try:
            created = await self._ctx.client.create(JOBS, job, namespace)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return await self._ctx.client.get(JOBS, f"{name}-{int(due) // 60}", namespace)
            self._ctx.events.event(cron_job, "Warning", "FailedCreate", f"Error creating job: {error.message}")
            raise
        text = f"Created job {created['metadata']['name']}"
        self._ctx.events.event(cron_job, "Normal", "SuccessfulCreate", text)
        return created

    async def _trim(self, cron_job: Object, jobs: list[Object]) -> None:
        """Delete the oldest finished Jobs beyond the history limits."""
        limits = (("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1))
        for end, field, usual in limits:
            ended = [job for job in jobs if condition_true(job, end) and not is_deleting(job)]
            ended.sort(key=lambda job: (job["metadata"]["creationTimestamp"], job["metadata"]["name"]))
            for job in ended[: max(0, len(ended) - cron_job["spec"].get(field, usual))]:
                await self._delete(cron_job, job)

    async def _delete(self, cron_job: Object, job: Object) -> None:
        namespace, name = key_of(job)
        uid = job["metadata"]["uid"]
        with ignoring(404):
            await self._ctx.client.delete(JOBS, name, namespace, uid=uid, propagation_policy="Background")
        self._ctx.events.event(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {name}")


def _is_finished(job: Object) -> bool:
    return condition_true(job, "Complete") or condition_true(job, "Failed")


def _zone(cron_job: Object) -> tzinfo:
    name = cron_job["spec"].get("timeZone")
    if not name:
        return timezone.utc
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def times(cron_job: Object, now: float) -> tuple[float | None, float | None]:
    """Return the latest time that is due, None when there is none, and the next one.

    Raises:
        ValueError: The schedule cannot be read.
        KeyError: There is no such time zone.
    """
    schedule, zone = Schedule(cron_job["spec"]["schedule"]), _zone(cron_job)
    last = (cron_job.get("status") or {}).get("lastScheduleTime") or cron_job["metadata"]["creationTimestamp"]
    earliest = parse_time(last)
    limit = cron_job["spec"].get("startingDeadlineSeconds")
    if limit is not None:
        earliest = max(earliest, now - limit)
    due: float | None = None
    upcoming = schedule.next(datetime.fromtimestamp(earliest, zone))
    for _ in range(TOO_MANY_MISSED):
        if upcoming is None or upcoming.timestamp() > now:
            break
        due = upcoming.timestamp()
        upcoming = schedule.next(upcoming)
    else:
        upcoming = schedule.next(datetime.fromtimestamp(now, zone))
    return due, upcoming.timestamp() if upcoming else None
