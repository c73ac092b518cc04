"""Valid objects of many kinds, for the fuzzer to spoil; `@` stands for a number."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
PARTS = [*[""] * 8, *["/status"] * 3, *["/scale"] * 2, "/ephemeralcontainers", "/resize", "/finalize", "/approval"]
"""What a request may name of an object."""

POD: Object = {
    "schedulerName": "nobody",
    "containers": [
        {
            "name": "c",
            "image": "busybox",
            "command": ["sleep", "1"],
            "ports": [{"containerPort": 80, "name": "w"}],
            "env": [{"name": "A", "value": "$(B)"}],
            "resources": {"limits": {"cpu": "1"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": "w"}, "periodSeconds": 1},
            "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
        }
    ],
    "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}],
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"a": "x"}}, "topologyKey": "kubernetes.io/hostname"}
            ]
        }
    },
    "tolerations": [{"key": "k", "operator": "Exists"}],
}
TEMPLATE: Object = {"metadata": {"labels": {"app": "fuzz"}}, "spec": POD}
RUNNING: Object = {
    "nodeName": "node-1",
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": 0,
    "hostname": "h",
    "subdomain": "s",
    "initContainers": [{"name": "i", "image": "busybox", "command": ["true"]}],
    "containers": [
        {
            "name": "c",
            "image": "busybox",
            "command": ["sh", "-c", "sleep 1"],
            "workingDir": "/v",
            "terminationMessagePath": "/dev/termination-log",
            "envFrom": [{"configMapRef": {"name": "m", "optional": True}}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [
                {"name": "v", "mountPath": "/v", "subPath": "p"},
                {"name": "e", "mountPath": "/e", "subPathExpr": "$(N)"},
                {"name": "j", "mountPath": "/j", "readOnly": True},
            ],
        }
    ],
    "volumes": [
        {"name": "v", "configMap": {"name": "m", "defaultMode": 420, "items": [{"key": "k", "path": "p/q"}]}},
        {"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {
            "name": "j",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 600, "audience": "x"}},
                    {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "s"}]}},
                ]
            },
        },
        {"name": "c", "persistentVolumeClaim": {"claimName": "f1"}},
    ],
}
SCHEDULED: Object = {
    "priorityClassName": "f@",
    "terminationGracePeriodSeconds": 0,
    "containers": [
        {"name": "c", "image": "busybox", "command": ["sleep", "1"], "resources": {"requests": {"cpu": "900"}}}
    ],
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"a": "b"}},
        }
    ],
}
SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "default": 2},
                "text": {"type": "string", "pattern": "^(a+)+$", "maxLength": 50, "format": "date-time"},
                "either": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "list": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
                },
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    },
}


def definition(plural: str, kind: str) -> Object:
    """Return a CustomResourceDefinition of group `fuzz.example`."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": SCHEMA},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.x"}},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.fuzz.example"},
        "spec": {
            "group": "fuzz.example",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "shortNames": [f"x{plural}"]},
            "versions": [version],
        },
    }


PREPARED: list[Object] = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fuzz"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}},
    definition("widgets", "Widget"),
]
"""What the objects refer to."""

_IN, _IN_APPS, _IN_BATCH = ("/api/v1/namespaces/default", "/apis/apps/v1/namespaces/default",
                            "/apis/batch/v1/namespaces/default")  # fmt: skip
_SELECTED: Object = {"selector": {"matchLabels": {"app": "fuzz"}}, "template": TEMPLATE}
_CLAIM: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
_WIDGET: Object = {"size": 3, "text": "a" * 40, "either": "5%", "free": {"x": [1]}, "list": [{"name": "a"}]}


def _object(kind: str, version: str = "v1", **fields: Any) -> Object:
    return {"apiVersion": version, "kind": kind, **fields}


OBJECTS: list[tuple[str, Object]] = [
    (f"{_IN}/pods", _object("Pod", spec=POD)),
    (f"{_IN}/pods", _object("Pod", metadata={"name": "r@"}, spec=RUNNING)),
    (f"{_IN}/pods", _object("Pod", metadata={"name": "s@"}, spec=SCHEDULED)),
    (f"{_IN}/pods/f@/eviction", _object("Eviction", "policy/v1")),
    (f"{_IN}/pods/f@/binding", _object("Binding", target={"kind": "Node", "name": "node-1"})),
    (
        f"{_IN}/pods",
        _object("Pod", metadata={"name": "target"}, spec={"ephemeralContainers": [{"name": "e@", "image": "busybox"}]}),
    ),
    (f"{_IN}/configmaps", _object("ConfigMap", data={"k": "v"}, binaryData={"b": "AA=="})),
    (f"{_IN}/secrets", _object("Secret", type="Opaque", stringData={"k": "v"})),
    (
        f"{_IN}/services",
        _object("Service", spec={"selector": {"app": "fuzz"}, "ports": [{"port": 80, "targetPort": "w"}]}),
    ),
    (f"{_IN}/events", _object("Event", involvedObject={"kind": "Pod", "name": "web", "namespace": "default"}, count=1)),
    (f"{_IN}/persistentvolumeclaims", _object("PersistentVolumeClaim", spec=_CLAIM)),
    (
        "/api/v1/persistentvolumes",
        _object(
            "PersistentVolume",
            spec={
                "capacity": {"storage": "1Mi"},
                "accessModes": ["ReadWriteOnce"],
                "csi": {"driver": "d", "volumeHandle": "h"},
            },
        ),
    ),
    ("/apis/storage.k8s.io/v1/storageclasses", _object("StorageClass", "storage.k8s.io/v1", provisioner="p")),
    (f"{_IN}/serviceaccounts", _object("ServiceAccount", automountServiceAccountToken=True)),
    (
        f"{_IN}/serviceaccounts/default/token",
        _object(
            "TokenRequest",
            "authentication.k8s.io/v1",
            spec={"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "name": "web"}},
        ),
    ),
    (
        "/apis/authentication.k8s.io/v1/tokenreviews",
        _object("TokenReview", "authentication.k8s.io/v1", spec={"token": "a.b.c", "audiences": ["x"]}),
    ),
    (
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        _object("SelfSubjectAccessReview", "authorization.k8s.io/v1", spec={"resourceAttributes": {"verb": "get"}}),
    ),
    ("/api/v1/namespaces", _object("Namespace", spec={"finalizers": ["kubernetes"]})),
    ("/api/v1/nodes", _object("Node", spec={"taints": [{"key": "k", "effect": "NoSchedule"}], "unschedulable": True})),
    ("/api/v1/namespaces/fuzz/resourcequotas", _object("ResourceQuota", spec={"hard": {"pods": "2"}})),
    (
        "/api/v1/namespaces/fuzz/limitranges",
        _object("LimitRange", spec={"limits": [{"type": "Container", "default": {"cpu": "1"}}]}),
    ),
    (f"{_IN_APPS}/deployments", _object("Deployment", "apps/v1", spec=_SELECTED)),
    (f"{_IN_APPS}/replicasets", _object("ReplicaSet", "apps/v1", spec=_SELECTED)),
    (f"{_IN_APPS}/daemonsets", _object("DaemonSet", "apps/v1", spec=_SELECTED)),
    (
        f"{_IN_APPS}/statefulsets",
        _object(
            "StatefulSet",
            "apps/v1",
            spec={
                **_SELECTED,
                "serviceName": "f@",
                "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": _CLAIM}],
            },
        ),
    ),
    (
        f"{_IN_BATCH}/jobs",
        _object(
            "Job",
            "batch/v1",
            spec={
                "template": {"spec": {**POD, "restartPolicy": "Never"}},
                "podFailurePolicy": {
                    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
                },
            },
        ),
    ),
    (
        f"{_IN_BATCH}/cronjobs",
        _object(
            "CronJob",
            "batch/v1",
            spec={"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": {"template": TEMPLATE}}},
        ),
    ),
    (
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        _object(
            "EndpointSlice",
            "discovery.k8s.io/v1",
            metadata={"name": "f@", "labels": {"kubernetes.io/service-name": "web"}},
            addressType="IPv4",
            endpoints=[{"addresses": ["127.0.0.1"], "targetRef": {"kind": "Pod", "name": "web"}}],
            ports=[{"name": "", "port": 9}],
        ),
    ),
    (
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        _object(
            "Lease", "coordination.k8s.io/v1", spec={"holderIdentity": "x", "renewTime": "2020-01-01T00:00:00.000000Z"}
        ),
    ),
    (
        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
        _object(
            "HorizontalPodAutoscaler",
            "autoscaling/v2",
            spec={"minReplicas": 1, "maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "f@"}},
        ),
    ),
    (
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
        _object(
            "PodDisruptionBudget", "policy/v1", spec={"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}
        ),
    ),
    ("/apis/scheduling.k8s.io/v1/priorityclasses", _object("PriorityClass", "scheduling.k8s.io/v1", value=1000)),
    (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        _object(
            "ClusterRole",
            "rbac.authorization.k8s.io/v1",
            rules=[{"verbs": ["*"], "apiGroups": [""], "resources": ["x"]}],
        ),
    ),
    (
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
        _object(
            "Ingress",
            "networking.k8s.io/v1",
            spec={"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
        ),
    ),
    ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition("t@s", "T@")),
    ("/apis/fuzz.example/v1/namespaces/default/widgets", _object("Widget", "fuzz.example/v1", spec=_WIDGET)),
    ("/apis/fuzz.example/v1/namespaces/default/widgets", _object("Widget", "fuzz.example/v1", spec=_WIDGET)),
    ("/apis/fuzz.example/v1/namespaces/default/t1s", _object("T1", "fuzz.example/v1", spec=_WIDGET)),
]
