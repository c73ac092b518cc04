"""Cells of `kubectl get` that are more than a field of the object.

Stands for the print functions of `pkg/printers/internalversion/printers.go`. A function returns, in the order of the
kind's columns in `columns.py`, the cells that neither a path there nor `SHARED` fills; Pods are in `pod.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kitlib.cluster.apiserver.printers.durations import Moment, human_duration
from kitlib.cluster.apiserver.printers.pod import pod_cells
from kitlib.cluster.apiserver.registry import per_kind
from kitlib.cluster.apiserver.selectors import selector_text
from kitlib.cluster.objects import Object, annotation, condition, condition_true, controller_of, is_deleting

Cells = list[Any]
Function = Callable[[Object, Moment], Cells]

NONE, UNSET, UNKNOWN = "<none>", "<unset>", "<unknown>"

OWN: dict[str, Function] = {"Pod": pod_cells}
"""By kind, what fills the columns that are its alone."""


_of = per_kind(OWN)


def nothing(obj: Object, now: Moment) -> Cells:
    """Return no cells: paths and shared columns fill the row."""
    return []


def _spec(obj: Object) -> Object:
    return obj.get("spec") or {}


def _status(obj: Object) -> Object:
    return obj.get("status") or {}


def _joined(values: Iterable[Any], empty: str = NONE) -> str:
    return ",".join(str(value) for value in values) or empty


def _limited(values: Sequence[Any], limit: int = 3, empty: str = NONE, comma: str = ",") -> str:
    """Return the first values and how many more there are."""
    shown = comma.join(str(value) for value in values[:limit])
    more = f" + {len(values) - limit} more..." if len(values) > limit else ""
    return (shown or empty) + more


# --- columns that many kinds have


def _name(obj: Object, now: Moment) -> str:
    default = annotation(obj, "storageclass.kubernetes.io/is-default-class") == "true"
    marked = default and obj.get("kind") == "StorageClass"
    return str(obj["metadata"].get("name", "")) + (" (default)" if marked else "")


def _age(obj: Object, now: Moment) -> str:
    return now.since(obj["metadata"].get("creationTimestamp"))


def _workload(obj: Object) -> Object:
    """Return the part of an object that has selector and Pod template."""
    return obj if obj.get("kind") == "PodTemplate" else _spec(_spec(obj).get("jobTemplate") or {}) or _spec(obj)


def _in_containers(field: str) -> Callable[[Object, Moment], str]:
    def cell(obj: Object, now: Moment) -> str:
        containers = _spec(_workload(obj).get("template") or {}).get("containers") or ()
        return ",".join(str(item.get(field, "")) for item in containers)

    return cell


def _selector(obj: Object, now: Moment) -> str:
    selector = _workload(obj).get("selector")
    return _selected({"matchLabels": selector} if obj.get("kind") in ("ReplicationController", "Service") else selector)


def _selected(selector: Object | None) -> str:
    return selector_text(selector) or NONE


SHARED: dict[str, Callable[[Object, Moment], Any]] = {
    "Name": _name,
    "Age": _age,
    "Containers": _in_containers("name"),
    "Images": _in_containers("image"),
    "Selector": _selector,
}
"""By column, what it shows of every kind."""


# --- workloads


@_of("Deployment", "StatefulSet")
def _ready(obj: Object, now: Moment) -> Cells:
    return [f"{_status(obj).get('readyReplicas', 0)}/{_spec(obj).get('replicas', 0)}"]


@_of("DaemonSet")
def _node_selector(obj: Object, now: Moment) -> Cells:
    return [_selected({"matchLabels": _spec(_spec(obj).get("template") or {}).get("nodeSelector")})]


_JOB_CONDITIONS = ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")


def _job_status(obj: Object) -> str:
    found = next((kind for kind in _JOB_CONDITIONS if condition_true(obj, kind)), "Running")
    return "Terminating" if is_deleting(obj) and found not in ("Complete", "Failed") else found


@_of("Job")
def _job(obj: Object, now: Moment) -> Cells:
    spec, status = _spec(obj), _status(obj)
    done, parallelism = status.get("succeeded", 0), spec.get("parallelism", 1)
    if spec.get("completions") is not None:
        completions = f"{done}/{spec['completions']}"
    else:
        completions = f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"
    start, end = status.get("startTime"), status.get("completionTime")
    return [_job_status(obj), completions, now.between(start, end) if start else ""]


@_of("CronJob")
def _cron_job(obj: Object, now: Moment) -> Cells:
    last = _status(obj).get("lastScheduleTime")
    return [str(bool(_spec(obj).get("suspend"))), now.since(last) if last else NONE]


@_of("PodTemplate")
def _pod_labels(obj: Object, now: Moment) -> Cells:
    return [_selected({"matchLabels": ((obj.get("template") or {}).get("metadata") or {}).get("labels")})]


# --- Services and nodes


def _balanced(obj: Object) -> list[str]:
    """Return the addresses of the load balancer of a Service or an Ingress."""
    ingress = (_status(obj).get("loadBalancer") or {}).get("ingress") or ()
    return [item.get("ip") or item.get("hostname", "") for item in ingress]


def _external(obj: Object) -> str:
    spec = _spec(obj)
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    addresses = [*_balanced(obj), *(spec.get("externalIPs") or ())]
    return _joined(addresses, "<pending>" if spec.get("type") == "LoadBalancer" else NONE)


def _service_port(port: Object) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port', 0)}{node}/{port.get('protocol', 'TCP')}"


@_of("Service")
def _service(obj: Object, now: Moment) -> Cells:
    return [_external(obj), _joined(_service_port(port) for port in _spec(obj).get("ports") or ())]


@_of("Endpoints")
def _endpoints(obj: Object, now: Moment) -> Cells:
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [item.get("ip", "") for item in subset.get("addresses") or ()]
        ports = [port.get("port", 0) for port in subset.get("ports") or ()]
        found += [f"{ip}:{port}" for port in ports for ip in addresses] if ports else addresses
    return [_limited(found)]


@_of("EndpointSlice")
def _endpoint_slice(obj: Object, now: Moment) -> Cells:
    ports = [port.get("port", "*") for port in obj.get("ports") or ()]
    addresses = [ip for endpoint in obj.get("endpoints") or () for ip in endpoint.get("addresses") or ()]
    return [_limited(ports, empty=UNSET), _limited(addresses, empty=UNSET)]


_ROLE = "node-role.kubernetes.io/"


@_of("Node")
def _node(obj: Object, now: Moment) -> Cells:
    ready, info = condition(obj, "Ready"), _status(obj).get("nodeInfo") or {}
    state = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    if _spec(obj).get("unschedulable"):
        state += ",SchedulingDisabled"
    labels = obj["metadata"].get("labels") or {}
    roles = {label.removeprefix(_ROLE) for label in labels if label.startswith(_ROLE)}
    roles.add(labels.get("kubernetes.io/role", ""))
    addresses = {item.get("type"): item.get("address") for item in _status(obj).get("addresses") or ()}
    kernel = f"{info.get('kernelVersion') or UNKNOWN} ({info.get('architecture') or UNKNOWN})"
    wide = [addresses.get("InternalIP") or NONE, addresses.get("ExternalIP") or NONE, kernel]
    return [state, _joined(sorted(roles - {""})), *wide]


# --- Events


@_of("Event")
def _event(obj: Object, now: Moment) -> Cells:
    """Fill the cells of an Event of either API group."""
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or first
    series = obj.get("series") or {}
    count = series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    target = "/".join(part for part in (about.get("kind", "").lower(), about.get("name", "")) if part)
    origin = (source.get("component") or obj.get("reportingComponent"), source.get("host"))
    message = (obj.get("message") or obj.get("note") or "").strip()
    seen = now.since(series.get("lastObservedTime", last)), now.since(first)
    where = about.get("fieldPath", ""), ", ".join(part for part in origin if part)
    return [seen[0], target, *where, message, seen[1], count]


# --- configuration and storage


@_of("ConfigMap")
def _config_map(obj: Object, now: Moment) -> Cells:
    return [len(obj.get("data") or ()) + len(obj.get("binaryData") or ())]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _access(modes: Sequence[str] | None) -> str:
    return ",".join(short for mode, short in _MODES.items() if mode in (modes or ()))


def _phase(obj: Object) -> str:
    return "Terminating" if is_deleting(obj) else _status(obj).get("phase", "")


@_of("PersistentVolume")
def _volume(obj: Object, now: Moment) -> Cells:
    claim = _spec(obj).get("claimRef")
    owner = f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""
    return [_access(_spec(obj).get("accessModes")), _phase(obj), owner]


@_of("PersistentVolumeClaim")
def _claim(obj: Object, now: Moment) -> Cells:
    status: Object = _status(obj) if _spec(obj).get("volumeName") else {}
    return [_phase(obj), (status.get("capacity") or {}).get("storage", ""), _access(status.get("accessModes"))]


# --- scaling, networking, policies


def _metric(metric: Object, current: Object) -> str:
    """Return a metric as `cpu: 12%/80%`."""
    source = metric.get(metric.get("type", "")[:1].lower() + metric.get("type", "")[1:]) or {}
    target = source.get("target") or {}
    now = current.get("current") or {}
    if "averageUtilization" in target:
        used = f"{now['averageUtilization']}%" if "averageUtilization" in now else UNKNOWN
        return f"{source.get('name', '')}: {used}/{target['averageUtilization']}%"
    wanted = target.get("averageValue") or target.get("value") or "<auto>"
    used = now.get("averageValue") or now.get("value") or UNKNOWN
    name = f"{source['name']}: " if source.get("name") else ""
    return f"{name}{used}/{wanted}{' (avg)' if 'averageValue' in target and not name else ''}"


def _metrics(spec: Object, status: Object) -> list[str]:
    if "targetCPUUtilizationPercentage" in spec:
        used = status.get("currentCPUUtilizationPercentage")
        return [f"cpu: {UNKNOWN if used is None else f'{used}%'}/{spec['targetCPUUtilizationPercentage']}%"]
    metrics, measured = spec.get("metrics") or (), status.get("currentMetrics") or ()
    currents: list[Object] = [next((v for k, v in item.items() if k != "type"), {}) for item in measured]
    currents += [{}] * (len(metrics) - len(currents))
    return [_metric(metric, current) for metric, current in zip(metrics, currents)]  # noqa: B905


@_of("HorizontalPodAutoscaler")
def _autoscaler(obj: Object, now: Moment) -> Cells:
    spec, status = _spec(obj), _status(obj)
    target = spec.get("scaleTargetRef") or {}
    bounds = (spec.get("minReplicas", UNSET), spec.get("maxReplicas", 0), status.get("currentReplicas", 0))
    reference = f"{target.get('kind', '')}/{target.get('name', '')}"
    return [reference, _limited(_metrics(spec, status), 2, comma=", "), *map(str, bounds)]


@_of("Ingress")
def _ingress(obj: Object, now: Moment) -> Cells:
    spec = _spec(obj)
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    name = spec.get("ingressClassName") or annotation(obj, "kubernetes.io/ingress.class") or NONE
    return [name, _limited(hosts, empty="*"), _joined(_balanced(obj), ""), "80, 443" if spec.get("tls") else "80"]


@_of("IngressClass")
def _parameters(obj: Object, now: Moment) -> Cells:
    parameters = _spec(obj).get("parameters")
    if not parameters:
        return [NONE]
    group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
    return [f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"]


@_of("NetworkPolicy")
def _pod_selector(obj: Object, now: Moment) -> Cells:
    return [_selected(_spec(obj).get("podSelector"))]


@_of("PodDisruptionBudget")
def _budget(obj: Object, now: Moment) -> Cells:
    bounds = [str(_spec(obj).get(field, "N/A")) for field in ("minAvailable", "maxUnavailable")]
    return [*bounds, _status(obj).get("disruptionsAllowed", 0)]


@_of("RoleBinding", "ClusterRoleBinding")
def _binding(obj: Object, now: Moment) -> Cells:
    role, named = obj.get("roleRef") or {}, dict[str, list[str]]()
    for subject in obj.get("subjects") or ():
        namespace = f"{subject.get('namespace', '')}/" if subject.get("kind") == "ServiceAccount" else ""
        named.setdefault(subject.get("kind", ""), []).append(namespace + subject.get("name", ""))
    subjects = [", ".join(named.get(kind, ())) for kind in ("User", "Group", "ServiceAccount")]
    return [f"{role.get('kind', '')}/{role.get('name', '')}", *subjects]


@_of("ControllerRevision")
def _controller(obj: Object, now: Moment) -> Cells:
    owner = controller_of(obj)
    if owner is None:
        return [NONE]
    group = owner.get("apiVersion", "").rpartition("/")[0]
    return [f"{owner.get('kind', '').lower()}{f'.{group}' if group else ''}/{owner.get('name')}"]


@_of("ResourceQuota")
def _quota(obj: Object, now: Moment) -> Cells:
    hard, used = _status(obj).get("hard") or _spec(obj).get("hard") or {}, _status(obj).get("used") or {}
    texts = {name: f"{name}: {used.get(name, '0')}/{value}" for name, value in sorted(hard.items())}
    limits = [name for name in texts if name.startswith("limits.")]
    return [", ".join(texts[name] for name in texts if name not in limits), ", ".join(map(texts.__getitem__, limits))]


@_of("CertificateSigningRequest")
def _signing_request(obj: Object, now: Moment) -> Cells:
    wanted, conditions = (
        _spec(obj).get("expirationSeconds"),
        [item.get("type", "") for item in _status(obj).get("conditions") or ()],
    )
    state = next((name for name in ("Denied", "Approved") if name in conditions), "Pending")
    if "Failed" in conditions:
        state += ",Failed"
    if _status(obj).get("certificate"):
        state += ",Issued"
    return [human_duration(wanted) if wanted else NONE, state]


@_of("APIService")
def _api_service(obj: Object, now: Moment) -> Cells:
    service, available = _spec(obj).get("service"), condition(obj, "Available")
    where = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    state = (available or {}).get("status", "Unknown")
    return [where, state if available is None or state == "True" else f"{state} ({available.get('reason', '')})"]


@_of("ComponentStatus")
def _component_status(obj: Object, now: Moment) -> Cells:
    healthy: Object = next((item for item in obj.get("conditions") or () if item.get("type") == "Healthy"), {})
    state = {"True": "Healthy", "False": "Unhealthy"}.get(healthy.get("status", ""), "Unknown")
    return [state, healthy.get("message", ""), healthy.get("error", "")]


@_of("IPAddress")
def _parent(obj: Object, now: Moment) -> Cells:
    parent = _spec(obj).get("parentRef") or {}
    return ["/".join(parent[field] for field in ("group", "resource", "namespace", "name") if parent.get(field))]


@_of("ServiceCIDR")
def _cidrs(obj: Object, now: Moment) -> Cells:
    return [_joined(_spec(obj).get("cidrs") or (), "")]
