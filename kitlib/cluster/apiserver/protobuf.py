"""Reading request bodies in Kubernetes' protobuf encoding.

Stands for the protobuf serializer of apimachinery. kubectl 1.32 and later sends the objects that it makes itself
(`create deployment`, `autoscale`, `certificate approve`) in this encoding and reads JSON in return. Types come from
`models.py`; the table below adds the field numbers, which are part of Kubernetes' public wire format. Left out:
writing, and kinds that kubectl never sends so.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import cache
from typing import Any, NamedTuple

import orjson

from kitlib.cluster.apiserver import errors, models
from kitlib.cluster.apiserver.models import Type
from kitlib.cluster.apiserver.registry import by_gvk
from kitlib.cluster.objects import Object

MAGIC = b"k8s\x00"

_MESSAGES = """
ObjectMeta: name generateName namespace selfLink uid resourceVersion generation creationTimestamp deletionTimestamp
 *deletionGracePeriodSeconds labels annotations ownerReferences finalizers 17:managedFields
OwnerReference: kind 3:name uid apiVersion *controller *blockOwnerDeletion
ManagedFieldsEntry: manager operation apiVersion time 6:fieldsType fieldsV1 subresource
LabelSelector: matchLabels matchExpressions
LabelSelectorRequirement: key operator values
LocalObjectReference: name
TypedLocalObjectReference: *apiGroup kind name
ObjectReference: kind namespace name uid apiVersion resourceVersion fieldPath
DeleteOptions: *gracePeriodSeconds preconditions *orphanDependents *propagationPolicy dryRun
Preconditions: *uid *resourceVersion
Namespace Deployment Job CronJob Service Pod ResourceQuota PodDisruptionBudget Ingress: metadata spec
HorizontalPodAutoscaler SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview TokenRequest: metadata spec
LocalSubjectAccessReview JobTemplateSpec PodTemplateSpec: metadata spec
SelfSubjectReview: metadata
CertificateSigningRequest: metadata spec status
CertificateSigningRequestSpec: request username uid groups usages extra signerName *expirationSeconds
CertificateSigningRequestStatus: conditions certificate
CertificateSigningRequestCondition: type reason message lastUpdateTime lastTransitionTime status
NamespaceSpec: finalizers
ConfigMap: metadata data binaryData *immutable
Secret: metadata data type stringData *immutable
ServiceAccount: metadata secrets imagePullSecrets *automountServiceAccountToken
ServiceSpec: ports selector clusterIP type externalIPs 7:sessionAffinity loadBalancerIP loadBalancerSourceRanges
 externalName externalTrafficPolicy healthCheckNodePort publishNotReadyAddresses sessionAffinityConfig
 17:*ipFamilyPolicy clusterIPs ipFamilies *allocateLoadBalancerNodePorts *loadBalancerClass *internalTrafficPolicy
 *trafficDistribution
ServicePort: name protocol port targetPort nodePort *appProtocol
SessionAffinityConfig: clientIP
ClientIPConfig: *timeoutSeconds
Role: metadata rules
ClusterRole: metadata rules aggregationRule
AggregationRule: clusterRoleSelectors
PolicyRule: verbs apiGroups resources resourceNames nonResourceURLs
RoleBinding ClusterRoleBinding: metadata subjects roleRef
Subject: kind apiGroup name namespace
RoleRef: apiGroup kind name
ResourceQuotaSpec: hard scopes scopeSelector
ScopeSelector: matchExpressions
ScopedResourceSelectorRequirement: scopeName operator values
PodDisruptionBudgetSpec: minAvailable selector maxUnavailable *unhealthyPodEvictionPolicy
PriorityClass: metadata value globalDefault description *preemptionPolicy
IngressSpec: defaultBackend tls rules *ingressClassName
IngressTLS: hosts secretName
IngressRule: host +IngressRuleValue
IngressRuleValue: http
HTTPIngressRuleValue: paths
HTTPIngressPath: path backend *pathType
IngressBackend: 3:resource service
IngressServiceBackend: name port
ServiceBackendPort: name number
HorizontalPodAutoscalerSpec: scaleTargetRef *minReplicas maxReplicas metrics behavior
V1HorizontalPodAutoscalerSpec: scaleTargetRef *minReplicas maxReplicas *targetCPUUtilizationPercentage
CrossVersionObjectReference: kind name apiVersion
MetricSpec: type object pods resource external 7:containerResource
ResourceMetricSource: name target
ContainerResourceMetricSource: name target container
MetricTarget: type value averageValue *averageUtilization
SelfSubjectAccessReviewSpec: resourceAttributes nonResourceAttributes
SubjectAccessReviewSpec: resourceAttributes nonResourceAttributes user groups extra uid
SelfSubjectRulesReviewSpec: namespace
ResourceAttributes: namespace verb group version resource subresource name
NonResourceAttributes: path verb
TokenRequestSpec: audiences 3:boundObjectRef *expirationSeconds
BoundObjectReference: kind apiVersion name uid
Eviction: metadata deleteOptions
DeploymentSpec: *replicas selector template strategy minReadySeconds *revisionHistoryLimit paused
 9:*progressDeadlineSeconds
DeploymentStrategy: type rollingUpdate
RollingUpdateDeployment: maxUnavailable maxSurge
CronJobSpec: schedule *startingDeadlineSeconds concurrencyPolicy *suspend jobTemplate *successfulJobsHistoryLimit
 *failedJobsHistoryLimit *timeZone
JobSpec: *parallelism *completions *activeDeadlineSeconds selector *manualSelector template *backoffLimit
 *ttlSecondsAfterFinished *completionMode *suspend podFailurePolicy *backoffLimitPerIndex *maxFailedIndexes
 *podReplacementPolicy *managedBy successPolicy
PodFailurePolicy: rules
PodFailurePolicyRule: action onExitCodes onPodConditions
PodFailurePolicyOnExitCodesRequirement: *containerName operator values
PodFailurePolicyOnPodConditionsPattern: type status
SuccessPolicy: rules
SuccessPolicyRule: *succeededIndexes *succeededCount
PodSpec: volumes containers restartPolicy *terminationGracePeriodSeconds *activeDeadlineSeconds dnsPolicy nodeSelector
 serviceAccountName serviceAccount nodeName hostNetwork hostPID hostIPC securityContext imagePullSecrets hostname
 subdomain affinity schedulerName initContainers *automountServiceAccountToken tolerations hostAliases
 priorityClassName *priority dnsConfig *shareProcessNamespace readinessGates *runtimeClassName *enableServiceLinks
 *preemptionPolicy overhead topologySpreadConstraints ephemeralContainers *setHostnameAsFQDN os *hostUsers
 schedulingGates resourceClaims resources *hostnameOverride
Container: name image command args workingDir ports env resources volumeMounts livenessProbe readinessProbe lifecycle
 terminationMessagePath imagePullPolicy securityContext stdin stdinOnce tty envFrom terminationMessagePolicy
 volumeDevices startupProbe resizePolicy *restartPolicy
ContainerPort: name hostPort containerPort protocol hostIP
EnvVar: name value valueFrom
EnvVarSource: fieldRef resourceFieldRef configMapKeyRef secretKeyRef
ObjectFieldSelector: apiVersion fieldPath
ResourceFieldSelector: containerName resource divisor
ConfigMapKeySelector SecretKeySelector: +LocalObjectReference key *optional
EnvFromSource: prefix configMapRef secretRef
ConfigMapEnvSource SecretEnvSource: +LocalObjectReference *optional
ResourceRequirements: limits requests claims
ResourceClaim: name request
ContainerResizePolicy: resourceName restartPolicy
VolumeMount: name readOnly mountPath subPath *mountPropagation subPathExpr *recursiveReadOnly
VolumeDevice: name devicePath
Probe: +ProbeHandler initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold
 *terminationGracePeriodSeconds
ProbeHandler: exec httpGet tcpSocket grpc
Lifecycle: postStart preStop *stopSignal
LifecycleHandler: exec httpGet tcpSocket sleep
ExecAction: command
HTTPGetAction: path port host scheme httpHeaders
HTTPHeader: name value
TCPSocketAction: port host
GRPCAction: port *service
SleepAction: seconds
Volume: name +VolumeSource
VolumeSource: hostPath emptyDir 6:secret nfs 10:persistentVolumeClaim 16:downwardAPI 19:configMap 26:projected
HostPathVolumeSource: path *type
EmptyDirVolumeSource: medium sizeLimit
SecretVolumeSource: secretName items *defaultMode *optional
NFSVolumeSource: server path readOnly
PersistentVolumeClaimVolumeSource: claimName readOnly
DownwardAPIVolumeSource: items *defaultMode
DownwardAPIVolumeFile: path fieldRef resourceFieldRef *mode
ConfigMapVolumeSource: +LocalObjectReference items *defaultMode *optional
KeyToPath: key path *mode
ProjectedVolumeSource: sources *defaultMode
VolumeProjection: secret downwardAPI configMap serviceAccountToken
SecretProjection ConfigMapProjection: +LocalObjectReference items 4:*optional
DownwardAPIProjection: items
ServiceAccountTokenProjection: audience *expirationSeconds path
SecurityContext: capabilities *privileged seLinuxOptions *runAsUser *runAsNonRoot *readOnlyRootFilesystem
 *allowPrivilegeEscalation *runAsGroup *procMount 11:seccompProfile
Capabilities: add drop
SeccompProfile: type *localhostProfile
SELinuxOptions: user role type level
PodSecurityContext: seLinuxOptions *runAsUser *runAsNonRoot supplementalGroups *fsGroup *runAsGroup sysctls
 9:*fsGroupChangePolicy seccompProfile 12:*supplementalGroupsPolicy
Sysctl: name value
Toleration: key operator value effect *tolerationSeconds
HostAlias: ip hostnames
PodDNSConfig: nameservers searches options
PodDNSConfigOption: name *value
PodReadinessGate: conditionType
PodSchedulingGate PodOS: name
Affinity: nodeAffinity podAffinity podAntiAffinity
NodeAffinity PodAffinity PodAntiAffinity: requiredDuringSchedulingIgnoredDuringExecution
 preferredDuringSchedulingIgnoredDuringExecution
NodeSelector: nodeSelectorTerms
NodeSelectorTerm: matchExpressions matchFields
NodeSelectorRequirement: key operator values
PreferredSchedulingTerm: weight preference
PodAffinityTerm: labelSelector namespaces topologyKey namespaceSelector matchLabelKeys mismatchLabelKeys
WeightedPodAffinityTerm: weight podAffinityTerm
TopologySpreadConstraint: maxSkew topologyKey whenUnsatisfiable labelSelector *minDomains *nodeAffinityPolicy
 *nodeTaintsPolicy matchLabelKeys
"""
"""Messages and their fields in the order of their numbers: `7:` sets a number, `*` marks a pointer (its zero counts),
`+` an embedded message whose fields stand in the outer object."""

_OTHER_KINDS = {
    "DeleteOptions": "V1DeleteOptions",
    "Eviction": "V1Eviction",
    "TokenRequest": "AuthenticationV1TokenRequest",
}


class _Field(NamedTuple):
    name: str
    pointer: bool
    embedded: bool


def _fields(words: list[str]) -> dict[int, _Field]:
    fields, number = {}, 0
    for word in words:
        explicit, _, name = word.rpartition(":")
        number = int(explicit) if explicit else number + 1
        fields[number] = _Field(name.lstrip("*+"), name[0] == "*", name[0] == "+")
    return fields


@cache
def _messages() -> dict[str, dict[int, _Field]]:
    found = {}
    for line in _MESSAGES.replace("\n ", " ").strip().splitlines():
        names, _, words = line.partition(": ")
        found.update(dict.fromkeys(names.split(), _fields(words.split())))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
        shift += 7
        if shift > 63:
            raise ValueError("varint overflow")


def _wire(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field number and raw value (int or bytes) of a message.

    Raises:
        ValueError, IndexError: The bytes are no message.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(kind, -1)
        if kind == 2:
            size, at = _varint(data, at)
        if size < 0 or at + size > len(data):
            raise ValueError("unexpected EOF" if size >= 0 else f"illegal wireType {kind}")
        yield number, data[at : at + size]
        at += size


def _bytes(raw: Any) -> bytes:
    if not isinstance(raw, bytes):
        raise ValueError("wrong wireType")
    return raw


def _signed(raw: Any) -> int:
    if not isinstance(raw, int):
        raise ValueError("wrong wireType")
    return raw - 2**64 if raw >= 2**63 else raw


def _last(raw: Any) -> dict[int, Any]:
    return dict(_wire(_bytes(raw)))


def _time(raw: Any, micro: bool) -> str | None:
    """Return a Timestamp as text, None for Go's zero time."""
    message = _last(raw)
    seconds, nanos = _signed(message.get(1, 0)), _signed(message.get(2, 0))
    if not seconds and not nanos:
        return None
    moment = datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=nanos // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _int_or_string(raw: Any) -> int | str:
    message = _last(raw)
    return _bytes(message.get(3, b"")).decode() if message.get(1) == 1 else _signed(message.get(2, 0))


def _scalar(kind: str, raw: Any) -> Any:
    if kind == "string":
        return _bytes(raw).decode()
    if kind in ("int32", "int64"):
        return _signed(raw)
    if kind == "bool":
        return bool(_signed(raw))
    if kind == "bytes":
        return base64.b64encode(_bytes(raw)).decode()
    if kind == "quantity":
        return _bytes(_last(raw).get(1, b"")).decode()
    if kind == "int-or-string":
        return _int_or_string(raw)
    if kind in ("time", "micro-time"):
        return _time(raw, kind == "micro-time")
    return orjson.loads(_bytes(_last(raw).get(1, b"null")))


def _value(kind: Type, raw: Any) -> Any:
    if isinstance(kind, tuple):
        raise ValueError("nested list")
    return _scalar(kind, raw) if kind in models.SCALARS else _message(kind, _bytes(raw))


def _message(model_name: str, data: bytes) -> Object:
    model = models.load(model_name)
    if model is None:
        return {}
    table = _messages()
    found: Object = {}
    _fill(found, model, table.get(model_name) or table.get(model.short) or {}, data)
    return found


def _fill(found: Object, model: models.Model, fields: dict[int, _Field], data: bytes) -> None:
    for number, raw in _wire(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.embedded:
            _fill(found, model, _messages()[field.name], _bytes(raw))
            continue
        declared = model.fields.get(field.name)
        if declared is not None:
            _set(found, field, declared.type, raw)


def _set(found: Object, field: _Field, kind: Type, raw: Any) -> None:
    """Put one occurrence of a field into an object; repeated ones add up."""
    if not isinstance(kind, tuple):
        value = _value(kind, raw)
        if value is not None and (value or field.pointer or kind in ("int-or-string", "quantity") or value == {}):
            found[field.name] = value
    elif kind[0] == "map":
        entry = _last(raw)
        key = _bytes(entry.get(1, b"")).decode()
        found.setdefault(field.name, {})[key] = _map_value(kind[1], entry.get(2))
    elif isinstance(raw, bytes) and kind[1] in ("int32", "int64"):
        found.setdefault(field.name, []).extend(_packed(raw))
    else:
        found.setdefault(field.name, []).append(_value(kind[1], raw))


def _map_value(kind: Type, raw: Any) -> Any:
    if isinstance(kind, tuple):
        return [_value(kind[1], item) for _, item in _wire(_bytes(raw or b""))]
    return _value(kind, b"" if raw is None else raw)


def _packed(raw: bytes) -> Iterator[int]:
    at = 0
    while at < len(raw):
        value, at = _varint(raw, at)
        yield _signed(value)


def decode(body: bytes) -> Object:
    """Return the object in a protobuf request body.

    Args:
        body: The envelope: a magic number, then the object's type and its bytes.

    Raises:
        ApiError: 400: the bytes are no such envelope; 415: a kind that is not read in this encoding.
    """
    if not body.startswith(MAGIC):
        raise errors.bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    try:
        envelope = _last(body[len(MAGIC) :])
        names = _last(envelope.get(1, b""))
        api_version, kind = (_bytes(names.get(number, b"")).decode() for number in (1, 2))
        model = _model(api_version, kind)
        found = _message(model, _bytes(envelope.get(2, b"")))
    except (ValueError, IndexError, OverflowError, OSError) as error:
        raise errors.bad_request(f"couldn't decode the protobuf body: {error}") from None
    return {"apiVersion": api_version, "kind": kind, **found}


def _model(api_version: str, kind: str) -> str:
    registered = by_gvk(api_version, kind)
    model = registered.model if registered else _OTHER_KINDS.get(kind, "")
    if not {model, models.short_name(model)} & set(_messages()):
        raise errors.unsupported_media_type()
    return model
