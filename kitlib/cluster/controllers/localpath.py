"""Makes volumes of the StorageClass `standard`: folders below KIT_HOME.

Stands for `rancher.io/local-path`, the provisioner of kind and k3s, in its manner: a `hostPath` volume that can be
reached from the node alone on which its first consumer runs, made when that is known, and removed with its folder
when its claim is gone and its reclaim policy is Delete. Left out: sizes are not enforced, as there, and classes with
parameters.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from kitlib.cluster.client import ApiError, ignoring
from kitlib.cluster.controllers.common import Context
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, annotation, is_deleting, key_of
from kitlib.cluster.volumeclaims import (
    CLAIMS,
    CLASSES,
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
    VOLUMES,
    claim_reference,
    is_bound,
    waits_for_consumer,
)

NAME = "rancher.io/local-path"
FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
FOLDER = "volumes"
"""Below KIT_HOME."""
_MODES = {"ReadWriteOnce", "ReadWriteOncePod"}


class LocalPathProvisioner(Controller):
    name = NAME

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._home = ctx.config.home / FOLDER
        self._claims, self._volumes, self._classes = (ctx.informers(each) for each in (CLAIMS, VOLUMES, CLASSES))
        self._claims.add_handler(lambda kind, _, claim: self.queue.add(key_of(claim)) if _is_ours(claim) else None)
        self._volumes.add_handler(self._volume_changed)

    def _volume_changed(self, kind: str, _: Object | None, volume: Object) -> None:
        if kind != "DELETED" and _is_released(volume):
            self.queue.add(key_of(volume))

    async def reconcile(self, key: Key) -> None:
        """Make the volume of a claim (which has a namespace), or delete a released volume (which has none)."""
        if key[0]:
            claim = self._claims.get(*key)
            if claim is not None and _is_ours(claim) and not is_bound(claim) and not is_deleting(claim):
                await self._provision(claim)
            return
        volume = self._volumes.get(*key)
        if volume is not None and _is_released(volume):
            await self._delete(volume)

    async def _provision(self, claim: Object) -> None:
        storage_class = self._classes.get("", claim["spec"].get("storageClassName") or "")
        name = f"pvc-{claim['metadata']['uid']}"
        if storage_class is None or self._volumes.get("", name) is not None:
            return
        if waits_for_consumer(storage_class) and not annotation(claim, SELECTED_NODE):
            return
        about = f'"{"/".join(key_of(claim))}"'
        text = f"External provisioner is provisioning volume for claim {about}"
        self._ctx.events.event(claim, "Normal", "Provisioning", text)
        refusal = _refusal(claim["spec"])
        if refusal:
            text = f'failed to provision volume with StorageClass "{storage_class["metadata"]["name"]}": {refusal}'
            self._ctx.events.event(claim, "Warning", "ProvisioningFailed", text)
            return
        try:
            await self._ctx.client.create(VOLUMES, self._volume(name, claim, storage_class))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        self._ctx.events.event(claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {name}")

    def _volume(self, name: str, claim: Object, storage_class: Object) -> Object:
        namespace, own_name = key_of(claim)
        annotations = {PROVISIONED_BY: NAME}
        spec = {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "claimRef": claim_reference(claim),
            "hostPath": {"path": str(self._home / f"{name}_{namespace}_{own_name}"), "type": "DirectoryOrCreate"},
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
            "storageClassName": storage_class["metadata"]["name"],
            "volumeMode": "Filesystem",
        }
        node = annotation(claim, SELECTED_NODE)
        if node:
            annotations["local.path.provisioner/selected-node"] = node
            here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
            spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}}
        metadata = {"name": name, "annotations": annotations, "finalizers": [FINALIZER]}
        return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}

    async def _delete(self, volume: Object) -> None:
        """Remove the folder, then the object; a folder that this provisioner did not make is left alone."""
        metadata, path = volume["metadata"], Path((volume["spec"].get("hostPath") or {}).get("path") or "/")
        if path.parent == self._home and path.name.startswith("pvc-"):
            try:
                await asyncio.to_thread(_remove, path)
            except OSError as error:
                self._ctx.events.event(volume, "Warning", "VolumeFailedDelete", f"failed to delete {path}: {error}")
                raise
        kept = [item for item in metadata.get("finalizers") or () if item != FINALIZER]
        with ignoring(404):
            await self._ctx.client.patch(VOLUMES, metadata["name"], {"metadata": {"finalizers": kept}})
            await self._ctx.client.delete(VOLUMES, metadata["name"], uid=metadata["uid"])


def _is_ours(claim: Object) -> bool:
    return annotation(claim, PROVISIONER) == NAME


def _is_released(volume: Object) -> bool:
    released = (volume.get("status") or {}).get("phase") == "Released"
    policy = volume["spec"].get("persistentVolumeReclaimPolicy")
    return released and policy == "Delete" and annotation(volume, PROVISIONED_BY) == NAME


def _refusal(spec: Object) -> str:
    """Return why a claim can't be met, in the provisioner's words, empty when it can."""
    if spec.get("selector"):
        return "claim.Spec.Selector is not supported"
    if not set(spec["accessModes"]) <= _MODES:
        return "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes"
    return "" if spec.get("volumeMode", "Filesystem") == "Filesystem" else "only volumeMode Filesystem is supported"


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
