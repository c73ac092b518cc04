"""PersistentVolume and PersistentVolumeClaim: binds the one to the other.

Stands for `pkg/controller/volume/persistentvolume`. The rule: a claim gets the volume that names it, else the
smallest free one of its class that satisfies it, else its class's provisioner is asked to make one. A class with
`WaitForFirstConsumer` leaves the choice to the scheduler. A volume whose claim is gone is Released, for its
provisioner to delete or for people to look at. Left out: recycling, migration to CSI, and the regular resync.
"""

from __future__ import annotations

from kitlib.cluster.client import ApiError
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Object, annotation, is_deleting, key_of
from kitlib.cluster.volumeclaims import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    CLAIMS,
    CLASSES,
    NO_PROVISIONER,
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
    VOLUMES,
    belongs,
    claim_reference,
    claims_of,
    find_volume,
    is_bound,
    waits_for_consumer,
)

_EXTERNAL = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system "
    "administrator. If volume creation is delayed, please verify that the provisioner is running and correctly "
    "registered."
)
Key = tuple[str, str, str]
"""Resource, namespace and name."""


class PersistentVolumeController(Controller):
    name = "persistentvolume-controller"

    def __init__(self, ctx: Context) -> None:
        """Watch claims, volumes and classes; one worker, so that no volume is given away twice."""
        super().__init__(ctx.clock, workers=1)
        self._ctx = ctx
        self._claims, self._volumes, self._classes = (ctx.informers(each) for each in (CLAIMS, VOLUMES, CLASSES))
        self._pods = ctx.informers("pods")
        self._claims.add_handler(self._claim_changed)
        self._volumes.add_handler(self._volume_changed)
        self._classes.add_handler(lambda kind, _, each: self._look_at_unbound(each["metadata"]["name"]))

    def _claim_changed(self, kind: str, _: Object | None, claim: Object) -> None:
        self.queue.add((CLAIMS, *key_of(claim)))
        if kind == "DELETED" and claim["spec"].get("volumeName"):
            self.queue.add((VOLUMES, "", claim["spec"]["volumeName"]))

    def _volume_changed(self, kind: str, _: Object | None, volume: Object) -> None:
        self.queue.add((VOLUMES, *key_of(volume)))
        reference = volume["spec"].get("claimRef")
        if reference:
            self.queue.add((CLAIMS, reference.get("namespace", ""), reference.get("name", "")))
        elif kind != "DELETED":
            self._look_at_unbound(volume["spec"].get("storageClassName") or "")

    def _look_at_unbound(self, storage_class: str) -> None:
        for claim in self._claims.list():
            if not is_bound(claim) and (claim["spec"].get("storageClassName") or "") == storage_class:
                self.queue.add((CLAIMS, *key_of(claim)))

    async def reconcile(self, key: Key) -> None:
        """Bring one claim or one volume nearer to being bound, or released."""
        resource, namespace, name = key
        if resource == VOLUMES:
            volume = self._volumes.get("", name)
            if volume is not None:
                await self._sync_volume(volume)
            return
        claim = self._claims.get(namespace, name)
        if claim is None or is_deleting(claim):
            return
        if claim["spec"].get("volumeName"):
            await self._sync_named(claim)
        else:
            await self._sync_unbound(claim)

    # --- claims

    async def _sync_named(self, claim: Object) -> None:
        """Bind a claim to the volume that it names, by its user's wish or by an earlier binding."""
        volume = self._volumes.get("", claim["spec"]["volumeName"])
        if volume is not None and (not volume["spec"].get("claimRef") or belongs(volume, claim)):
            await self._bind(volume, claim)
        elif is_bound(claim):
            await self._lose(claim, volume)
        elif volume is not None:
            text = f'volume "{volume["metadata"]["name"]}" already bound to a different claim.'
            self._ctx.events.event(claim, "Warning", "FailedBinding", text)

    async def _lose(self, claim: Object, volume: Object | None) -> None:
        if (claim.get("status") or {}).get("phase") == "Lost":
            return
        await self._write_status(CLAIMS, claim, {"phase": "Lost"})
        reason, text = "ClaimLost", "Bound claim has lost its PersistentVolume. Data on this volume is lost!"
        if volume is not None:
            reason, text = "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"
        self._ctx.events.event(claim, "Warning", reason, text)

    async def _sync_unbound(self, claim: Object) -> None:
        name = claim["spec"].get("storageClassName") or ""
        storage_class = self._classes.get("", name)
        delayed = waits_for_consumer(storage_class)
        volume = find_volume(claim, self._volumes.list(), delayed=delayed)
        if volume is not None:
            await self._bind(volume, claim)
        elif delayed and not annotation(claim, SELECTED_NODE):
            self._tell_waiting(claim)
        elif storage_class is not None:
            await self._ask_provisioner(claim, storage_class["provisioner"])
        elif name:
            text = f'storageclass.storage.k8s.io "{name}" not found'
            self._ctx.events.event(claim, "Warning", "ProvisioningFailed", text)
        else:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._ctx.events.event(claim, "Normal", "FailedBinding", text)

    def _tell_waiting(self, claim: Object) -> None:
        namespace, name = key_of(claim)
        pods = [pod for pod in self._pods.list(namespace) if not pod["spec"].get("nodeName") and name in claims_of(pod)]
        names = ",".join(sorted(pod["metadata"]["name"] for pod in pods))
        if pods:
            text = f"waiting for pod{'s' if len(pods) > 1 else ''} {names} to be scheduled"
            self._ctx.events.event(claim, "Normal", "WaitForPodScheduled", text)
            return
        text = "waiting for first consumer to be created before binding"
        self._ctx.events.event(claim, "Normal", "WaitForFirstConsumer", text)

    async def _ask_provisioner(self, claim: Object, provisioner: str) -> None:
        if provisioner == NO_PROVISIONER:
            text = f"no volume plugin matched name: {NO_PROVISIONER}"
            self._ctx.events.event(claim, "Warning", "ProvisioningFailed", text)
            return
        if annotation(claim, PROVISIONER) != provisioner:
            names = (PROVISIONER, "volume.beta.kubernetes.io/storage-provisioner")
            await self._patch(CLAIMS, claim, {"metadata": {"annotations": dict.fromkeys(names, provisioner)}})
        self._ctx.events.event(claim, "Normal", "ExternalProvisioning", _EXTERNAL.format(provisioner))

    async def _bind(self, volume: Object, claim: Object) -> None:
        """Make the two point to each other, volume first; each step that is done already is left out."""
        reference = volume["spec"].get("claimRef") or {}
        if reference.get("uid") != claim["metadata"]["uid"]:
            patch: Object = {"spec": {"claimRef": claim_reference(claim)}}
            if not reference:
                patch["metadata"] = {"annotations": {BOUND_BY_CONTROLLER: "yes"}}
            volume = await self._patch(VOLUMES, volume, patch)
        await self._write_status(VOLUMES, volume, {"phase": "Bound"})
        if not is_bound(claim):
            done = {BIND_COMPLETED: "yes"}
            if not claim["spec"].get("volumeName"):
                done[BOUND_BY_CONTROLLER] = "yes"
            patch = {"metadata": {"annotations": done}, "spec": {"volumeName": volume["metadata"]["name"]}}
            claim = await self._patch(CLAIMS, claim, patch)
        spec = volume["spec"]
        bound = {"phase": "Bound", "accessModes": spec.get("accessModes"), "capacity": spec.get("capacity")}
        await self._write_status(CLAIMS, claim, bound)

    # --- volumes

    async def _sync_volume(self, volume: Object) -> None:
        reference = volume["spec"].get("claimRef") or {}
        if not reference.get("uid"):
            await self._write_status(VOLUMES, volume, {"phase": "Available"})
            return
        claim = await self._claim_of(volume)
        bound_to = claim["spec"].get("volumeName") if claim else None
        if claim is None or bound_to not in (None, "", volume["metadata"]["name"]):
            await self._release(volume)

    async def _claim_of(self, volume: Object) -> Object | None:
        """Return the volume's claim; before it counts as gone the API is asked, as a cache may be late."""
        reference = volume["spec"]["claimRef"]
        claim = self._claims.get(reference["namespace"], reference["name"])
        if claim is None:
            try:
                claim = await self._ctx.client.get(CLAIMS, reference["name"], reference["namespace"])
            except ApiError as error:
                if error.code != 404:
                    raise
        return claim if claim is not None and belongs(volume, claim) else None

    async def _release(self, volume: Object) -> None:
        status = volume.get("status") or {}
        if status.get("phase") == "Failed":
            return
        spec = volume["spec"]
        if spec.get("persistentVolumeReclaimPolicy") == "Delete" and not annotation(volume, PROVISIONED_BY):
            name = volume["metadata"]["name"]
            text = f'error getting deleter volume plugin for volume "{name}": no deletable volume plugin matched'
            await self._write_status(VOLUMES, volume, {"phase": "Failed", "message": text})
            self._ctx.events.event(volume, "Warning", "VolumeFailedDelete", text)
        else:
            await self._write_status(VOLUMES, volume, {"phase": "Released"})

    # --- writing

    async def _patch(self, resource: str, obj: Object, patch: Object) -> Object:
        namespace, name = key_of(obj)
        known = {"uid": obj["metadata"]["uid"], "resourceVersion": obj["metadata"]["resourceVersion"]}
        patch = {**patch, "metadata": {**patch.get("metadata", {}), **known}}
        return await self._ctx.client.patch(resource, name, patch, namespace or None)

    async def _write_status(self, resource: str, obj: Object, status: Object) -> None:
        present = obj.get("status") or {}
        if any(present.get(key) != value for key, value in status.items()):
            namespace, name = key_of(obj)
            await self._ctx.client.patch(resource, name, {"status": status}, namespace or None, subresource="status")
