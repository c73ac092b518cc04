"""The subresources that are more than a part of their object: scale, binding, eviction, token.

Stands for the REST types beside the main one in pkg/registry (`ScaleREST`, `BindingREST`, `EvictionREST`,
`TokenREST`).
"""

from __future__ import annotations

from typing import Any

from kitlib.cluster import labels
from kitlib.cluster.apiserver import deletion, errors, registry, schema, selectors
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.auth import Authenticator, User, review
from kitlib.cluster.apiserver.objectmeta import check_name, check_type
from kitlib.cluster.apiserver.options import WriteOptions
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.rest import REST, patched
from kitlib.cluster.apiserver.tokenrequest import request_token
from kitlib.cluster.clock import rfc3339_now
from kitlib.cluster.objects import Object, is_ready
from kitlib.cluster.store import Entry


def _virtual(group: str, version: str, kind: str, model: str) -> Kind:
    """Return a kind that is only spoken, never stored, such as Scale."""
    plural = kind.lower() + "s"
    return Kind(group, version, kind, plural, kind.lower(), True, (), (), ("create",), (), model)


SCALE = _virtual("autoscaling", "v1", "Scale", "V1Scale")
EVICTION = _virtual("policy", "v1", "Eviction", "V1Eviction")
BINDING = registry.lookup("bindings")
_PODS = registry.lookup("pods")
_BUDGETS = registry.lookup("poddisruptionbudgets.policy")
_SCALE_META = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
_BLOCKED = "Cannot evict pod as it would violate the pod's disruption budget."


def post(
    rest: REST,
    authenticator: Authenticator,
    user: User,
    kind: Kind,
    namespace: str,
    name: str,
    obj: Object,
    options: WriteOptions,
    subresource: str,
) -> Object:
    """Create an object, or what a POST to one of its subresources creates.

    Raises:
        ApiError: As the creation of each of them.
    """
    if subresource == "binding" or kind.resource == "bindings":
        return bind(rest, namespace, name, obj, options)
    if subresource == "eviction":
        return evict(rest, namespace, name, obj, options)
    if subresource == "token":
        return request_token(rest, authenticator, namespace, name, obj, options)
    if subresource:
        raise errors.no_such_resource()
    if kind.kind == "CertificateSigningRequest":
        _name_requestor(obj, user)
    if kind.stored:
        return rest.create(kind, namespace, obj, options)
    check_type(kind, obj)
    options.warnings += schema.decode(kind, obj, options.field_validation)
    return review(kind.kind, obj, user, authenticator)


def _name_requestor(request: Object, user: User) -> None:
    """Say in a CertificateSigningRequest who made it, whatever its maker says."""
    if isinstance(spec := request.get("spec"), dict):
        facts = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": user.extra}
        for name, value in facts.items():
            spec.pop(name, None)
            spec.update({name: value} if value else {})


def get_scale(rest: REST, kind: Kind, namespace: str, name: str) -> Object:
    """Return the `autoscaling/v1` Scale of a workload."""
    return _scale_of(kind, rest.entry(kind, namespace, name).obj)


def _scale_of(kind: Kind, obj: Object) -> Object:
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    selector = spec.get("selector")
    if kind.resource == "replicationcontrollers":
        selector = {"matchLabels": selector or {}}
    if isinstance(kind, CustomKind):
        return _custom_scale(kind, obj)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: meta[field] for field in _SCALE_META if field in meta},
        "spec": {"replicas": spec["replicas"]} if spec.get("replicas") else {},
        "status": {"replicas": status.get("replicas", 0), "selector": selectors.selector_text(selector)},
    }


def _custom_scale(kind: CustomKind, obj: Object) -> Object:
    """Return the Scale of a custom resource, whose definition says where the numbers stand.

    Raises:
        ApiError: 500, the object has no replicas.
    """
    paths, meta = kind.scale or {}, obj["metadata"]
    wanted = _at(obj, paths["specReplicasPath"])
    if not isinstance(wanted, int):
        raise errors.internal(f'the spec replicas field "{paths["specReplicasPath"]}" does not exist')
    selector = _at(obj, paths["labelSelectorPath"]) if paths.get("labelSelectorPath") else ""
    status = {"replicas": _at(obj, paths["statusReplicasPath"]) or 0}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: meta[field] for field in _SCALE_META if field in meta},
        "spec": {"replicas": wanted} if wanted else {},
        "status": {**status, "selector": selector} if selector else status,
    }


def _at(obj: Any, path: str) -> Any:
    """Return the value at a path of names, such as `.spec.replicas`; None where there is none."""
    for name in path[1:].split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _set_at(obj: Any, path: str, value: Any) -> None:
    """Set the value at a path of names, and make what is missing on the way.

    Raises:
        ApiError: 500, something on the way has no fields.
    """
    *above, last = path[1:].split(".")
    for depth, name in enumerate(above, start=1):
        obj = obj.setdefault(name, {})
        if not isinstance(obj, dict):
            way = ".".join(above[:depth])
            raise errors.internal(f"value cannot be set because .{way} is not a map[string]interface{{}}")
    obj[last] = value


def set_scale(
    rest: REST, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions, content_type: str = ""
) -> Object:
    """Change a workload's replicas through its Scale, replaced or (with a content type) patched.

    Raises:
        ApiError: 400, 404, 409 or 422, as Kubernetes.
    """
    entry = rest.entry(kind, namespace, name)
    scale = patched(SCALE, _scale_of(kind, entry.obj), body, content_type) if content_type else body
    check_type(SCALE, scale)
    options.warnings += schema.decode(SCALE, scale, options.field_validation)
    check_name(scale, namespace, name)
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        message = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = {"reason": "FieldValueInvalid", "message": message, "field": "spec.replicas"}
        raise errors.invalid(SCALE, name, [cause])
    new = entry.copy()
    if isinstance(kind, CustomKind):
        _set_at(new, (kind.scale or {})["specReplicasPath"], replicas)
    else:
        new["spec"]["replicas"] = replicas
    for field in ("resourceVersion", "uid"):
        if scale["metadata"].get(field):
            new["metadata"][field] = scale["metadata"][field]
    return _scale_of(kind, rest.replace(kind, entry, new, options, "scale"))


def bind(rest: REST, namespace: str, name: str, binding: Object, options: WriteOptions) -> Object:
    """Give a Pod its node.

    Raises:
        ApiError: 409, the Pod has a node or is being deleted; 422, the target is no node.
    """
    check_type(BINDING, binding)
    options.warnings += schema.decode(BINDING, binding, options.field_validation)
    name = name or binding["metadata"].get("name", "")
    check_name(binding, namespace, name)
    target = binding.get("target") or {}
    if target.get("kind", "Node") not in ("", "Node") or not target.get("name"):
        message = 'Unsupported value: supported values: "Node", "<empty>"'
        cause = {"reason": "FieldValueNotSupported", "message": message, "field": "target.kind"}
        raise errors.invalid(BINDING, name, [cause])
    entry = rest.entry(_PODS, namespace, name)
    spec, meta = entry.obj["spec"], entry.obj["metadata"]
    if meta.get("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
        raise errors.conflict(_PODS, name, why, "binding")
    if spec.get("nodeName"):
        why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
        raise errors.conflict(_PODS, name, why, "binding")

    def assign(pod: Object) -> Object:
        pod["spec"]["nodeName"] = target["name"]
        annotations = binding["metadata"].get("annotations")
        if annotations:
            pod["metadata"].setdefault("annotations", {}).update(annotations)
        set_condition(pod, {"type": "PodScheduled", "status": "True"})
        pod["status"].pop("nominatedNodeName", None)
        return pod

    rest.change(_PODS, entry, assign, options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def set_condition(obj: Object, condition: Object) -> None:
    """Set a condition in an object's status; its transition time moves only when its status does."""
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    found = next((each for each in conditions if each["type"] == condition["type"]), None)
    if found is None:
        found = {"lastProbeTime": None, "lastTransitionTime": rfc3339_now()}
        conditions.append(found)
    elif found["status"] != condition["status"]:
        found["lastTransitionTime"] = rfc3339_now()
    for field in ("reason", "message"):
        found.pop(field, None)
    generation = obj["metadata"].get("generation")
    found.update({"observedGeneration": generation} if generation else {}, **condition)


def evict(rest: REST, namespace: str, name: str, eviction: Object, options: WriteOptions) -> Object:
    """Delete a Pod if its PodDisruptionBudget allows.

    Raises:
        ApiError: 429, the budget does not allow it now; 500, several budgets cover the Pod.
    """
    check_type(EVICTION, eviction)
    options.warnings += schema.decode(EVICTION, eviction, options.field_validation)
    check_name(eviction, namespace, name)
    entry = rest.entry(_PODS, namespace, name)
    asked = eviction.get("deleteOptions") or {}
    dry = WriteOptions(dry_run=options.dry_run or bool(asked.get("dryRun")), field_manager=options.field_manager)
    status = entry.obj.get("status") or {}
    phase = status.get("phase")
    if phase not in ("Succeeded", "Failed", "Pending") and not entry.obj["metadata"].get("deletionTimestamp"):
        _take_from_budget(rest, entry, dry)
    if not dry.dry_run:
        rest.change(_PODS, entry, _disrupted, dry)
    deletion.delete(rest, _PODS, namespace, name, asked, dry)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _disrupted(pod: Object) -> Object:
    text = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    set_condition(pod, {"type": "DisruptionTarget", "status": "True", **text})
    return pod


def _take_from_budget(rest: REST, pod: Entry, options: WriteOptions) -> None:
    found = [
        entry
        for entry in rest.store.entries(_BUDGETS.resource, pod.namespace)
        if labels.matches((entry.obj.get("spec") or {}).get("selector"), pod.obj["metadata"].get("labels"))
    ]
    if len(found) > 1:
        raise errors.internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    for entry in found:
        if not is_ready(pod.obj) and entry.obj["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return
        _check_budget(entry)
        rest.change(_BUDGETS, entry, lambda budget: _one_less(budget, pod.name), options)


def _check_budget(entry: Entry) -> None:
    status, meta = entry.obj.get("status") or {}, entry.obj["metadata"]
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        message = f"The disruption budget {entry.name} is still being processed by the server."
        cause = {"reason": "DisruptionBudget", "message": message}
        raise errors.too_many_requests(_BLOCKED, [cause], retry_after=10)
    if status.get("disruptionsAllowed", 0) <= 0:
        wanted, current = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        message = f"The disruption budget {entry.name} needs {wanted} healthy pods and has {current} currently"
        raise errors.too_many_requests(_BLOCKED, [{"reason": "DisruptionBudget", "message": message}])


def _one_less(budget: Object, pod: str) -> Object:
    status = budget["status"]
    status["disruptionsAllowed"] -= 1
    status.setdefault("disruptedPods", {})[pod] = rfc3339_now()
    return budget
