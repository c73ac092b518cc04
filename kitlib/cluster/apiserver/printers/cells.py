"""Cells of `kubectl get` for what runs: workloads, Services, nodes, events.

Stands for `pkg/printers/internalversion/printers.go`; `columns.py` names the columns, `columns_pod.py` has Pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kitlib.cluster.apiserver.printers.durations import Clock
from kitlib.cluster.objects import Object

Cells = list[Any]

NONE, UNSET = "<none>", "<unset>"


def name_of(obj: Object) -> str:
    """Return an object's name."""
    return str(obj["metadata"].get("name", ""))


def age_of(obj: Object, clock: Clock) -> str:
    """Return an object's age."""
    return clock.since(obj["metadata"].get("creationTimestamp"))


def spec_of(obj: Object) -> Object:
    """Return an object's spec, or an empty one."""
    return obj.get("spec") or {}


def status_of(obj: Object) -> Object:
    """Return an object's status, or an empty one."""
    return obj.get("status") or {}


def joined(values: Iterable[Any], empty: str = NONE) -> str:
    """Return values with commas, or `empty`."""
    return ",".join(str(value) for value in values) or empty


def limited(values: Sequence[Any], limit: int = 3, empty: str = NONE, comma: str = ",") -> str:
    """Return the first values and how many more there are."""
    shown = comma.join(str(value) for value in values[:limit])
    more = f" + {len(values) - limit} more..." if len(values) > limit else ""
    return (shown or empty) + more


def labels_text(labels: Mapping[str, str] | None) -> str:
    """Return labels as `key=value` pairs, sorted."""
    return joined(f"{key}={value}" for key, value in sorted((labels or {}).items()))


_SET_OPERATORS = {"In": "in", "NotIn": "notin"}


def selector_text(selector: Object | None) -> str:
    """Return a label selector as `kubectl get -l` takes it."""
    if not selector:
        return NONE
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or ():
        key, operator = item.get("key", ""), item.get("operator", "")
        values = ",".join(sorted(item.get("values") or ()))
        negated = "!" if operator == "DoesNotExist" else ""
        text = f"{key} {_SET_OPERATORS[operator]} ({values})" if operator in _SET_OPERATORS else f"{negated}{key}"
        parts.append((key, text))
    return joined(text for _, text in sorted(parts))


def _containers(template: Object | None) -> list[str]:
    containers = spec_of(template or {}).get("containers") or ()
    return [",".join(str(item.get(field, "")) for item in containers) for field in ("name", "image")]


def deployment(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, status = spec_of(obj), status_of(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    wide = [*_containers(spec.get("template")), selector_text(spec.get("selector"))]
    return [name_of(obj), ready, *counts, age_of(obj, clock), *wide]


def replica_set(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, status = spec_of(obj), status_of(obj)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    selector = spec.get("selector")
    shown = labels_text(selector) if obj.get("kind") == "ReplicationController" else selector_text(selector)
    return [name_of(obj), *counts, age_of(obj, clock), *_containers(spec.get("template")), shown]


def stateful_set(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec = spec_of(obj)
    ready = f"{status_of(obj).get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name_of(obj), ready, age_of(obj, clock), *_containers(spec.get("template"))]


_DAEMON_COUNTS = (
    "desiredNumberScheduled currentNumberScheduled numberReady updatedNumberScheduled numberAvailable".split()
)


def daemon_set(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, template = spec_of(obj), spec_of(obj).get("template") or {}
    counts = [status_of(obj).get(field, 0) for field in _DAEMON_COUNTS]
    wide = [*_containers(template), selector_text(spec.get("selector"))]
    return [name_of(obj), *counts, labels_text(spec_of(template).get("nodeSelector")), age_of(obj, clock), *wide]


_JOB_CONDITIONS = ("Complete", "Failed", "", "Suspended", "FailureTarget", "SuccessCriteriaMet")


def _job_status(obj: Object) -> str:
    true = {item.get("type") for item in status_of(obj).get("conditions") or () if item.get("status") == "True"}
    if obj["metadata"].get("deletionTimestamp") and not {"Complete", "Failed"} & true:
        return "Terminating"
    return next((name for name in _JOB_CONDITIONS if name in true), "Running")


def job(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, status = spec_of(obj), status_of(obj)
    done, parallelism = status.get("succeeded", 0), spec.get("parallelism", 1)
    if spec.get("completions") is not None:
        completions = f"{done}/{spec['completions']}"
    else:
        completions = f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"
    start, end = status.get("startTime"), status.get("completionTime")
    duration = clock.between(start, end) if start else ""
    wide = [*_containers(spec.get("template")), selector_text(spec.get("selector"))]
    return [name_of(obj), _job_status(obj), completions, duration, age_of(obj, clock), *wide]


def cron_job(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec, status = spec_of(obj), status_of(obj)
    last = clock.since(status["lastScheduleTime"]) if status.get("lastScheduleTime") else NONE
    job = spec_of(spec.get("jobTemplate") or {})
    cells = [name_of(obj), spec.get("schedule", ""), spec.get("timeZone") or NONE, str(bool(spec.get("suspend")))]
    wide = [*_containers(job.get("template")), selector_text(job.get("selector"))]
    return [*cells, len(status.get("active") or ()), last, age_of(obj, clock), *wide]


def pod_template(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    template = obj.get("template") or {}
    return [name_of(obj), *_containers(template), labels_text((template.get("metadata") or {}).get("labels"))]


def _external(obj: Object) -> str:
    spec = spec_of(obj)
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    ingress = (status_of(obj).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [item.get("ip") or item.get("hostname", "") for item in ingress] + list(spec.get("externalIPs") or ())
    return joined(addresses, "<pending>" if spec.get("type") == "LoadBalancer" else NONE)


def _service_port(port: Object) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port', 0)}{node}/{port.get('protocol', 'TCP')}"


def service(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    spec = spec_of(obj)
    ports = joined(_service_port(port) for port in spec.get("ports") or ())
    cells = [name_of(obj), spec.get("type", ""), spec.get("clusterIP") or NONE, _external(obj), ports]
    return [*cells, age_of(obj, clock), labels_text(spec.get("selector"))]


def endpoints(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [item.get("ip", "") for item in subset.get("addresses") or ()]
        ports = [port.get("port", 0) for port in subset.get("ports") or ()]
        found += [f"{ip}:{port}" for port in ports for ip in addresses] if ports else addresses
    return [name_of(obj), limited(found), age_of(obj, clock)]


def endpoint_slice(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    ports = [port.get("port", "*") for port in obj.get("ports") or ()]
    addresses = [ip for endpoint in obj.get("endpoints") or () for ip in endpoint.get("addresses") or ()]
    cells = [name_of(obj), obj.get("addressType", ""), limited(ports, empty=UNSET), limited(addresses, empty=UNSET)]
    return [*cells, age_of(obj, clock)]


_ROLE = "node-role.kubernetes.io/"


def node(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    status, info = status_of(obj), status_of(obj).get("nodeInfo") or {}
    ready = [item.get("status") == "True" for item in status.get("conditions") or () if item.get("type") == "Ready"]
    state = ("Ready" if ready[0] else "NotReady") if ready else "Unknown"
    if spec_of(obj).get("unschedulable"):
        state += ",SchedulingDisabled"
    labels = obj["metadata"].get("labels") or {}
    roles = {label[len(_ROLE) :] for label in labels if label.startswith(_ROLE)} | {
        labels.get("kubernetes.io/role", "")
    }
    addresses = {item.get("type"): item.get("address") for item in status.get("addresses") or ()}
    kernel = f"{info.get('kernelVersion') or '<unknown>'} ({info.get('architecture') or '<unknown>'})"
    wide = [addresses.get("InternalIP") or NONE, addresses.get("ExternalIP") or NONE]
    wide += [info.get("osImage") or "<unknown>", kernel, info.get("containerRuntimeVersion") or "<unknown>"]
    return [
        name_of(obj),
        state,
        joined(sorted(roles - {""})),
        age_of(obj, clock),
        info.get("kubeletVersion", ""),
        *wide,
    ]


def event(obj: Object, clock: Clock) -> Cells:
    """Return the cells of this kind."""
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or first
    series = obj.get("series") or {}
    last, count = (
        series.get("lastObservedTime", last),
        series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1,
    )
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    target = "/".join(part for part in (about.get("kind", "").lower(), about.get("name", "")) if part)
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    origin = ", ".join(
        part for part in (source.get("component") or obj.get("reportingComponent"), source.get("host")) if part
    )
    message = (obj.get("message") or obj.get("note") or "").strip()
    cells = [clock.since(last), obj.get("type", ""), obj.get("reason", ""), target, about.get("fieldPath", ""), origin]
    return [*cells, message, clock.since(first), count, name_of(obj)]
