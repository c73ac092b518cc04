"""What a path means.

Stands for k8s.io/apiserver's `RequestInfo`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from kitlib.cluster.apiserver import registry
from kitlib.cluster.apiserver.registry import Kind

_NAMESPACE_PARTS = ("status", "finalize")


class RequestInfo(NamedTuple):
    """A path of the API, taken apart.

    Attributes:
        group: Empty for the core group.
        version: Such as `v1`.
        resource: Plural, such as `pods`; empty when the path names no resource (discovery).
        namespace: Empty for cluster-scoped objects and for all namespaces.
        name: Object name; empty for the collection.
        subresource: Such as `log`; empty for the object itself.
        rest: What follows the subresource, as in `proxy/index.html`, with its slashes.
        kind: The kind that is served there, or None.
    """

    group: str
    version: str
    resource: str
    namespace: str
    name: str
    subresource: str
    rest: str
    kind: Kind | None


@lru_cache(maxsize=512)
def parse(path: str) -> RequestInfo | None:
    """Take a raw path (still percent-encoded) apart; None when it is no path of the API."""
    parts = path.split("/")[1:]
    if len(parts) < 2 or parts[0] not in ("api", "apis"):
        return None
    group, at = ("", 1) if parts[0] == "api" else (parts[1], 2)
    if len(parts) <= at or not parts[at]:
        return None
    version, names = parts[at], parts[at + 1 :]
    if names and names[-1] == "" and "proxy" not in names:
        names = names[:-1]
    names = [unquote(name) for name in names[:4]] + names[4:]
    namespace = ""
    if len(names) > 2 and names[0] == "namespaces" and names[2] not in _NAMESPACE_PARTS:
        namespace, names = names[1], [*names[2:3], *map(unquote, names[3:5]), *names[5:]]
    resource, name, subresource, *rest = [*names, "", "", ""][: max(len(names), 3)]
    kind = registry.by_path(group, version, resource)
    return RequestInfo(group, version, resource, namespace, name, subresource, "/".join(rest), kind)
