"""What claims, volumes and storage classes have to do with each other.

Stands for `k8s.io/component-helpers/storage/volume`, which the volume controllers and the scheduler share. Left out:
volume attributes classes, data sources, and topology other than a volume's node affinity.
"""

from __future__ import annotations

from collections.abc import Iterable

from kitlib.cluster.labels import matches
from kitlib.cluster.objects import Object, annotation
from kitlib.cluster.placement import node_matches
from kitlib.cluster.quantity import parse

CLAIMS, VOLUMES, CLASSES = "persistentvolumeclaims", "persistentvolumes", "storageclasses.storage.k8s.io"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def claims_of(pod: Object) -> list[str]:
    """Return the names of the claims that a Pod uses."""
    volumes = pod["spec"].get("volumes") or ()
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


def waits_for_consumer(storage_class: Object | None) -> bool:
    """Tell whether a claim of this class is bound only once a Pod that uses it has a node."""
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def is_bound(claim: Object) -> bool:
    """Tell whether claim and volume know of each other."""
    return bool(claim["spec"].get("volumeName") and annotation(claim, BIND_COMPLETED))


def claim_reference(claim: Object) -> Object:
    """Return the `claimRef` of a volume that belongs to a claim."""
    metadata = claim["metadata"]
    known = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **known}


def belongs(volume: Object, claim: Object) -> bool:
    """Tell whether the volume's `claimRef` means this claim; one without a uid means any claim of that name."""
    reference, metadata = volume["spec"].get("claimRef") or {}, claim["metadata"]
    same = (reference.get("namespace"), reference.get("name")) == (metadata["namespace"], metadata["name"])
    return same and reference.get("uid") in (None, "", metadata["uid"])


def fits_node(volume: Object, node: Object) -> bool:
    """Tell whether a volume can be reached from a node."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return required is None or any(node_matches(term, node) for term in required["nodeSelectorTerms"])


def find_volume(
    claim: Object, volumes: Iterable[Object], *, delayed: bool, node: Object | None = None
) -> Object | None:
    """Return the volume made for a claim, else the smallest free one that satisfies it, else None.

    Args:
        claim: An unbound claim.
        volumes: All volumes.
        delayed: Whether only the scheduler, which gives `node`, may choose among free volumes.
        node: Where the volume must be reachable from.
    """
    fitting = []
    for volume in volumes:
        if volume["spec"].get("claimRef"):
            if belongs(volume, claim):
                return volume
        elif (node is not None or not delayed) and _satisfies(volume, claim) and (not node or fits_node(volume, node)):
            fitting.append(volume)
    return min(fitting, key=lambda volume: (_size(volume), volume["metadata"]["name"]), default=None)


def _size(volume: Object) -> object:
    return parse((volume["spec"].get("capacity") or {}).get("storage", "0"))


def _satisfies(volume: Object, claim: Object) -> bool:
    offered, asked = volume["spec"], claim["spec"]
    storage = ((asked.get("resources") or {}).get("requests") or {}).get("storage", "0")
    return (
        not volume["metadata"].get("deletionTimestamp")
        and (offered.get("storageClassName") or "") == (asked.get("storageClassName") or "")
        and offered.get("volumeMode", "Filesystem") == asked.get("volumeMode", "Filesystem")
        and set(asked.get("accessModes") or ()) <= set(offered.get("accessModes") or ())
        and parse((offered.get("capacity") or {}).get("storage", "0")) >= parse(storage)
        and (not asked.get("selector") or matches(asked["selector"], volume["metadata"].get("labels")))
    )
