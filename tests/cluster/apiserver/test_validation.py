"""What the API server refuses with 422, in Kubernetes' words."""

# ruff: noqa: E501 (Kubernetes' messages and rows are long)

import copy
import random

import pytest
import yaml

from kitlib.cluster.apiserver import admission, defaults, schema
from kitlib.cluster.apiserver.registry import KINDS, by_gvk
from kitlib.cluster.apiserver.validation.kinds import validate_create, validate_update
from kitlib.cluster.client import ApiError
from kitlib.cluster.config import REAL_TIMES

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default, uid: u}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: nginx}]
"""
POD = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default}, spec: {containers: [{name: c, image: i}]}}"
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: j, namespace: default, uid: u}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}
"""
SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: default}, spec: {ports: [{port: 80}]}}"


def prepared(text, **changes):
    """Return kind and object after decoding, defaults and admission; a change's key is a path with `__` for dots."""
    obj = yaml.safe_load(text) if isinstance(text, str) else copy.deepcopy(text)
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = obj
        for parent in parents:
            target = target[int(parent)] if parent.isdigit() else target.setdefault(parent, {})
        target[last] = value
    kind = by_gvk(obj["apiVersion"], obj["kind"])
    schema.decode(kind, obj)
    defaults.apply_defaults(kind, obj)
    admission.admit_create(kind, obj, REAL_TIMES)
    return kind, obj


def problems(text, **changes):
    return [f"{cause['field']}: {cause['message']}" for cause in validate_create(*prepared(text, **changes))]


@pytest.mark.parametrize("text", [DEPLOYMENT, POD, JOB, SERVICE])
def test_a_valid_object_has_no_problems(text):
    assert problems(text) == []


def test_problems_come_in_the_order_of_kubernetes():
    found = problems(
        DEPLOYMENT,
        metadata__name="Bad_Name",
        spec__selector={"matchLabels": {"a": "b"}},
        spec__template__metadata__labels={"a": "c"},
        spec__template__spec__containers=[{"name": "c"}],
    )
    assert found == [
        'metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric'
        " characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for"
        r" validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        'spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`',
        "spec.template.spec.containers[0].image: Required value",
    ]


def test_containers_without_names_are_told_so_each_by_itself() -> None:
    spec = {"initContainers": [{"image": "busybox"}], "containers": [{"image": "busybox"}]}
    nameless = [f"spec.template.spec.{group}[0].name" for group in spec]
    fields = {f"spec__template__spec__{group}": value for group, value in spec.items()}
    causes = validate_create(*prepared(DEPLOYMENT, **fields))
    assert sorted(c["field"] for c in causes if c["reason"] == "FieldValueRequired") == sorted(nameless)


def test_reasons_are_kubernetes_cause_types():
    causes = validate_create(*prepared(DEPLOYMENT, spec__template__spec__containers=[{"name": "c"}]))
    assert causes == [
        {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.template.spec.containers[0].image"}
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec__replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"spec__strategy": {"type": "Recreate", "rollingUpdate": {}}},
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            {"spec__strategy": {"type": "X"}},
            'spec.strategy.type: Unsupported value: "X": supported values: "Recreate", "RollingUpdate"',
        ),
        (
            {"spec__strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            {"spec__template__spec__restartPolicy": "Never"},
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ),
        (
            {"spec__selector": {}},
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
    ],
)  # fmt: skip
def test_deployments(changes, message):
    assert message in problems(DEPLOYMENT, **changes)


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"image": "i", "name": "C"}, "name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case"
         " alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc',"
         " regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"),
        ({"image": "i"}, "name: Required value"),
        ({"name": "c", "image": "i", "imagePullPolicy": "x"},
         'imagePullPolicy: Unsupported value: "x": supported values: "Always", "IfNotPresent", "Never"'),
        ({"name": "c", "image": "i", "ports": [{"containerPort": 0}]}, "ports[0].containerPort: Required value"),
        ({"name": "c", "image": "i", "ports": [{"containerPort": 70000}]},
         "ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ({"name": "c", "image": "i", "resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}},
         'resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ({"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "500m"}}},
         'resources.limits[nvidia.com/gpu]: Invalid value: "500m": must be an integer'),
        ({"name": "c", "image": "i", "resources": {"requests": {"nvidia.com/gpu": 1}}},
         "resources.limits: Required value: Limit must be set for non overcommitable resources"),
        ({"name": "c", "image": "i", "resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}},
         'resources.requests: Invalid value: "1": must be equal to nvidia.com/gpu limit of 2'),
        ({"name": "c", "image": "i", "resources": {"limits": {"cpu": "-1"}}},
         'resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0'),
        ({"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]},
         'volumeMounts[0].name: Not found: "v"'),
        ({"name": "c", "image": "i", "readinessProbe": {}}, "readinessProbe: Required value: must specify a handler type"),
        ({"name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}, "successThreshold": 2}},
         "livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ({"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
         "env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"x\": error converting fieldPath: field label not supported: x"),
    ],
)  # fmt: skip
def test_containers(container, message):
    assert f"spec.containers[0].{message}" in problems(POD, spec__containers=[container])


def test_names_of_containers_and_volumes_are_unique():
    found = problems(
        POD,
        spec__containers=[{"name": "c", "image": "i"}] * 2,
        spec__volumes=[{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}],
    )
    assert found == [
        'spec.volumes[1].name: Duplicate value: "v"',
        'spec.containers[1].name: Duplicate value: "c"',
    ]


def test_a_pod_without_containers():
    assert problems("{apiVersion: v1, kind: Pod, metadata: {name: p}}") == ["spec.containers: Required value"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec__template__spec__restartPolicy": "Always"},
         'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
        ({"spec__completionMode": "Indexed", "spec__parallelism": 2},
         "spec.completions: Required value: when completion mode is Indexed"),
        ({"spec__completionMode": "x"}, 'spec.completionMode: Unsupported value: "x": supported values: "NonIndexed", "Indexed"'),
        ({"spec__backoffLimit": -1}, "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"),
        ({"spec__template__spec__restartPolicy": "OnFailure", "spec__podFailurePolicy": {"rules": []}},
         'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is'
         " specified"),
    ],
)  # fmt: skip
def test_jobs(changes, message):
    assert message in problems(JOB, **changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{apiVersion: v1, kind: Service, metadata: {name: 1a}, spec: {ports: [{port: 1}]}}",
         "metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start"
         " with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for"
         " validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"),
        ("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}}", "spec.ports: Required value"),
        ("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}, {port: 2}]}}",
         "spec.ports[0].name: Required value"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {'a b': x}}",
         "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g."
         " 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {}}", "metadata.name: Required value: name or generateName is required"),
        ("{apiVersion: v1, kind: Secret, metadata: {name: a}, type: kubernetes.io/tls}", "data[tls.crt]: Required value"),
        ("{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a}, spec: {}}",
         "spec.accessModes: Required value: at least 1 access mode is required"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}",
         "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or"
         " '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation"
         " is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"),
        ("{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {schedule: x}}",
         'spec.schedule: Invalid value: "x": expected exactly 5 fields, found 1: [x]'),
        ("{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {schedule: 5-2 * * * *}}",
         'spec.schedule: Invalid value: "5-2 * * * *": beginning of range (5) beyond end of range (2): 5-2'),
        ("{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {schedule: 0 0 * * 7}}",
         'spec.schedule: Invalid value: "0 0 * * 7": end of range (7) above maximum (6): 7'),
        ("{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: a}, spec: {maxReplicas: 0}}",
         "spec.maxReplicas: Invalid value: 0: must be greater than 0"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {x: '-'}}, spec: {containers: [{name: c, image: i}]}}",
         "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters,"
         " '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345',"
         " regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"),
    ],
)  # fmt: skip
def test_other_kinds(text, message):
    assert message in problems(text)


@pytest.mark.parametrize("schedule", ["* * * * *", "*/5 0 1,15 * 1-5", "@hourly", "0 0 * jan sun", "@every 5m"])
def test_schedules_that_cron_reads(schedule):
    found = problems("{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {}}", spec__schedule=schedule)
    assert not any("schedule" in text for text in found)


def changed(text, **changes):
    kind, old = prepared(text)
    _, new = prepared(old, **changes)
    return [f"{cause['field']}: {cause['message']}" for cause in validate_update(kind, new, old)]


@pytest.mark.parametrize(
    ("text", "changes", "field", "part"),
    [
        (
            DEPLOYMENT,
            {"spec__selector": {"matchLabels": {"app": "web", "x": "y"}}},
            "spec.selector",
            "field is immutable",
        ),
        (JOB, {"spec__completions": 5}, "spec.completions", "field is immutable"),
        (JOB, {"spec__template__spec__containers__0__image": "x"}, "spec.template", "field is immutable"),
        (POD, {"spec__containers__0__command": ["x"]}, "spec", "pod updates may not change fields other than"),
        (POD, {"spec__nodeName": "node-1"}, "spec", "pod updates may not change fields other than"),
        (POD, {"spec__containers": []}, "spec.containers", "pod updates may not add or remove containers"),
    ],
)
def test_what_may_not_change(text, changes, field, part):
    found = changed(text, **changes)
    assert any(line.startswith(f"{field}: ") and part in line for line in found), found


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (DEPLOYMENT, {"spec__replicas": 3}),
        (DEPLOYMENT, {"spec__template__spec__containers__0__image": "nginx:2"}),
        (POD, {"spec__containers__0__image": "other"}),
        (JOB, {"spec__parallelism": 4}),
        (JOB, {"spec__suspend": True}),
    ],
)
def test_what_may_change(text, changes):
    assert changed(text, **changes) == []


def test_an_immutable_config_map_stays():
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: x}, immutable: true}"
    assert changed(text, data={"a": "y"}) == ["data: Forbidden: field is immutable when `immutable` is set"]


def test_nothing_but_api_errors_comes_out_of_any_object():
    draw = random.Random(11)
    words = """metadata spec status containers name image template selector matchLabels matchExpressions key operator values env
        valueFrom fieldRef ports port containerPort resources limits requests cpu volumes emptyDir strategy rollingUpdate maxSurge
        restartPolicy tolerations affinity nodeAffinity labels annotations replicas completions jobTemplate schedule rules verbs
        podFailurePolicy onExitCodes data type volumeMounts livenessProbe httpGet limits default subjects roleRef behavior
        scaleTargetRef ingress egress http paths backend topologySpreadConstraints requiredDuringSchedulingIgnoredDuringExecution
        nodeSelectorTerms taints effect accessModes capacity storage volumeClaimTemplates stringData ownerReferences""".split()

    def value(depth):
        kinds = [lambda: draw.choice(["a", "", None, 0, -1, 7, 2.5, True, "1Gi", "25%", "Never", "In", "Exists"])]
        if depth:
            kinds += [lambda: [value(depth - 1) for _ in range(draw.randrange(3))]] * 2
            kinds += [lambda: {draw.choice(words): value(depth - 1) for _ in range(draw.randrange(6))}] * 5
        return draw.choice(kinds)()

    accepted = 0
    for round_ in range(6000):
        kind = KINDS[round_ % len(KINDS)]
        obj = {name: value(7) for name in ("spec", "data", "rules", "limits")}
        obj |= {
            "metadata": {"name": "x", "uid": "u", "labels": value(1)},
            "apiVersion": kind.api_version,
            "kind": kind.kind,
        }
        obj = {name: item for name, item in obj.items() if item is not None}
        try:
            schema.decode(kind, obj, draw.choice(["Warn", "Ignore"]))
            if obj.get("metadata") is None or kind.namespaced and not obj["metadata"].get("name"):
                continue
            defaults.apply_defaults(kind, obj)
            admission.admit_create(kind, obj, REAL_TIMES)
            validate_create(kind, obj)
            validate_update(kind, copy.deepcopy(obj), obj)
            accepted += 1
        except ApiError as error:
            assert error.code in (400, 403, 422)
    assert accepted > 500


SLICE = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, namespace: default}}"


@pytest.mark.parametrize(
    ("kind", "addresses", "expected"),
    [
        ("IPv4", ["127.16.1.2"], []),
        ("IPv4", ["fe80::1"], ['endpoints[0].addresses[0]: Invalid value: "fe80::1": must be a valid IPv4 address']),
        ("IPv4", ["web"], ['endpoints[0].addresses[0]: Invalid value: "web": must be a valid IPv4 address']),
        ("IPv6", ["2001:db8::1"], []),
        ("IPv6", ["10.0.0.1"], ['endpoints[0].addresses[0]: Invalid value: "10.0.0.1": must be a valid IPv6 address']),
        ("FQDN", ["web.example.com"], []),
        (
            "FQDN",
            ["web"],
            [
                'endpoints[0].addresses[0]: Invalid value: "web": should be a domain with at least two segments separated by dots'
            ],
        ),
        ("IPv4", [], ["endpoints[0].addresses: Required value: must contain at least 1 address"]),
        ("IPv4", ["10.0.0.1"] * 101, ["endpoints[0].addresses: Too many: 101: must have at most 100 items"]),
    ],
)
def test_the_addresses_of_an_endpoint_slice_are_of_its_address_type(kind, addresses, expected):
    assert problems(SLICE, addressType=kind, endpoints=[{"addresses": addresses}]) == expected


def test_endpoints_hold_ip_addresses():
    text = "{apiVersion: v1, kind: Endpoints, metadata: {name: s, namespace: default}}"
    subset = {"addresses": [{"ip": "10.0.0.1"}, {"ip": "web"}], "ports": [{"port": 80}]}
    assert problems(text, subsets=[subset]) == [
        'subsets[0].addresses[1].ip: Invalid value: "web": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
    ]


INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: default}
spec: {rules: [{host: foo.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
"""
FIRST = "spec__rules__0__http__paths__0__"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({f"{FIRST}pathType": None}, [".pathType: Required value: pathType must be specified"]),
        ({f"{FIRST}path": "x"}, ['.path: Invalid value: "x": must be an absolute path']),
        ({f"{FIRST}backend__service__port": {}}, [".backend: Required value: port name or number is required"]),
        ({f"{FIRST}backend": {}}, ['.backend: Invalid value: "": resource or service backend is required']),
    ],
)
def test_an_ingress_needs_a_path_and_a_whole_backend(changes, wanted):
    assert problems(INGRESS, **changes) == [f"spec.rules[0].http.paths[0]{each}" for each in wanted]


def test_an_ingress_needs_a_name_of_dns_as_its_host():
    (problem,) = problems(INGRESS, spec__rules__0__host="BAD_host")
    assert problem.startswith('spec.rules[0].host: Invalid value: "BAD_host": a lowercase RFC 1123 subdomain must')
    assert problems(INGRESS, spec__rules__0__host="*.foo.com") == []
