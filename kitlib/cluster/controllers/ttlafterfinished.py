"""TTL after finished: deletes a Job some time after its end.

Stands for `pkg/controller/ttlafterfinished`. The rule: a Job that is Complete or Failed for
`spec.ttlSecondsAfterFinished` is deleted with its Pods.
"""

from __future__ import annotations

from kitlib.cluster.clock import parse_time
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, condition, condition_true, is_deleting, key_of


class TTLAfterFinishedController(Controller):
    name = "ttl-after-finished-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=1)
        self._ctx = ctx
        self._jobs = ctx.informers("jobs.batch")
        self._jobs.add_handler(lambda _, old, new: self.queue.add(key_of(new)))

    async def reconcile(self, key: Key) -> None:
        """Delete the Job when its time has come, or look again then."""
        job = self._jobs.get(*key)
        seconds = job["spec"].get("ttlSecondsAfterFinished") if job else None
        if job is None or seconds is None or is_deleting(job):
            return
        kind = next((kind for kind in ("Complete", "Failed") if condition_true(job, kind)), None)
        end = condition(job, kind) if kind else None
        if end is None:
            return
        left = parse_time(end["lastTransitionTime"]) + seconds - self._ctx.clock.now()
        if left > 0:
            self.queue.add_after(key, left)
            return
        namespace, name = key
        uid = job["metadata"]["uid"]
        await self._ctx.client.delete("jobs.batch", name, namespace, uid=uid, propagation_policy="Foreground")
