"""Disruption: keeps the status of PodDisruptionBudgets, which evictions ask.

Stands for `pkg/controller/disruption`. The rule: as many healthy Pods may be evicted as there are above
`minAvailable`, or above what `maxUnavailable` leaves of the expected number. Left out: `unhealthyPodEvictionPolicy`,
which is the API server's business.
"""

from __future__ import annotations

from kitlib.cluster.controllers.common import Context, update_status, with_condition
from kitlib.cluster.controllers.deployment_rules import scaled
from kitlib.cluster.controllers.resources import resource_of
from kitlib.cluster.informer import Controller
from kitlib.cluster.labels import matches
from kitlib.cluster.objects import Key, Object, controller_of, is_active, is_ready, key_of

RESOURCE = "poddisruptionbudgets.policy"
_OWNERS = ("replicasets.apps", "statefulsets.apps", "replicationcontrollers")


class DisruptionController(Controller):
    name = "disruption-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=1)
        self._ctx = ctx
        self._budgets, self._pods = ctx.informers(RESOURCE), ctx.informers("pods")
        self._owners = {name: ctx.informers(name) for name in _OWNERS}
        self._budgets.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, _: str, old: Object | None, pod: Object) -> None:
        for budget in self._budgets.list(pod["metadata"]["namespace"]):
            if matches(budget["spec"].get("selector"), pod["metadata"].get("labels")):
                self.queue.add(key_of(budget))

    async def reconcile(self, key: Key) -> None:
        """Write the status of one budget."""
        budget = self._budgets.get(*key)
        if budget is None:
            return
        pods = [pod for pod in self._pods.select(key[0], budget["spec"].get("selector")) if is_active(pod)]
        if not pods:
            self._ctx.events.event(budget, "Normal", "NoPods", "No matching pods found")
        expected = self._expected(pods)
        spec = budget["spec"]
        if "maxUnavailable" in spec:
            desired = max(0, expected - scaled(spec["maxUnavailable"], expected, up=True))
        else:
            desired = scaled(spec.get("minAvailable", 1), expected, up=True)
        healthy = sum(map(is_ready, pods))
        allowed = max(0, healthy - desired) if expected else 0
        await self._write(budget, healthy, desired, expected, allowed)

    async def _write(self, budget: Object, healthy: int, desired: int, expected: int, allowed: int) -> None:
        before = budget.get("status") or {}
        reason = "SufficientPods" if allowed else "InsufficientPods"
        conditions = with_condition(
            before.get("conditions") or (),
            "DisruptionAllowed",
            "True" if allowed else "False",
            reason,
            "",
            self._ctx.clock.now(),
        )
        status = {
            "conditions": conditions,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "disruptionsAllowed": allowed,
            "expectedPods": expected,
            "observedGeneration": budget["metadata"].get("generation", 1),
        }
        await update_status(self._ctx, RESOURCE, budget, status)

    def _expected(self, pods: list[Object]) -> int:
        """Return how many Pods there should be: the replicas of their owners; a Pod without one counts for itself."""
        owners: dict[str, int] = {}
        for pod in pods:
            reference = controller_of(pod)
            owner = self._owner(pod, reference) if reference else None
            uid = reference["uid"] if reference and owner else pod["metadata"]["uid"]
            owners[uid] = owner["spec"].get("replicas", 1) if owner else 1
        return sum(owners.values())

    def _owner(self, pod: Object, reference: Object) -> Object | None:
        informer = self._owners.get(resource_of(reference["apiVersion"], reference["kind"]) or "")
        return informer.get(pod["metadata"]["namespace"], reference["name"]) if informer else None
