"""Validation: which objects, and which changes of objects, the API server refuses with 422.

Stands for the `Validate*` functions of kube-apiserver, in its words and order, for what learners meet. Types and
unknown fields are `schema.py`'s. Left out: rules of alpha fields, warnings, and CEL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kitlib.cluster.apiserver.apiextensions import definitions
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.apiextensions.schemavalidation import validate
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.validation import objects, workloads
from kitlib.cluster.apiserver.validation.fielderrors import (
    FieldErrors,
    check_annotations,
    check_labels,
    dns_1035_label,
    dns_label,
    dns_subdomain,
    path_segment,
    qualified_name,
)
from kitlib.cluster.apiserver.validation.pod import check_pod_spec
from kitlib.cluster.objects import Object

Cause = dict[str, str]

_RBAC = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
_NAMES: dict[str, Callable[[str], Iterator[str]]] = {
    **dict.fromkeys(_RBAC, path_segment),
    "APIService": path_segment,
    "Namespace": dns_label,
    "Service": dns_1035_label,
}


def _check_metadata(found: FieldErrors, kind: Kind, meta: Object) -> None:
    check_name = dns_subdomain if isinstance(kind, CustomKind) else _NAMES.get(kind.kind, dns_subdomain)
    prefix, name = meta.get("generateName"), meta.get("name")
    if prefix:
        shown = prefix[:-1] + "a" if prefix.endswith("-") else prefix
        found.each("metadata.generateName", prefix, check_name(shown))
    if not name:
        found.required("metadata.name", "name or generateName is required")
    elif not prefix or not name.startswith(prefix[:58]):
        found.each("metadata.name", name, check_name(name))
    check_labels(found, meta.get("labels"), "metadata.labels")
    check_annotations(found, meta.get("annotations"), "metadata.annotations")
    _check_owners(found, meta)
    for finalizer in meta.get("finalizers") or ():
        found.each("metadata.finalizers", finalizer, qualified_name(finalizer))


def _check_owners(found: FieldErrors, meta: Object) -> None:
    owners = meta.get("ownerReferences") or ()
    for index, owner in enumerate(owners):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                text = "version must not be empty" if name == "apiVersion" else "must not be empty"
                found.invalid(f"metadata.ownerReferences[{index}].{name}", "", text)
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        names = [f"{owner.get('kind')}/{owner.get('name')}" for owner in controllers]
        both = f"{names[0]} and {names[1]}"
        text = f'Only one reference can have Controller set to true. Found "true" in references for {both}'
        found.invalid("metadata.ownerReferences", list(owners), text)


def _pod(found: FieldErrors, pod: Object) -> None:
    check_pod_spec(found, pod["spec"], "spec")


_UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
    "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)


def _fixed_part(spec: Object) -> Object:
    """Return the part of a Pod's spec that may never change."""
    changing = ("activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers")
    fixed = {name: value for name, value in spec.items() if name not in changing}
    for group in ("containers", "initContainers"):
        if group in spec:
            fixed[group] = [{**container, "image": "", "imagePullPolicy": ""} for container in spec[group]]
    return fixed


def _pod_update(found: FieldErrors, new: Object, old: Object) -> None:
    spec, before = new["spec"], old["spec"]
    counts = [len(each.get("containers") or ()) for each in (spec, before)]
    if counts[0] != counts[1]:
        found.forbidden("spec.containers", "pod updates may not add or remove containers")
        return
    kept = [toleration in (spec.get("tolerations") or ()) for toleration in before.get("tolerations") or ()]
    if not all(kept) or _fixed_part(spec) != _fixed_part(before) or _gates_added(spec, before):
        found.forbidden("spec", f"pod updates may not change fields other than {_UPDATABLE}\n")
    _check_ephemeral(found, spec, before.get("ephemeralContainers") or ())


def _check_ephemeral(found: FieldErrors, spec: Object, before: Sequence[Object]) -> None:
    """Check that ephemeral containers are only ever added, and those that are new."""
    path, now = "spec.ephemeralContainers", {each.get("name"): each for each in spec.get("ephemeralContainers") or ()}
    for old in before:
        if old != now.get(old["name"]):
            done = "changed" if old["name"] in now else "removed"
            found.forbidden(path, f'existing ephemeral containers "{old["name"]}" may not be {done}\n')
    taken = {each["name"] for key in ("initContainers", "containers") for each in spec.get(key) or ()}
    for index, each in enumerate(spec.get("ephemeralContainers") or ()):
        name, target = each.get("name") or "", each.get("targetContainerName")
        found.each(f"{path}[{index}].name", name, dns_label(name))
        if name in taken:
            found.duplicate(f"{path}[{index}].name", name)
        if not each.get("image"):
            found.required(f"{path}[{index}].image")
        if target and target not in taken:
            found.not_found(f"{path}[{index}].targetContainerName", target)
        taken = {*taken, name}


def _gates_added(spec: Object, before: Object) -> bool:
    return any(gate not in (before.get("schedulingGates") or ()) for gate in spec.get("schedulingGates") or ())


_CREATE: dict[str, Callable[[FieldErrors, Object], None]] = {
    "Pod": _pod,
    "Deployment": workloads.deployment,
    "ReplicaSet": workloads.replica_set,
    "ReplicationController": workloads.replication_controller,
    "StatefulSet": workloads.stateful_set,
    "DaemonSet": workloads.daemon_set,
    "Job": workloads.job,
    "CronJob": workloads.cron_job,
    "Service": objects.service,
    "ConfigMap": objects.config_map,
    "Secret": objects.secret,
    "PersistentVolumeClaim": objects.claim,
    "PersistentVolume": objects.volume,
    "Node": objects.node,
    "Role": objects.role,
    "ClusterRole": objects.role,
    "RoleBinding": objects.binding,
    "ClusterRoleBinding": objects.binding,
    "HorizontalPodAutoscaler": objects.autoscaler,
    "Ingress": objects.ingress,
    "PodDisruptionBudget": objects.disruption_budget,
    "PriorityClass": objects.priority_class,
    "StorageClass": objects.storage_class,
    "EndpointSlice": objects.endpoint_slice,
    "Endpoints": objects.endpoints,
    "ResourceQuota": objects.quota,
    "CustomResourceDefinition": definitions.check,
}

_UPDATE: dict[str, Callable[[FieldErrors, Object, Object], None]] = {
    "Pod": _pod_update,
    "Deployment": workloads.selector_update,
    "ReplicaSet": workloads.selector_update,
    "DaemonSet": workloads.selector_update,
    "StatefulSet": workloads.stateful_set_update,
    "Job": workloads.job_update,
    "Service": objects.service_update,
    "ConfigMap": objects.data_update,
    "Secret": objects.data_update,
    "PersistentVolumeClaim": objects.claim_update,
    "RoleBinding": objects.binding_update,
    "ClusterRoleBinding": objects.binding_update,
    "PriorityClass": objects.priority_class_update,
    "CustomResourceDefinition": definitions.check_update,
}


def validate_create(kind: Kind, obj: Object) -> list[Cause]:
    """Return what is wrong with a new object.

    Args:
        kind: Kind of the object.
        obj: The object after decoding, defaults and admission.

    Returns:
        Causes `{reason, message, field}` for `errors.invalid`; empty for a valid object.
    """
    found = FieldErrors()
    if isinstance(kind, CustomKind):
        _check_metadata(found, kind, obj["metadata"])
        validate(found, kind.schema, obj)
        return found
    if kind.kind == "Event":
        if not kind.group:
            objects.event(found, obj)
        return found
    _check_metadata(found, kind, obj["metadata"])
    check = _CREATE.get(kind.kind)
    if check is not None:
        check(found, obj)
    if kind.kind == "Pod" and obj["spec"].get("ephemeralContainers"):
        found.forbidden("spec.ephemeralContainers", "cannot be set on create")
    return found


def validate_update(kind: Kind, new: Object, old: Object) -> list[Cause]:
    """Return what is wrong with an object's next state.

    Args:
        kind: Kind of the object.
        new: The next state, with its defaults.
        old: The stored state.

    Returns:
        Causes, as `validate_create`.
    """
    found = FieldErrors()
    if kind.kind == "Event" and not isinstance(kind, CustomKind):
        return found
    if new["metadata"] != old["metadata"]:
        _check_metadata(found, kind, new["metadata"])
    if isinstance(kind, CustomKind):
        validate(found, kind.schema, new, old=old)
        return found
    if all(new.get(name) == old.get(name) for name in {*new, *old} - {"metadata", "status"}):
        return found
    create, update = _CREATE.get(kind.kind), _UPDATE.get(kind.kind)
    if create is not None:
        create(found, new)
    if update is not None:
        update(found, new, old)
    return found
