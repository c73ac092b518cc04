"""What the workers of a node share, and what the containers of one Pod share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kitlib.cluster import images
from kitlib.cluster.client import ApiError, Client
from kitlib.cluster.clock import parse_time
from kitlib.cluster.config import NodeConfig
from kitlib.cluster.events import EventRecorder
from kitlib.cluster.informer import Informer
from kitlib.cluster.kubelet import env, volumes
from kitlib.cluster.kubelet.addresses import Addresses
from kitlib.cluster.kubelet.containers import Surroundings
from kitlib.cluster.kubelet.devices import Devices
from kitlib.cluster.kubelet.runtime_client import RuntimeClient
from kitlib.cluster.kubelet.status import StatusManager
from kitlib.cluster.objects import Object
from kitlib.cluster.portmap import PORT_MAP

_LONGEST_TOKEN_LIFE = 24 * 3600.0
_TOKEN_RETRY_SECONDS = 10.0


@dataclass
class Node:
    """What all workers of a node use.

    Attributes:
        config: The node.
        client: The API.
        runtime: The container runtime.
        recorder: Records Events.
        statuses: Writes Pod statuses.
        services: Cache of all Services.
        addresses: The Pods' addresses.
        devices: The node's GPUs.
        isolation: `namespaces` or `plain`.
        active_pods: Returns the Pods that count against the node's capacity.
        watch_object: Called with `configmaps` or `secrets` and a namespace when a Pod uses one of it.
        names: Returns lines of /etc/hosts for the Services and Pods that a namespace sees.
    """

    config: NodeConfig
    client: Client
    runtime: RuntimeClient
    recorder: EventRecorder
    statuses: StatusManager
    services: Informer
    addresses: Addresses
    devices: Devices
    isolation: str
    active_pods: Callable[[], list[Object]]
    watch_object: Callable[[str, str], None]
    names: Callable[[str], list[str]]

    def next_relist(self) -> float:
        """Return when, by the monotonic clock, all containers are looked through next: the same moment for all Pods.

        Nothing is polled: the runtime tells at once what happens. But a real kubelet removes what it has seen ended in
        one of these looks (`GenericPLEG`), so that a Pod stays `Terminating` for up to a period.
        """
        period = self.config.cluster.settings.generic_pleg_relist_period
        return (time.monotonic() // period + 1) * period


@dataclass
class Token:
    """A ServiceAccount's token in a volume.

    Attributes:
        text: The token.
        expires: When it does, in seconds since the epoch.
        renew_at: When the next one is asked for.
    """

    text: str
    expires: float
    renew_at: float


def token_of(text: str, issued: float, expires: float) -> Token:
    """Return a token that is renewed at 80 % of its life, and after a day at the latest."""
    return Token(text, expires, issued + min(0.8 * (expires - issued), _LONGEST_TOKEN_LIFE))


@dataclass
class PodFacts:
    """What one Pod's containers share on this node.

    Attributes:
        node: The node.
        pod: The latest object.
        folder: The Pod's folder.
        ip: Its address; empty before it has one.
        port_map: Its mapped ports.
        gpus: GPUs by container.
        volumes: Where each volume is.
    """

    node: Node
    pod: Object
    folder: Path
    ip: str = ""
    port_map: dict[int, int] = field(default_factory=dict)
    gpus: dict[str, list[int]] = field(default_factory=dict)
    volumes: dict[str, Path] = field(default_factory=dict)
    _objects: dict[tuple[str, str], Object | None] = field(default_factory=dict)
    _claims: dict[str, Object] = field(default_factory=dict)
    _tokens: dict[str, Token] = field(default_factory=dict)
    _released: bool = False

    @property
    def namespace(self) -> str:
        """The Pod's namespace."""
        return str(self.pod["metadata"]["namespace"])

    def event(self, kind: str, reason: str, message: str, path: str = "") -> None:
        """Record an Event about the Pod or, by its path in the spec, one of its containers."""
        reference = {"apiVersion": "v1", "kind": "Pod", **self.pod}
        self.node.recorder.event(reference, kind, reason, message, field_path=path)

    # --- the address

    async def give_address(self) -> None:
        """Give the Pod an address; publish mapped ports where the proxy looks for them."""
        spec = self.pod["spec"]
        ip = self.node.addresses.allocate(bool(spec.get("hostNetwork")))
        self.port_map = self.node.addresses.map_ports(ip, self._ports())
        if self.port_map:
            metadata = self.pod["metadata"]
            text = "{" + ", ".join(f'"{port}": {local}' for port, local in self.port_map.items()) + "}"
            patch = {"metadata": {"annotations": {PORT_MAP: text}}}
            await self.node.client.patch("pods", metadata["name"], patch, self.namespace)
        self.ip = ip

    def _ports(self) -> list[int]:
        found = []
        for container in [*(self.pod["spec"].get("initContainers") or []), *self.pod["spec"]["containers"]]:
            found += [port["containerPort"] for port in container.get("ports") or []]
            try:
                found += images.resolve(container.get("image", "")).ports
            except (images.ImageNotFound, images.InvalidImageName):
                continue
        return found

    def checkpoint(self) -> Object:
        """Return what a restarted kubelet must know of the Pod."""
        return {"ip": self.ip, "port_map": self.port_map, "gpus": self.gpus}

    def restore(self, checkpoint: Object, hold: bool) -> None:
        """Take back what `checkpoint` returned; a Pod that has ended holds neither address nor GPUs."""
        self.ip = checkpoint["ip"]
        self.port_map = {int(port): local for port, local in checkpoint["port_map"].items()}
        self.gpus = checkpoint["gpus"]
        self._released = not hold
        if self._released:
            return
        self.node.addresses.keep(self.ip)
        for container, gpus in self.gpus.items():
            self.node.devices.keep(f"{self.pod['metadata']['uid']}/{container}", gpus)

    def release(self) -> None:
        """Give back address and GPUs, once."""
        if self._released:
            return
        self._released = True
        if not self.pod["spec"].get("hostNetwork"):
            self.node.addresses.release(self.ip)
        self.node.devices.release(self.pod["metadata"]["uid"])

    # --- configuration

    async def refresh(self) -> None:
        """Read the objects that the Pod names and bring its volumes up to date.

        Raises:
            MountFailed: A volume cannot be set up.
        """
        await asyncio.gather(*(self._read(resource, name) for resource, name in references(self.pod["spec"])))
        for volume in self.pod["spec"].get("volumes") or []:
            await self._read_volume(volume)
        memory = self.node.config.memory_dir / self.pod["metadata"]["uid"]
        source = volumes.Source(self.lookup, self._claim, lambda audience: self._tokens[audience].text, memory)
        self.volumes = volumes.set_up(self._with_address(), self.folder / "volumes", source)

    async def _read(self, resource: str, name: str) -> None:
        self.node.watch_object(resource, self.namespace)
        self._objects[resource, name] = await self._get(resource, name, self.namespace)

    async def _get(self, resource: str, name: str, namespace: str | None) -> Object | None:
        try:
            found = await self.node.client.get(resource, name, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return None
        return {**found, "kind": "Secret" if resource == "secrets" else found.get("kind", "")}

    async def _read_volume(self, volume: Object) -> None:
        if "persistentVolumeClaim" in volume:
            name = volume["persistentVolumeClaim"]["claimName"]
            claim = await self._get("persistentvolumeclaims", name, self.namespace)
            bound = ((claim or {}).get("spec") or {}).get("volumeName")
            found = await self._get("persistentvolumes", bound, None) if bound else None
            if found:
                self._claims[name] = found
        for part in (volume.get("projected") or {}).get("sources") or []:
            if "serviceAccountToken" in part:
                await self._read_token(part["serviceAccountToken"])

    async def _read_token(self, spec: Object) -> None:
        """Ask for a token, or for the next one when most of its life is over; an old one will do until it expires."""
        audience, now = spec.get("audience") or "", time.time()
        known = self._tokens.get(audience)
        if known is not None and now < known.renew_at:
            return
        metadata = self.pod["metadata"]
        pod = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        asked: Object = {"audiences": [audience] if audience else [], "boundObjectRef": pod}
        asked["expirationSeconds"] = spec.get("expirationSeconds") or 3600
        account = self.pod["spec"].get("serviceAccountName") or "default"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": asked}
        try:
            answer = await self.node.client.create(
                "serviceaccounts", request, self.namespace, name=account, subresource="token"
            )
        except ApiError as error:
            if known is not None and now < known.expires:
                known.renew_at = now + _TOKEN_RETRY_SECONDS
                return
            raise volumes.MountFailed(f"failed to fetch token: {error}") from error
        status = answer["status"]
        self._tokens[audience] = token_of(status["token"], now, parse_time(status["expirationTimestamp"]))

    def seconds_to_renewal(self) -> float | None:
        """Return when the first of the Pod's tokens is to be renewed, None without one."""
        return min((token.renew_at - time.time() for token in self._tokens.values()), default=None)

    def _claim(self, name: str) -> Object:
        if name not in self._claims:
            raise volumes.MountFailed(
                f"Unable to attach or mount volumes: error processing PVC {self.namespace}/{name}: PVC is not bound"
            )
        return self._claims[name]

    def lookup(self, resource: str, name: str) -> Object | None:
        """Return a ConfigMap or Secret that `refresh` read."""
        return self._objects.get((resource, name))

    def _with_address(self) -> Object:
        address = {"podIP": self.ip, "podIPs": [{"ip": self.ip}], "hostIP": self.node.config.internal_ip}
        known = {**(self.pod.get("status") or {}), **address, "hostIPs": [{"ip": address["hostIP"]}]}
        allocatable = {"cpu": str(self.node.config.cpus), "memory": str(self.node.config.memory_bytes)}
        return {**self.pod, "status": known, "kit_allocatable": allocatable}

    def surroundings(self) -> Surroundings:
        """Return what a container's start needs to know of the Pod."""
        links = self.pod["spec"].get("enableServiceLinks", True)
        services = self.node.services.list() if links else self.node.services.list("default")
        shared = "127.0.0.1" if self.node.config.cluster.loopback == "single" else ""
        return Surroundings(
            self.node.config,
            self._with_address(),
            self.folder,
            self.ip,
            self.lookup,
            self.node.isolation,
            self.port_map,
            self.volumes,
            env.service_variables(services, self.namespace if links else "", shared),
            self.node.names(self.namespace),
        )


def references(spec: Object) -> set[tuple[str, str]]:
    """Return the ConfigMaps and Secrets that a Pod's spec names: resource and name."""
    found = set()
    kinds = ("initContainers", "containers", "ephemeralContainers")
    for container in [container for kind in kinds for container in spec.get(kind) or ()]:
        values = [item.get("valueFrom") or {} for item in container.get("env") or []]
        for source in [*(container.get("envFrom") or []), *values]:
            for key, resource in _REFERENCES.items():
                if key in source:
                    found.add((resource, source[key]["name"]))
    for volume in spec.get("volumes") or []:
        for part in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            if "configMap" in part:
                found.add(("configmaps", part["configMap"]["name"]))
            if "secret" in part:
                found.add(("secrets", part["secret"].get("secretName") or part["secret"].get("name", "")))
    return found


_REFERENCES = {
    "configMapRef": "configmaps",
    "configMapKeyRef": "configmaps",
    "secretRef": "secrets",
    "secretKeyRef": "secrets",
}
