"""The `Client` of the control plane: the same REST code without a network.

Stands for client-go's loopback client in kube-apiserver. Defaults, admission, validation and conflicts are those of
a request over HTTPS; encoding is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from kitlib.cluster.apiserver import deletion, errors, subresources
from kitlib.cluster.apiserver.apiextensions.customresources import CustomResources
from kitlib.cluster.apiserver.auth import Authenticator, User
from kitlib.cluster.apiserver.options import ListOptions, WriteOptions
from kitlib.cluster.apiserver.patch import clone
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.rest import REST
from kitlib.cluster.apiserver.watch import Watch
from kitlib.cluster.client import MERGE_PATCH, delete_options
from kitlib.cluster.objects import Object
from kitlib.cluster.store import StoreError


class InProcessClient:
    """See `kitlib.cluster.client.Client`; what it returns is shared with the store and read-only.

    Args:
        rest: The API server's REST code.
        custom: The kinds that CustomResourceDefinitions define.
        authenticator: Knows the tokens, for reviews and token requests.
        user: Component name; the field manager of what it writes.
    """

    def __init__(self, rest: REST, custom: CustomResources, authenticator: Authenticator, user: str) -> None:
        self._rest = rest
        self._custom = custom
        self._authenticator = authenticator
        self._user = User(user, ("system:masters", "system:authenticated"))

    def _options(self) -> WriteOptions:
        return WriteOptions(field_manager=self._user.name, field_validation="Ignore")

    def _kind(self, resource: str) -> Kind:
        try:
            return self._custom.lookup(resource)
        except KeyError:
            raise errors.no_such_resource() from None

    async def get(self, resource: str, name: str, namespace: str | None = None, *, subresource: str = "") -> Object:
        """See `Client.get`."""
        kind = self._kind(resource)
        if subresource == "scale":
            return subresources.get_scale(self._rest, kind, namespace or "", name)
        return self._rest.entry(kind, namespace or "", name).obj

    async def list(
        self, resource: str, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> Object:
        """See `Client.list`."""
        kind = self._kind(resource)
        options = ListOptions(label_selector=label_selector, field_selector=field_selector)
        entries, meta = self._rest.entries(kind, _scope(kind, namespace), options)
        head = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta}
        return {**head, "items": [entry.obj for entry in entries]}

    async def watch(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[tuple[str, Object]]:
        """See `Client.watch`."""
        kind = self._kind(resource)
        options = ListOptions(
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version=resource_version,
            allow_watch_bookmarks=True,
        )
        watch = Watch(self._rest.store, kind, _scope(kind, namespace), options)
        try:
            async for batch in watch.batches():
                if isinstance(batch, dict):
                    yield "BOOKMARK", batch
                    continue
                for change in batch:
                    yield change.type, change.entry.obj
        finally:
            watch.close()

    async def create(
        self, resource: str, obj: Object, namespace: str | None = None, *, name: str = "", subresource: str = ""
    ) -> Object:
        """See `Client.create`."""
        await asyncio.sleep(0)
        kind, body, options = self._kind(resource), clone(obj), self._options()
        try:
            return subresources.post(
                self._rest, self._authenticator, self._user, kind, namespace or "", name, body, options, subresource
            )
        except StoreError as error:
            raise errors.internal(str(error)) from error

    async def update(self, resource: str, obj: Object, *, subresource: str = "") -> Object:
        """See `Client.update`."""
        await asyncio.sleep(0)
        kind, body, options = self._kind(resource), clone(obj), self._options()
        meta = body.get("metadata") or {}
        namespace, name = meta.get("namespace") or "", meta.get("name") or ""
        try:
            if subresource == "scale":
                return subresources.set_scale(self._rest, kind, namespace, name, body, options)
            return self._rest.update(kind, namespace, name, body, options, subresource)[0]
        except StoreError as error:
            raise errors.internal(str(error)) from error

    async def patch(
        self,
        resource: str,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        subresource: str = "",
        content_type: str = MERGE_PATCH,
    ) -> Object:
        """See `Client.patch`."""
        await asyncio.sleep(0)
        kind, body, options = self._kind(resource), clone(patch), self._options()
        try:
            if subresource == "scale":
                return subresources.set_scale(self._rest, kind, namespace or "", name, body, options, content_type)
            return self._rest.patch(kind, namespace or "", name, body, content_type, options, subresource)[0]
        except StoreError as error:
            raise errors.internal(str(error)) from error

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        """See `Client.delete`."""
        await asyncio.sleep(0)
        asked = delete_options(grace_period_seconds, propagation_policy, uid, resource_version)
        try:
            return deletion.delete(self._rest, self._kind(resource), namespace or "", name, asked, self._options())
        except StoreError as error:
            raise errors.internal(str(error)) from error


def _scope(kind: Kind, namespace: str | None) -> str | None:
    return namespace if kind.namespaced else ""
