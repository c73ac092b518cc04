"""Namespace: empties a namespace that is being deleted.

Stands for `pkg/controller/namespace`. The rule: once a Namespace has a deletion timestamp, delete its Pods, and when
they are gone everything else in it; when nothing is left, take the finalizer `kubernetes` off, upon which the API
server removes the Namespace. Left out: the conditions that tell what deletion waits for.
"""

from __future__ import annotations

import asyncio

from kitlib.cluster.client import ApiError, ignoring
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.controllers.resources import DEFINITIONS, NAMESPACED_RESOURCES, custom_namespaced
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, is_deleting, key_of

RETRY_SECONDS = 1.0


class NamespaceController(Controller):
    name = "namespace-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=2)
        self._ctx = ctx
        self._namespaces = ctx.informers("namespaces")
        self._pods = ctx.informers("pods")
        self._definitions = ctx.informers(DEFINITIONS)
        self._namespaces.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, kind: str, _: Object | None, pod: Object) -> None:
        if kind == "DELETED":
            self.queue.add(("", pod["metadata"]["namespace"]))

    async def reconcile(self, key: Key) -> None:
        """Delete what is left, and the finalizer when nothing is."""
        namespace = self._namespaces.get(*key)
        if namespace is None or not is_deleting(namespace):
            return
        name = namespace["metadata"]["name"]
        left = await self._empty("pods", name)
        if not left:
            others = [resource for resource in NAMESPACED_RESOURCES if resource != "pods"]
            others += [*custom_namespaced(self._definitions), "events"]
            left = sum([await self._empty(resource, name) for resource in others])
        if left:
            self.queue.add_after(key, RETRY_SECONDS)
        else:
            await self._finalize(namespace)

    async def _empty(self, resource: str, namespace: str) -> int:
        """Delete what a namespace has of a resource; return how much is still there."""
        items = await self._list(resource, namespace)
        doomed = [item for item in items if not is_deleting(item)]
        await asyncio.gather(*(self._delete(resource, item) for item in doomed))
        return len(await self._list(resource, namespace)) if items else 0

    async def _list(self, resource: str, namespace: str) -> list[Object]:
        try:
            return list((await self._ctx.client.list(resource, namespace))["items"])
        except ApiError as error:
            if error.code != 404:
                raise
            return []  # a custom resource that is no longer served

    async def _delete(self, resource: str, obj: Object) -> None:
        namespace, name = key_of(obj)
        with ignoring(404):
            await self._ctx.client.delete(resource, name, namespace, propagation_policy="Background")

    async def _finalize(self, namespace: Object) -> None:
        kept = [item for item in (namespace.get("spec") or {}).get("finalizers") or () if item != "kubernetes"]
        spec = {**(namespace.get("spec") or {}), "finalizers": kept}
        with ignoring(404):
            await self._ctx.client.update("namespaces", {**namespace, "spec": spec}, subresource="finalize")
