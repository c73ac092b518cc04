"""Cells of `kubectl get` for what is configured: data, storage, access, policies.

Stands for `pkg/printers/internalversion/printers.go`; `columns.py` names the columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from kitlib.cluster.apiserver.printers.cells import (
    NONE,
    UNSET,
    Cells,
    age_of,
    joined,
    limited,
    name_of,
    selector_text,
    spec_of,
    status_of,
)
from kitlib.cluster.apiserver.printers.durations import Clock
from kitlib.cluster.objects import Object


def config_map(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age_of(obj, clock)]


def secret(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), obj.get("type", ""), len(obj.get("data") or ()), age_of(obj, clock)]


def namespace(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), status_of(obj).get("phase", ""), age_of(obj, clock)]


def service_account(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), len(obj.get("secrets") or ()), age_of(obj, clock)]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _access(modes: Sequence[str] | None) -> str:
    return ",".join(short for mode, short in _MODES.items() if mode in (modes or ()))


def _phase(obj: Object) -> str:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else status_of(obj).get("phase", "")


def volume(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, claim = spec_of(obj), spec_of(obj).get("claimRef")
    owner = f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""
    cells = [name_of(obj), (spec.get("capacity") or {}).get("storage", ""), _access(spec.get("accessModes"))]
    cells += [spec.get("persistentVolumeReclaimPolicy", ""), _phase(obj), owner, spec.get("storageClassName", "")]
    cells += [spec.get("volumeAttributesClassName") or UNSET, status_of(obj).get("reason", ""), age_of(obj, clock)]
    return [*cells, spec.get("volumeMode") or UNSET]


def claim(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, status = spec_of(obj), status_of(obj)
    bound = bool(spec.get("volumeName"))
    capacity = (status.get("capacity") or {}).get("storage", "") if bound else ""
    access = _access(status.get("accessModes")) if bound else ""
    cells = [name_of(obj), _phase(obj), spec.get("volumeName", ""), capacity, access, spec.get("storageClassName", "")]
    return [*cells, spec.get("volumeAttributesClassName") or UNSET, age_of(obj, clock), spec.get("volumeMode") or UNSET]


def storage_class(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    annotations = obj["metadata"].get("annotations") or {}
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    cells = [name_of(obj) + (" (default)" if default else ""), obj.get("provisioner", "")]
    cells += [obj.get("reclaimPolicy", "Delete"), obj.get("volumeBindingMode", "Immediate")]
    return [*cells, str(bool(obj.get("allowVolumeExpansion"))).lower(), age_of(obj, clock)]


def lease(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), spec_of(obj).get("holderIdentity", ""), age_of(obj, clock)]


def _metric(metric: Object, current: Object) -> str:
    """Return a metric as `cpu: 12%/80%`."""
    source = metric.get(metric.get("type", "")[:1].lower() + metric.get("type", "")[1:]) or {}
    target = source.get("target") or {}
    now = current.get("current") or {}
    if "averageUtilization" in target:
        used = f"{now['averageUtilization']}%" if "averageUtilization" in now else "<unknown>"
        return f"{source.get('name', '')}: {used}/{target['averageUtilization']}%"
    wanted = target.get("averageValue") or target.get("value") or "<auto>"
    used = now.get("averageValue") or now.get("value") or "<unknown>"
    name = f"{source['name']}: " if source.get("name") else ""
    return f"{name}{used}/{wanted}{' (avg)' if 'averageValue' in target and not name else ''}"


def autoscaler(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, status, target = spec_of(obj), status_of(obj), spec_of(obj).get("scaleTargetRef") or {}
    currents: list[Object] = [
        next((v for k, v in item.items() if k != "type"), {}) for item in status.get("currentMetrics") or ()
    ]
    metrics = [
        _metric(metric, currents[index] if index < len(currents) else {})
        for index, metric in enumerate(spec.get("metrics") or ())
    ]
    if "targetCPUUtilizationPercentage" in spec:
        used = (
            f"{status['currentCPUUtilizationPercentage']}%"
            if "currentCPUUtilizationPercentage" in status
            else "<unknown>"
        )
        metrics = [f"cpu: {used}/{spec['targetCPUUtilizationPercentage']}%"]
    reference = f"{target.get('kind', '')}/{target.get('name', '')}"
    shown = limited(metrics, 2, comma=", ")
    bounds = [
        str(spec.get("minReplicas", UNSET)),
        str(spec.get("maxReplicas", 0)),
        str(status.get("currentReplicas", 0)),
    ]
    return [name_of(obj), reference, shown, *bounds, age_of(obj, clock)]


def ingress(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec = spec_of(obj)
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    balancer = (status_of(obj).get("loadBalancer") or {}).get("ingress") or ()
    address = joined((item.get("ip") or item.get("hostname", "") for item in balancer), "")
    name = spec.get("ingressClassName") or (obj["metadata"].get("annotations") or {}).get("kubernetes.io/ingress.class")
    ports = "80, 443" if spec.get("tls") else "80"
    return [name_of(obj), name or NONE, limited(hosts, empty="*"), address, ports, age_of(obj, clock)]


def ingress_class(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, parameters = spec_of(obj), spec_of(obj).get("parameters")
    shown = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        shown = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    return [name_of(obj), spec.get("controller", ""), shown, age_of(obj, clock)]


def network_policy(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), selector_text(spec_of(obj).get("podSelector")), age_of(obj, clock)]


def disruption_budget(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec = spec_of(obj)
    bounds = [str(spec.get(field, "N/A")) for field in ("minAvailable", "maxUnavailable")]
    return [name_of(obj), *bounds, status_of(obj).get("disruptionsAllowed", 0), age_of(obj, clock)]


def binding(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    role = obj.get("roleRef") or {}
    subjects = obj.get("subjects") or ()
    users, groups = (
        ", ".join(s.get("name", "") for s in subjects if s.get("kind") == kind) for kind in ("User", "Group")
    )
    accounts = [f"{s.get('namespace', '')}/{s.get('name', '')}" for s in subjects if s.get("kind") == "ServiceAccount"]
    reference = f"{role.get('kind', '')}/{role.get('name', '')}"
    return [name_of(obj), reference, age_of(obj, clock), users, groups, ", ".join(accounts)]


def controller_revision(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    owners = [owner for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")]
    shown = NONE
    if owners:
        group = owners[0].get("apiVersion", "").rpartition("/")[0]
        kind = owners[0].get("kind", "").lower()
        shown = f"{kind}.{group}/{owners[0].get('name')}" if group else f"{kind}/{owners[0].get('name')}"
    return [name_of(obj), shown, obj.get("revision", 0), age_of(obj, clock)]


def priority_class(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    default = str(bool(obj.get("globalDefault"))).lower()
    return [name_of(obj), obj.get("value", 0), default, age_of(obj, clock), obj.get("preemptionPolicy", "")]


def quota(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    hard, used = status_of(obj).get("hard") or spec_of(obj).get("hard") or {}, status_of(obj).get("used") or {}
    texts = {name: f"{name}: {used.get(name, '0')}/{value}" for name, value in sorted(hard.items())}
    limits = [text for name, text in texts.items() if name.startswith("limits.")]
    requests = [text for name, text in texts.items() if not name.startswith("limits.")]
    return [name_of(obj), ", ".join(requests), ", ".join(limits), age_of(obj, clock)]


def runtime_class(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), obj.get("handler", ""), age_of(obj, clock)]


def signing_request(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, conditions = spec_of(obj), [item.get("type", "") for item in status_of(obj).get("conditions") or ()]
    state = next((name for name in ("Denied", "Approved") if name in conditions), "Pending")
    if "Failed" in conditions:
        state += ",Failed"
    if status_of(obj).get("certificate"):
        state += ",Issued"
    wanted = spec.get("expirationSeconds")
    cells = [name_of(obj), age_of(obj, clock), spec.get("signerName", ""), spec.get("username", "")]
    return [*cells, clock.seconds(wanted) if wanted else NONE, state]


def api_service(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    service = spec_of(obj).get("service")
    where = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    available = [item for item in status_of(obj).get("conditions") or () if item.get("type") == "Available"]
    state = available[0].get("status", "Unknown") if available else "Unknown"
    if state != "True" and available:
        state = f"{state} ({available[0].get('reason', '')})"
    return [name_of(obj), where, state, age_of(obj, clock)]


def component_status(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    healthy = [item for item in obj.get("conditions") or () if item.get("type") == "Healthy"]
    found: Object = healthy[0] if healthy else {}
    state = {"True": "Healthy", "False": "Unhealthy"}.get(found.get("status", ""), "Unknown")
    return [name_of(obj), state, found.get("message", ""), found.get("error", "")]


def webhooks(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), len(obj.get("webhooks") or ()), age_of(obj, clock)]


def csi_node(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), len(spec_of(obj).get("drivers") or ()), age_of(obj, clock)]


def attachment(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec = spec_of(obj)
    volume = (spec.get("source") or {}).get("persistentVolumeName", "")
    attached = str(bool(status_of(obj).get("attached"))).lower()
    return [name_of(obj), spec.get("attacher", ""), volume, spec.get("nodeName", ""), attached, age_of(obj, clock)]


def ip_address(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    parent = spec_of(obj).get("parentRef") or {}
    parts = [parent.get(field) for field in ("group", "resource", "namespace", "name")]
    return [name_of(obj), "/".join(part for part in parts if part)]


def service_cidr(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), ",".join(spec_of(obj).get("cidrs") or ()), age_of(obj, clock)]


def default(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    return [name_of(obj), obj["metadata"].get("creationTimestamp", "")]
