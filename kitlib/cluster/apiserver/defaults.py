"""Defaults: what the API server fills in before it stores an object.

Stands for the `SetDefaults_*` functions of kube-apiserver (`pkg/apis/*/v1/defaults.go`). A default is visible
everywhere: in `describe`, in `diff`, in the hash of a Pod template. Left out: defaults of alpha fields and of
kinds without any. Values that the server allocates (cluster addresses, node ports) are the REST layer's.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kitlib.cluster.apiserver import models
from kitlib.cluster.apiserver.apiextensions import definitions, structural
from kitlib.cluster.apiserver.apiextensions.customkind import CustomKind
from kitlib.cluster.apiserver.registry import Kind, per_kind
from kitlib.cluster.objects import Object

_DEFAULTS: dict[str, Callable[[Object], None]] = {"CustomResourceDefinition": definitions.set_defaults}
_of = per_kind(_DEFAULTS)


def fill(target: Object, values: Mapping[str, Any]) -> None:
    """Set each field that is absent."""
    for name, value in values.items():
        target.setdefault(name, value)


def apply_defaults(kind: Kind, obj: Object) -> None:
    """Fill in the defaults of a decoded object, in place.

    Args:
        kind: Kind of the object.
        obj: The object as `schema.decode` leaves it.
    """
    if isinstance(kind, CustomKind):
        structural.default(obj, kind.schema)
        return
    model = models.load(kind.model)
    if model is not None and "spec" in model.fields:
        obj.setdefault("spec", {})  # a struct in Go, which is written even when it is empty
    function = _DEFAULTS.get(kind.kind)
    if function is not None:
        function(obj)


def image_pull_policy(image: str) -> str:
    """Return the default policy of an image: `Always` without a tag or with `:latest`."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if tag == "latest" or not (tag or digest) else "IfNotPresent"


def pod_spec(spec: Object) -> None:
    """Fill in the defaults of a Pod's spec, in a Pod or in a template."""
    restart, grace = spec.get("restartPolicy"), spec.get("terminationGracePeriodSeconds")
    fill(spec, {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"})
    spec.update(restartPolicy=restart or "Always", terminationGracePeriodSeconds=30 if grace is None else grace)
    spec.setdefault("securityContext", {})
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec.update(serviceAccountName=account, serviceAccount=account)
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for item in spec.get(group) or ():
            _container(item, bool(spec.get("hostNetwork")))
    for item in spec.get("volumes") or ():
        _volume(item)


def _container(container: Object, host_network: bool) -> None:
    if "image" in container:
        container["imagePullPolicy"] = container.get("imagePullPolicy") or image_pull_policy(container["image"])
    fill(container, {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        port["protocol"] = port.get("protocol") or "TCP"
        if host_network and "containerPort" in port:
            port["hostPort"] = port.get("hostPort") or port["containerPort"]
    for variable in container.get("env") or ():
        _field_ref((variable.get("valueFrom") or {}).get("fieldRef"))
        _divisor((variable.get("valueFrom") or {}).get("resourceFieldRef"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe(container[name])
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _http_get(handler.get("httpGet"))


def _field_ref(ref: Object | None) -> None:
    if ref is not None:
        ref["apiVersion"] = ref.get("apiVersion") or "v1"


def _divisor(ref: Object | None) -> None:
    if ref is not None:
        ref["divisor"] = ref.get("divisor") or "0"


def _http_get(action: Object | None) -> None:
    if action is not None:
        action.update(path=action.get("path") or "/", scheme=action.get("scheme") or "HTTP")


def _probe(probe: Object) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        probe[name] = probe.get(name) or value
    if probe.get("initialDelaySeconds") == 0:
        del probe["initialDelaySeconds"]
    _http_get(probe.get("httpGet"))
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


_MODE = 0o644


def _volume(volume: Object) -> None:
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "downwardAPI", "projected"):
        if source in volume:
            volume[source].setdefault("defaultMode", _MODE)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    if "ephemeral" in volume:
        _claim_spec((volume["ephemeral"].get("volumeClaimTemplate") or {}).get("spec") or {})
    projected = (volume.get("projected") or {}).get("sources") or ()
    for item in _items(volume.get("downwardAPI"), *(source.get("downwardAPI") for source in projected)):
        _field_ref(item.get("fieldRef"))
        _divisor(item.get("resourceFieldRef"))
    for source in projected:
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)


def _items(*sources: Object | None) -> Iterable[Object]:
    return (item for source in sources for item in (source or {}).get("items") or ())


@_of("Pod")
def _pod(pod: Object) -> None:
    spec = pod.setdefault("spec", {})
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or ():
            limits = container["resources"].get("limits")
            if limits:
                container["resources"]["requests"] = {**limits, **container["resources"].get("requests", {})}
    if spec.get("hostNetwork") is False:
        del spec["hostNetwork"]


def template(spec: Object) -> None:
    """Fill in the defaults of the Pod template of a workload's spec."""
    inner = spec.setdefault("template", {})
    inner.setdefault("metadata", {})
    pod_spec(inner.setdefault("spec", {}))


def _rolling_update(strategy: Object, defaults: Mapping[str, Any]) -> None:
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        fill(strategy.setdefault("rollingUpdate", {}), defaults)


@_of("Deployment")
def _deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600})
    _rolling_update(spec.setdefault("strategy", {}), {"maxUnavailable": "25%", "maxSurge": "25%"})
    template(spec)


def _labels_from_template(obj: Object) -> Object:
    labels: Object = ((obj["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {}
    if labels and not obj.setdefault("metadata", {}).get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    return labels


@_of("ReplicaSet")
def _replica_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _labels_from_template(obj)
    template(spec)


@_of("ReplicationController")
def _replication_controller(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    labels = _labels_from_template(obj)
    if labels and not spec.get("selector"):
        spec["selector"] = dict(labels)
    template(spec)


@_of("StatefulSet")
def _stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, {"replicas": 1, "revisionHistoryLimit": 10})
    spec["podManagementPolicy"] = spec.get("podManagementPolicy") or "OrderedReady"
    _rolling_update(spec.setdefault("updateStrategy", {}), {"partition": 0})
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    fill(retention, {"whenDeleted": "Retain", "whenScaled": "Retain"})
    for claim in spec.get("volumeClaimTemplates") or ():
        fill(claim, {"apiVersion": "v1", "kind": "PersistentVolumeClaim"})
        _claim(claim)
    template(spec)


@_of("DaemonSet")
def _daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("revisionHistoryLimit", 10)
    _rolling_update(spec.setdefault("updateStrategy", {}), {"maxUnavailable": 1, "maxSurge": 0})
    template(spec)


def job_spec(spec: Object) -> None:
    """Fill in the defaults of a Job's spec, in a Job or in a CronJob."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    fill(spec, {"parallelism": 1, "completionMode": "NonIndexed", "suspend": False, "manualSelector": False})
    per_index = "backoffLimitPerIndex" in spec
    spec.setdefault("backoffLimit", 2**31 - 1 if per_index else 6)
    policy = spec.get("podFailurePolicy")
    for rule in (policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern["status"] = pattern.get("status") or "True"
    spec.setdefault("podReplacementPolicy", "Failed" if policy is not None else "TerminatingOrFailed")
    template(spec)


@_of("Job")
def _job(obj: Object) -> None:
    job_spec(obj.setdefault("spec", {}))
    _labels_from_template(obj)


@_of("CronJob")
def _cron_job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec["concurrencyPolicy"] = spec.get("concurrencyPolicy") or "Allow"
    fill(spec, {"suspend": False, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1})
    job = spec.setdefault("jobTemplate", {})
    job.setdefault("metadata", {})
    template(job.setdefault("spec", {}))


@_of("Service")
def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.update(sessionAffinity=spec.get("sessionAffinity") or "None", type=spec.get("type") or "ClusterIP")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    else:
        timeout = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        timeout.setdefault("timeoutSeconds", 10800)
    for port in spec.get("ports") or ():
        port["protocol"] = port.get("protocol") or "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec["externalTrafficPolicy"] = spec.get("externalTrafficPolicy") or "Cluster"
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if spec["type"] != "ExternalName":
        fill(spec, {"internalTrafficPolicy": "Cluster"})
        _service_families(spec)


def _service_families(spec: Object) -> None:
    headless_without_selector = spec.get("clusterIP") == "None" and not spec.get("selector")
    policy = "RequireDualStack" if headless_without_selector else "SingleStack"
    fill(spec, {"ipFamilyPolicy": policy, "ipFamilies": ["IPv4", "IPv6"] if headless_without_selector else ["IPv4"]})


def _claim_spec(spec: Object) -> None:
    spec.setdefault("volumeMode", "Filesystem")
    limits = (spec.get("resources") or {}).get("limits")
    if limits:
        spec["resources"]["requests"] = {**limits, **spec["resources"].get("requests", {})}


@_of("PersistentVolumeClaim")
def _claim(obj: Object) -> None:
    _claim_spec(obj.setdefault("spec", {}))
    obj.setdefault("status", {}).setdefault("phase", "Pending")


@_of("PersistentVolume")
def _volume_resource(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"})
    if "hostPath" in spec:
        spec["hostPath"].setdefault("type", "")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


@_of("Secret")
def _secret(obj: Object) -> None:
    obj["type"] = obj.get("type") or "Opaque"
    text = obj.pop("stringData", None)
    if text:
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in text.items()}
        obj["data"] = {**obj.get("data", {}), **encoded}


@_of("HorizontalPodAutoscaler")
def _autoscaler(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if "targetCPUUtilizationPercentage" in spec or obj.get("apiVersion") == "autoscaling/v1":
        return
    target = {"type": "Utilization", "averageUtilization": 80}
    spec.setdefault("metrics", [{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
    if "behavior" in spec:
        percent = {"type": "Percent", "value": 100, "periodSeconds": 15}
        pods = {"type": "Pods", "value": 4, "periodSeconds": 15}
        up, down = (spec["behavior"].setdefault(name, {}) for name in ("scaleUp", "scaleDown"))
        fill(up, {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]})
        fill(down, {"selectPolicy": "Max", "policies": [dict(percent)]})


@_of("NetworkPolicy")
def _network_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in rule.get("ports") or ():
            port["protocol"] = port.get("protocol") or "TCP"


@_of("RoleBinding", "ClusterRoleBinding")
def _binding(obj: Object) -> None:
    role = obj.get("roleRef") or {}
    role["apiGroup"] = role.get("apiGroup") or "rbac.authorization.k8s.io"
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = "rbac.authorization.k8s.io"


@_of("Node")
def _node(obj: Object) -> None:
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    if "capacity" in status:
        status.setdefault("allocatable", dict(status["capacity"]))


@_of("Endpoints")
def _endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port["protocol"] = port.get("protocol") or "TCP"


@_of("EndpointSlice")
def _endpoint_slice(obj: Object) -> None:
    for port in obj.get("ports") or ():
        fill(port, {"name": "", "protocol": "TCP"})


@_of("StorageClass")
def _storage_class(obj: Object) -> None:
    fill(obj, {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})


@_of("LimitRange")
def _limit_range(obj: Object) -> None:
    for item in obj.setdefault("spec", {}).get("limits") or ():
        if item.get("type") == "Container":
            item["default"] = {**item.get("max", {}), **item.get("default", {})}
            item["defaultRequest"] = {**item.get("min", {}), **item["default"], **item.get("defaultRequest", {})}


@_of("PriorityClass")
def _priority_class(obj: Object) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


@_of("PodTemplate")
def _pod_template(obj: Object) -> None:
    template(obj)
