"""What every namespace has: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.

Stands for `pkg/controller/serviceaccount` and `pkg/controller/certificates/rootcacertpublisher`. The rule: both exist
in each active namespace, and come back when deleted.
"""

from __future__ import annotations

from kitlib.cluster.client import ApiError
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, is_deleting, key_of

ROOT_CA = "kube-root-ca.crt"


class ServiceAccountController(Controller):
    name = "serviceaccount-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock, workers=1)
        self._ctx = ctx
        self._namespaces = ctx.informers("namespaces")
        self._accounts, self._maps = ctx.informers("serviceaccounts"), ctx.informers("configmaps")
        self._namespaces.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        self._accounts.add_handler(self._changed)
        self._maps.add_handler(self._changed)

    def _changed(self, kind: str, _: Object | None, obj: Object) -> None:
        name = obj["metadata"]["name"]
        if kind == "DELETED" and name in ("default", ROOT_CA) or kind == "MODIFIED" and name == ROOT_CA:
            self.queue.add(("", obj["metadata"]["namespace"]))

    async def reconcile(self, key: Key) -> None:
        """Create what one namespace lacks."""
        namespace = self._namespaces.get(*key)
        if namespace is None or is_deleting(namespace):
            return
        name = namespace["metadata"]["name"]
        if self._accounts.get(name, "default") is None:
            metadata = {"name": "default", "namespace": name}
            await self._create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        data = {"ca.crt": self._ctx.config.ca_file.read_text()}
        present = self._maps.get(name, ROOT_CA)
        if present is None:
            about = "Contains a CA bundle that can be used to verify the kube-apiserver."
            metadata = {"name": ROOT_CA, "namespace": name, "annotations": {"kubernetes.io/description": about}}
            config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            await self._create("configmaps", config_map)
        elif present.get("data") != data:
            await self._ctx.client.update("configmaps", {**present, "data": data})

    async def _create(self, resource: str, obj: Object) -> None:
        try:
            await self._ctx.client.create(resource, obj, obj["metadata"]["namespace"])
        except ApiError as error:
            terminating = "being terminated" in error.message
            if error.reason != "AlreadyExists" and not terminating:
                raise
