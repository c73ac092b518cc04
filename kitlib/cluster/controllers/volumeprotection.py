"""Keeps a claim that is deleted until no Pod uses it, and a volume until no claim is bound to it.

Stands for `pkg/controller/volume/pvcprotection` and `pvprotection`: their finalizers, which admission adds, are taken
off here. A claim is in use while a Pod that names it has a node, whether that Pod has finished or not.
"""

from __future__ import annotations

from kitlib.cluster.controllers.common import Context
from kitlib.cluster.informer import Controller, Informer
from kitlib.cluster.objects import Object, is_deleting, key_of
from kitlib.cluster.volumeclaims import CLAIMS, VOLUMES, claims_of

FINALIZERS = {CLAIMS: "kubernetes.io/pvc-protection", VOLUMES: "kubernetes.io/pv-protection"}


def _by_claim(pod: Object) -> set[str]:
    namespace = pod["metadata"]["namespace"]
    return {f"{namespace}/{name}" for name in claims_of(pod)} if pod["spec"].get("nodeName") else set()


class VolumeProtectionController(Controller):
    name = "pvc-protection-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=1)
        self._ctx = ctx
        self._pods = ctx.informers("pods")
        self._pods.add_index("claim", _by_claim)
        self._pods.add_handler(self._pod_changed)
        for resource in FINALIZERS:
            self._watch(resource, ctx.informers(resource))

    def _watch(self, resource: str, informer: Informer) -> None:
        def changed(kind: str, _: Object | None, obj: Object) -> None:
            if is_deleting(obj) and kind != "DELETED":
                self.queue.add((resource, *key_of(obj)))

        informer.add_handler(changed)

    def _pod_changed(self, kind: str, _: Object | None, pod: Object) -> None:
        if kind == "DELETED":
            for name in claims_of(pod):
                self.queue.add((CLAIMS, pod["metadata"]["namespace"], name))

    async def reconcile(self, key: tuple[str, str, str]) -> None:
        """Let one object go, if it is to go and nothing needs it."""
        resource, namespace, name = key
        obj = self._ctx.informers(resource).get(namespace, name)
        if obj is None or not is_deleting(obj) or self._is_used(resource, obj):
            return
        kept = [item for item in obj["metadata"].get("finalizers") or () if item != FINALIZERS[resource]]
        if kept != obj["metadata"].get("finalizers", []):
            metadata = {"finalizers": kept, "resourceVersion": obj["metadata"]["resourceVersion"]}
            await self._ctx.client.patch(resource, name, {"metadata": metadata}, namespace or None)

    def _is_used(self, resource: str, obj: Object) -> bool:
        if resource == CLAIMS:
            return bool(self._pods.indexed("claim", "/".join(key_of(obj))))
        return bool((obj.get("status") or {}).get("phase") == "Bound")
