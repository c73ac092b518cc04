"""What differs between kinds when an object is written.

Stands for the `strategy.go` files of pkg/registry: which part of an object belongs to whom (users own the spec,
controllers the status), when `metadata.generation` grows, what a new object starts with.
"""

from __future__ import annotations

from kitlib.cluster.apiserver.apiextensions import definitions
from kitlib.cluster.apiserver.apiextensions.customkind import DEFINITIONS, CustomKind
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.objects import Object

GENERATION = frozenset(
    (
        *"pods replicationcontrollers daemonsets.apps deployments.apps replicasets.apps statefulsets.apps".split(),
        *"cronjobs.batch jobs.batch ingresses.networking.k8s.io ingressclasses.networking.k8s.io".split(),
        *"networkpolicies.networking.k8s.io poddisruptionbudgets.policy endpointslices.discovery.k8s.io".split(),
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        "customresourcedefinitions.apiextensions.k8s.io",
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "resourceslices.resource.k8s.io",
        "deviceclasses.resource.k8s.io",
    )
)
"""Kinds whose `metadata.generation` counts changes of what users ask for."""

_STATUS: dict[str, Object] = {
    "namespaces": {"phase": "Active"},
    "persistentvolumeclaims": {"phase": "Pending"},
    "persistentvolumes": {"phase": "Pending"},
    "services": {"loadBalancer": {}},
    "ingresses.networking.k8s.io": {"loadBalancer": {}},
    "deployments.apps": {},
    "replicasets.apps": {"replicas": 0},
    "statefulsets.apps": {"replicas": 0, "availableReplicas": 0},
    "replicationcontrollers": {"replicas": 0},
    "daemonsets.apps": {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    "poddisruptionbudgets.policy": {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    },
}

CREATE_ON_UPDATE = frozenset(
    (
        *"endpoints events leases.coordination.k8s.io runtimeclasses.node.k8s.io".split(),
        *"roles.rbac.authorization.k8s.io rolebindings.rbac.authorization.k8s.io".split(),
        *"clusterroles.rbac.authorization.k8s.io clusterrolebindings.rbac.authorization.k8s.io".split(),
    )
)
"""Kinds that a PUT creates when they do not exist."""

_STATUS_SUBRESOURCES = ("status", "approval")
_STATUS_KEEPS = {"deployments.apps": ("labels",), "pods": ("ownerReferences",)}
"""Metadata that a write of the status leaves alone."""


def prepare_create(kind: Kind, obj: Object) -> None:
    """Give a new object the metadata and the status that it starts with."""
    meta = obj["metadata"]
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"):
        meta.pop(field, None)
    if kind.resource in GENERATION or isinstance(kind, CustomKind):
        meta["generation"] = 1
    if isinstance(kind, CustomKind) and "status" in kind.subresources:
        obj.pop("status", None)
    elif "status" in kind.subresources and kind.resource != "nodes":
        obj["status"] = dict(_STATUS.get(kind.resource, {}))
    if kind.resource == DEFINITIONS:
        definitions.note_stored_version(obj)
    if kind.resource == "namespaces":
        obj["spec"] = {**(obj.get("spec") or {}), "finalizers": ["kubernetes"]}


def label_namespace(kind: Kind, obj: Object) -> None:
    """Give a new Namespace the label with its name."""
    meta = obj["metadata"]
    if kind.resource == "namespaces" and meta.get("name"):
        meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}


def prepare_update(kind: Kind, new: Object, old: Object, subresource: str) -> None:
    """Undo, in `new`, changes to parts that this endpoint does not own."""
    if subresource in _STATUS_SUBRESOURCES:
        _only_status(kind, new, old)
    elif subresource == "ephemeralcontainers":
        _only_ephemeral_containers(new, old)
    elif kind.resource == "pods":
        new["spec"] = new.get("spec") or {}
        _restore(new["spec"], old["spec"], "ephemeralContainers")
    elif kind.resource == "namespaces":
        finalizers = (new.get("spec") or {}).get("finalizers") or []
        if subresource != "finalize":
            finalizers = (old.get("spec") or {}).get("finalizers") or []
        new["spec"] = {"finalizers": finalizers} if finalizers else {}
    if "status" in kind.subresources and subresource not in _STATUS_SUBRESOURCES:
        _restore(new, old, "status")
        if kind.resource == DEFINITIONS:
            new["status"] = {**new["status"], "storedVersions": list(new["status"].get("storedVersions") or ())}
            definitions.note_stored_version(new)


def _only_status(kind: Kind, new: Object, old: Object) -> None:
    for field in {*new, *old} - {"metadata", "status"}:
        _restore(new, old, field)
    if isinstance(kind, CustomKind):
        new["metadata"] = {**old["metadata"], "managedFields": new["metadata"].get("managedFields")}
    for field in _STATUS_KEEPS.get(kind.resource, ()):
        _restore(new["metadata"], old["metadata"], field)


def _only_ephemeral_containers(new: Object, old: Object) -> None:
    wanted = (new.get("spec") or {}).get("ephemeralContainers") or []
    for field in {*new, *old} - {"metadata"}:
        _restore(new, old, field)
    for field in ("labels", "annotations"):
        _restore(new["metadata"], old["metadata"], field)
    new["spec"] = {**old["spec"], "ephemeralContainers": wanted}


def _restore(new: Object, old: Object, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def asks_for_more(kind: Kind, new: Object, old: Object, subresource: str) -> bool:
    """Whether an update changes what users ask for, so that `metadata.generation` grows.

    A Deployment's annotations count, unless they come with its status, as its controller writes them.
    """
    if isinstance(kind, CustomKind):
        passed = {"metadata", "status"} if "status" in kind.subresources else {"metadata"}
    elif kind.resource in GENERATION and subresource not in _STATUS_SUBRESOURCES:
        passed = {"metadata", "status"}
    else:
        return False
    if any(new.get(field) != old.get(field) for field in {*new, *old} - passed):
        return True
    if kind.resource != "deployments.apps":
        return False
    return bool(new["metadata"].get("annotations") != old["metadata"].get("annotations"))
