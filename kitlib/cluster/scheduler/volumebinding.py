"""The scheduler's part in binding claims: which nodes a Pod's volumes allow, and the choice for those that wait.

Stands for the plugin VolumeBinding. A Pod runs where its volumes can be reached; a claim of a class with
`WaitForFirstConsumer` is given a volume, or a provisioner, once the Pod's node is chosen, and the Pod is bound when
all its claims are. Left out: capacities of storage, `allowedTopologies`, the access mode ReadWriteOncePod.
"""

from __future__ import annotations

import asyncio

from kitlib.cluster.client import Client
from kitlib.cluster.informer import Informers
from kitlib.cluster.objects import Object, annotation
from kitlib.cluster.volumeclaims import (
    BOUND_BY_CONTROLLER,
    CLAIMS,
    CLASSES,
    NO_PROVISIONER,
    SELECTED_NODE,
    VOLUMES,
    belongs,
    claim_reference,
    claims_of,
    find_volume,
    fits_node,
    is_bound,
    waits_for_consumer,
)

NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
BIND_TIMEOUT = 600.0
"""Seconds after which another node is tried (`bindTimeoutSeconds`)."""


class VolumeBinder:
    """Knows claims, volumes and classes.

    Args:
        client: Writes the choices.
        informers: The scheduler's caches.
    """

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._claims, self._volumes, self._classes = (informers(each) for each in (CLAIMS, VOLUMES, CLASSES))
        self._changed = asyncio.Event()
        for informer in (self._claims, self._volumes):
            informer.add_handler(lambda *_: self._tell())

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def problem(self, pod: Object) -> str:
        """Return why no node at all will do (the PreFilter step), else an empty string."""
        namespace = pod["metadata"]["namespace"]
        for name in claims_of(pod):
            claim = self._claims.get(namespace, name)
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if claim["metadata"].get("deletionTimestamp"):
                return f'persistentvolumeclaim "{name}" is being deleted'
            if (claim.get("status") or {}).get("phase") == "Lost":
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume'
            if not is_bound(claim) and not waits_for_consumer(self._class_of(claim)):
                return UNBOUND
        return ""

    def _class_of(self, claim: Object) -> Object | None:
        return self._classes.get("", claim["spec"].get("storageClassName") or "")

    def reasons(self, pod: Object, node: Object) -> list[str]:
        """Return why the Pod's volumes do not allow a node."""
        found = []
        for name in claims_of(pod):
            claim = self._claims.get(pod["metadata"]["namespace"], name)
            if claim is None:
                continue
            if is_bound(claim):
                volume = self._volumes.get("", claim["spec"]["volumeName"])
                found += [] if volume is not None and fits_node(volume, node) else [NODE_CONFLICT]
            elif not self._can_bind(claim, node):
                found.append(BIND_CONFLICT)
        return sorted(set(found))

    def _can_bind(self, claim: Object, node: Object) -> bool:
        volume = find_volume(claim, self._volumes.list(), delayed=True, node=node)
        if volume is not None:
            return fits_node(volume, node)
        storage_class = self._class_of(claim)
        provisioned = storage_class is not None and storage_class["provisioner"] != NO_PROVISIONER
        return provisioned and annotation(claim, SELECTED_NODE) in ("", node["metadata"]["name"])

    async def bind(self, pod: Object, node: Object) -> None:
        """Choose volumes on the Pod's node for claims that waited for it; return when all claims are bound.

        Raises:
            ApiError: A choice could not be written.
            RuntimeError: A claim went elsewhere meanwhile; the Pod has to be scheduled again.
            asyncio.TimeoutError: The provisioner did not deliver.
        """
        namespace = pod["metadata"]["namespace"]
        for name in claims_of(pod):
            claim = self._claims.get(namespace, name)
            if claim is not None and not is_bound(claim):
                await self._choose(claim, node)
        await asyncio.wait_for(self._all_bound(namespace, claims_of(pod)), BIND_TIMEOUT)
        if self.reasons(pod, node):
            raise RuntimeError("volumes are bound to another node")

    async def _choose(self, claim: Object, node: Object) -> None:
        """Name the claim in a free volume, else name the node in the claim, for its provisioner."""
        metadata = claim["metadata"]
        volume = find_volume(claim, self._volumes.list(), delayed=True, node=node)
        if volume is None:
            if annotation(claim, SELECTED_NODE) != node["metadata"]["name"]:
                chosen = {SELECTED_NODE: node["metadata"]["name"]}
                known = {"annotations": chosen, "resourceVersion": metadata["resourceVersion"]}
                await self._client.patch(CLAIMS, metadata["name"], {"metadata": known}, metadata["namespace"])
        elif not belongs(volume, claim):
            own = volume["metadata"]
            known = {"annotations": {BOUND_BY_CONTROLLER: "yes"}, "resourceVersion": own["resourceVersion"]}
            patch = {"metadata": known, "spec": {"claimRef": claim_reference(claim)}}
            await self._client.patch(VOLUMES, own["name"], patch)

    async def _all_bound(self, namespace: str, names: list[str]) -> None:
        while True:
            changed = self._changed
            claims = [self._claims.get(namespace, name) for name in names]
            if any(claim is None for claim in claims):
                raise RuntimeError("a claim is gone")
            bound = [claim for claim in claims if claim is not None and is_bound(claim)]
            if len(bound) == len(names) and all(self._volumes.get("", c["spec"]["volumeName"]) for c in bound):
                return
            await changed.wait()
