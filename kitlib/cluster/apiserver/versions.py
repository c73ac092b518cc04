"""Kinds that are served in two forms and stored in one.

Stands for the conversions between versions of a kind: `events.k8s.io/v1` shows the core Events under other field
names, `autoscaling/v1` shows the CPU target of an `autoscaling/v2` HorizontalPodAutoscaler. Versions of a custom
resource differ in their schemas alone (conversion strategy None); what was stored under another one is fitted in.
"""

from __future__ import annotations

from kitlib.cluster.apiserver import registry
from kitlib.cluster.apiserver.apiextensions import structural
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.objects import Object, deep_copy

_EVENT_FIELDS = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_TO_EVENTS_V1 = {core: new for new, core in _EVENT_FIELDS.items()}

_STORED = {
    ("events.k8s.io", "v1", "Event"): registry.by_gvk("v1", "Event"),
    ("autoscaling", "v1", "HorizontalPodAutoscaler"): registry.by_gvk("autoscaling/v2", "HorizontalPodAutoscaler"),
}
_STORAGE: dict[Kind, Kind] = {
    kind: _STORED.get((kind.group, kind.version, kind.kind)) or kind for kind in registry.KINDS
}


def storage(kind: Kind) -> Kind:
    """Return the kind as which objects of this kind are stored."""
    return _STORAGE.get(kind, kind)


def is_view(kind: Kind) -> bool:
    """Whether objects of this kind are stored as another one."""
    return kind.is_view if isinstance(kind, CustomKind) else _STORAGE.get(kind, kind) is not kind


def to_storage(kind: Kind, obj: Object) -> Object:
    """Return an object of a served kind as it is stored; a kind that is stored as it is comes back untouched."""
    if isinstance(kind, CustomKind):
        return {**obj, "apiVersion": f"{kind.group}/{kind.storage_version}"}
    if not is_view(kind):
        return obj
    stored = _STORAGE[kind]
    if kind.kind == "Event":
        found = {_EVENT_FIELDS.get(field, field): value for field, value in obj.items()}
    else:
        found = _autoscaler_to_v2(obj)
    return {**found, "kind": stored.kind, "apiVersion": stored.api_version}


def from_storage(kind: Kind, obj: Object) -> Object:
    """Return a stored object as the served kind shows it."""
    if not is_view(kind):
        return obj
    if isinstance(kind, CustomKind):
        return _fitted(kind, obj)
    if kind.kind == "Event":
        found = {_TO_EVENTS_V1.get(field, field): value for field, value in obj.items()}
    else:
        found = _autoscaler_to_v1(obj)
    return {**found, "kind": kind.kind, "apiVersion": kind.api_version}


def _fitted(kind: CustomKind, obj: Object) -> Object:
    found: Object = {**deep_copy(obj), "apiVersion": kind.api_version}
    structural.prune(found, kind.schema, [])
    structural.default(found, kind.schema)
    return found


def _autoscaler_to_v2(obj: Object) -> Object:
    found = {**obj, "spec": dict(obj.get("spec") or {}), "status": dict(obj.get("status") or {})}
    percent = found["spec"].pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        found["spec"]["metrics"] = [_cpu_metric("target", {"type": "Utilization", "averageUtilization": percent})]
    current = found["status"].pop("currentCPUUtilizationPercentage", None)
    if current is not None:
        found["status"]["currentMetrics"] = [_cpu_metric("current", {"averageUtilization": current})]
    return found


def _cpu_metric(field: str, value: Object) -> Object:
    return {"type": "Resource", "resource": {"name": "cpu", field: value}}


def _autoscaler_to_v1(obj: Object) -> Object:
    found = {**obj, "spec": dict(obj.get("spec") or {}), "status": dict(obj.get("status") or {})}
    for section, field, side, shown in (
        ("spec", "metrics", "target", "targetCPUUtilizationPercentage"),
        ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage"),
    ):
        for metric in found[section].pop(field, None) or ():
            resource = metric.get("resource") or {}
            percent = (resource.get(side) or {}).get("averageUtilization")
            if resource.get("name") == "cpu" and percent is not None:
                found[section][shown] = percent
    found["spec"].pop("behavior", None)
    found["status"].pop("conditions", None)
    return found
