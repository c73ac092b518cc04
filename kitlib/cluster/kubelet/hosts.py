"""Names of Services and Pods in each Pod's /etc/hosts.

Stands for cluster DNS (CoreDNS) as far as a hosts file can: `web`, `web.shop`, `web.shop.svc.cluster.local` for a
Service, and `db-0.db` for the Pods behind a headless one. Left out: SRV records, reverse names, wildcard searches; a
headless Service's own name gives its first Pod.
"""

from __future__ import annotations

from collections.abc import Callable

from kitlib.cluster.client import Client
from kitlib.cluster.informer import Informer
from kitlib.cluster.objects import Object

DOMAIN = "svc.cluster.local"
_HEADLESS = "service.kubernetes.io/headless"


class Names:
    """The names that Pods may use.

    Args:
        client: The API.
        services: Cache of all Services.
        on_change: Called when names changed.
    """

    def __init__(self, client: Client, services: Informer, on_change: Callable[[], None]) -> None:
        self._services = services
        self.slices = Informer(client, "endpointslices.discovery.k8s.io", label_selector=_HEADLESS)
        for informer in (services, self.slices):
            informer.add_handler(lambda *_: on_change())

    def lines(self, namespace: str) -> list[str]:
        """Return the lines of /etc/hosts that a Pod of this namespace gets."""
        found = []
        for service in self._services.list():
            ip = service["spec"].get("clusterIP") or "None"
            if ip != "None":
                metadata = service["metadata"]
                found.append(_line(ip, metadata["name"], metadata["namespace"], namespace))
        for endpoints in self.slices.list():
            found += _endpoint_lines(endpoints, namespace)
        return sorted(found)


def _endpoint_lines(endpoints: Object, namespace: str) -> list[str]:
    metadata = endpoints["metadata"]
    service = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
    lines = []
    for endpoint in endpoints.get("endpoints") or []:
        if (endpoint.get("conditions") or {}).get("ready") is False:
            continue
        names = [f"{endpoint['hostname']}.{service}", service] if endpoint.get("hostname") else [service]
        lines += [_line(endpoint["addresses"][0], name, metadata["namespace"], namespace) for name in names]
    return lines


def _line(ip: str, name: str, namespace: str, seen_from: str) -> str:
    names = [f"{name}.{namespace}.{DOMAIN}", f"{name}.{namespace}.svc", f"{name}.{namespace}"]
    return f"{ip}\t{' '.join([*names, name] if namespace == seen_from else names)}"
