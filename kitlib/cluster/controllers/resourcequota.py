"""ResourceQuota: keeps the status of quotas, which `kubectl describe quota` shows.

Stands for `pkg/controller/resourcequota`. The rule: `status.hard` is the spec's, `status.used` counts what there is.
Admission counts for itself, so nothing passes a quota whose status is late.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from kitlib.cluster import quota
from kitlib.cluster.controllers.common import Context, update_status
from kitlib.cluster.controllers.resources import NAMESPACED_RESOURCES
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, key_of

RESOURCE = "resourcequotas"


class ResourceQuotaController(Controller):
    name = "resourcequota-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=1)
        self._ctx = ctx
        self._quotas = ctx.informers(RESOURCE)
        self._counted = {name: ctx.informers(name) for name in NAMESPACED_RESOURCES}
        self._quotas.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        for resource, informer in self._counted.items():
            informer.add_handler(self._handler(resource))

    def _handler(self, resource: str) -> Callable[[str, Object | None, Object], None]:
        def changed(kind: str, _: Object | None, new: Object) -> None:
            if kind != "MODIFIED" or resource == "pods":
                for each in self._quotas.list(new["metadata"]["namespace"]):
                    self.add_dependent(key_of(each))

        return changed

    async def reconcile(self, key: Key) -> None:
        """Write the status of one quota."""
        found = self._quotas.get(*key)
        if found is None:
            return
        hard = found["spec"].get("hard") or {}
        used = dict.fromkeys(hard, Decimal(0))
        for resource, informer in self._counted.items():
            for obj in informer.list(key[0]):
                for name, value in quota.usage(resource, obj).items():
                    if name in used:
                        used[name] += value
        status = {"hard": hard, "used": {name: quota.text(value) for name, value in used.items()}}
        await update_status(self._ctx, RESOURCE, found, status)
