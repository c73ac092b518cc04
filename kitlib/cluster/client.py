"""The one door through which every component of the cluster sees the Kubernetes API.

Stands for client-go's REST client. Controllers, scheduler, kubelet and proxy know nothing but the
`Client` protocol below. It has two transports: `HTTPClient` here (kubelets, a process each) and the
in-process one of the API server (control plane). Left out: retries, caching (see `informer.py`) and typed objects;
an object is the plain JSON dict of the API.

Objects that a client returns may be shared with caches: read them, copy them before a change.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Protocol

import aiohttp
import orjson

from kitlib.cluster.objects import Object

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """A request that the API server refused, with its `Status` object.

    Args:
        status: The `v1.Status` object of the answer.

    Attributes:
        status: That object, whole.
        code: HTTP status code, such as 404.
        reason: Machine-readable reason, such as `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `Expired`.
        message: The sentence for people.
    """

    def __init__(self, status: Mapping[str, Any]) -> None:
        self.status = dict(status)
        self.code = int(status.get("code", 500))
        self.reason = str(status.get("reason", ""))
        self.message = str(status.get("message", ""))
        super().__init__(self.message or self.reason)


@contextlib.contextmanager
def ignoring(*codes: int) -> Iterator[None]:
    """Let a request fail with one of these codes: 404 when what is to go, or to be told something, is gone already."""
    try:
        yield
    except ApiError as error:
        if error.code not in codes:
            raise


class Client(Protocol):
    """What a component may do to the API: get, list, watch, create, update, patch, delete.

    A resource is named as kubectl does, plural and group: `pods`, `jobs.batch`, `leases.coordination.k8s.io`.
    `namespace=None` means a cluster-scoped object, or, for `list` and `watch`, all namespaces.
    Every method raises `ApiError` with the server's Status when the request is refused.
    """

    async def get(self, resource: str, name: str, namespace: str | None = None, *, subresource: str = "") -> Object:
        """Return one object."""
        ...

    async def list(
        self, resource: str, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> Object:
        """Return the List object; its `metadata.resourceVersion` may start a watch."""
        ...

    def watch(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield `(type, object)`; type is ADDED, MODIFIED, DELETED or BOOKMARK. Ends when the server ends it.

        Raises `ApiError` with code 410 when `resource_version` is too old.
        """
        ...

    async def create(
        self, resource: str, obj: Object, namespace: str | None = None, *, name: str = "", subresource: str = ""
    ) -> Object:
        """Create an object, or post to the subresource (`binding`, `eviction`) of the object called `name`."""
        ...

    async def update(self, resource: str, obj: Object, *, subresource: str = "") -> Object:
        """Replace an object; a `metadata.resourceVersion` that is not the current one raises 409 Conflict."""
        ...

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
        """Patch an object with a merge, JSON or strategic merge patch."""
        ...

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
        """Delete an object; `uid` and `resource_version` are preconditions (409 when they differ)."""
        ...


def resource_path(resource: str, name: str = "", namespace: str | None = None, subresource: str = "") -> str:
    """Return the URL path of a resource; every group that the cluster's components use is served as v1.

    Args:
        resource: Plural and group, such as `deployments.apps`.
        name: Object name, or empty for the collection.
        namespace: Namespace, or None.
        subresource: Such as `status` or `log`.

    Returns:
        A path such as `/apis/apps/v1/namespaces/default/deployments/web/status`.
    """
    plural, _, group = resource.partition(".")
    parts = ["", "apis", group, "v1"] if group else ["", "api", "v1"]
    if namespace is not None:
        parts += ["namespaces", namespace]
    parts += [part for part in (plural, name, subresource) if part]
    return "/".join(parts)


class HTTPClient:
    """The `Client` over HTTPS with a bearer token.

    Args:
        server: Base URL, such as `https://127.0.0.1:6443`.
        token: Bearer token.
        ca_file: Path of the cluster's CA certificate.
        user_agent: Names the component; the API server uses it as field manager.
    """

    def __init__(self, server: str, token: str, ca_file: str, user_agent: str) -> None:
        """Prepare the TLS context; the connection pool opens on first use."""
        self._server = server
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": user_agent}
        self._ssl = ssl.create_default_context(cafile=ca_file)
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._ssl, limit=0, keepalive_timeout=75)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self._session

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "",
    ) -> Object:
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": content_type or "application/json"} if data is not None else {}
        timeout = aiohttp.ClientTimeout(total=30)
        url = self._server + path
        async with self._open().request(
            method, url, data=data, params=params, headers=headers, timeout=timeout
        ) as response:
            raw = await response.read()
            answer: Object = orjson.loads(raw) if response.content_type == "application/json" else {}
            if response.status >= 400:
                raise ApiError(answer or {"code": response.status, "message": raw.decode(errors="replace")})
            return answer

    async def get(self, resource: str, name: str, namespace: str | None = None, *, subresource: str = "") -> Object:
        """See `Client.get`."""
        return await self._request("GET", resource_path(resource, name, namespace, subresource))

    async def list(
        self, resource: str, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> Object:
        """See `Client.list`."""
        params = _params(labelSelector=label_selector, fieldSelector=field_selector)
        return await self._request("GET", resource_path(resource, "", namespace), params=params)

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
        params = _params(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
        )
        url = self._server + resource_path(resource, "", namespace)
        async with self._open().get(url, params=params) as response:
            if response.status >= 400:
                raise ApiError(orjson.loads(await response.read()))
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"])
                    yield event["type"], event["object"]

    async def create(
        self, resource: str, obj: Object, namespace: str | None = None, *, name: str = "", subresource: str = ""
    ) -> Object:
        """See `Client.create`."""
        return await self._request("POST", resource_path(resource, name, namespace, subresource), body=obj)

    async def update(self, resource: str, obj: Object, *, subresource: str = "") -> Object:
        """See `Client.update`."""
        meta = obj["metadata"]
        path = resource_path(resource, meta["name"], meta.get("namespace"), subresource)
        return await self._request("PUT", path, body=obj)

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
        path = resource_path(resource, name, namespace, subresource)
        return await self._request("PATCH", path, body=patch, content_type=content_type)

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
        options = delete_options(grace_period_seconds, propagation_policy, uid, resource_version)
        return await self._request("DELETE", resource_path(resource, name, namespace), body=options)


def delete_options(
    grace_period_seconds: int | None, propagation_policy: str, uid: str, resource_version: str
) -> Object:
    """Return the `DeleteOptions` object for the arguments of `Client.delete`."""
    preconditions = _params(uid=uid, resourceVersion=resource_version)
    options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if grace_period_seconds is not None:
        options["gracePeriodSeconds"] = grace_period_seconds
    if propagation_policy:
        options["propagationPolicy"] = propagation_policy
    if preconditions:
        options["preconditions"] = preconditions
    return options


def _params(**values: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}
