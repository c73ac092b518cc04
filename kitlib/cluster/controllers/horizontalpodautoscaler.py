"""HorizontalPodAutoscaler: says that it cannot act.

Stands for `pkg/controller/podautoscaler` when it gets no metrics: the real controller then reports `ScalingActive`
False with the reason `FailedGetResourceMetric`, and so does this. Scaling by load is left out.
"""

from __future__ import annotations

from kitlib.cluster.controllers.common import Context, update_status, with_condition
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, is_deleting, key_of

RESOURCE = "horizontalpodautoscalers.autoscaling"
REASON = "FailedGetResourceMetric"
MESSAGE = (
    "the HPA was unable to compute the replica count: nothing acts on a HorizontalPodAutoscaler in the embedded cluster"
)


class HorizontalPodAutoscalerController(Controller):
    name = "horizontal-pod-autoscaler"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=1)
        self._ctx = ctx
        self._autoscalers = ctx.informers(RESOURCE)
        self._autoscalers.add_handler(lambda _, old, new: self.queue.add(key_of(new)))

    async def reconcile(self, key: Key) -> None:
        """Write the condition and the Event once."""
        autoscaler = self._autoscalers.get(*key)
        if autoscaler is None or is_deleting(autoscaler):
            return
        before = {"currentReplicas": 0, "desiredReplicas": 0, **(autoscaler.get("status") or {})}
        now = self._ctx.clock.now()
        conditions = before.get("conditions") or ()
        status = {**before, "conditions": with_condition(conditions, "ScalingActive", "False", REASON, MESSAGE, now)}
        if status != autoscaler.get("status"):
            self._ctx.events.event(autoscaler, "Warning", REASON, MESSAGE)
            await update_status(self._ctx, RESOURCE, autoscaler, status)
