"""Defaults and admission: what is stored for what was sent."""

import json
from pathlib import Path

import pytest
import yaml

from kitlib.cluster.apiserver import admission, defaults, schema
from kitlib.cluster.apiserver.registry import by_gvk, lookup
from kitlib.cluster.client import ApiError
from kitlib.cluster.config import REAL_TIMES, Settings

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "recorded_objects.jsonl").read_text().splitlines()]


def stored(obj, settings=REAL_TIMES, **listed):
    obj = yaml.safe_load(obj) if isinstance(obj, str) else obj
    kind = by_gvk(obj["apiVersion"], obj["kind"])
    schema.decode(kind, obj)
    defaults.apply_defaults(kind, obj)
    admission.admit_create(kind, obj, settings, lambda resource, namespace: listed.get(resource.partition(".")[0], ()))
    return obj


@pytest.mark.parametrize("recorded", RECORDED, ids=[each["stored"]["metadata"]["name"] for each in RECORDED])
def test_what_a_real_cluster_stored(recorded):
    manifest, wanted = recorded["manifest"], recorded["stored"]
    manifest["metadata"]["uid"] = wanted["metadata"]["uid"]
    spec = stored(manifest)["spec"]
    for name in ("nodeName", "serviceAccount", "serviceAccountName"):
        spec.pop(name, None)
        wanted["spec"].pop(name, None)
    assert spec == wanted["spec"]
    assert manifest["metadata"].get("labels") == wanted["metadata"].get("labels")


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"), ("nginx:latest", "Always"), ("nginx:1", "IfNotPresent"), ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"), ("nginx@sha256:0", "IfNotPresent"), ("nginx:latest@sha256:0", "Always"),
    ],
)  # fmt: skip
def test_the_tag_decides_when_an_image_is_pulled(image, policy):
    assert defaults.image_pull_policy(image) == policy


def test_deployment():
    spec = stored(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {spec: {containers: [{}]}}}}"
    )
    spec = spec["spec"]
    template = spec.pop("template")
    assert spec == {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    }
    assert "enableServiceLinks" not in template["spec"]
    assert template["spec"]["terminationGracePeriodSeconds"] == 30


def test_probes():
    pod = stored(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i, livenessProbe:"
        " {httpGet: {port: 80}}}]}}"
    )
    assert pod["spec"]["containers"][0]["livenessProbe"] == {
        "failureThreshold": 3,
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "periodSeconds": 10,
        "successThreshold": 1,
        "timeoutSeconds": 1,
    }


def test_services():
    spec = stored("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}], type: NodePort}}")[
        "spec"
    ]
    assert spec == {
        "externalTrafficPolicy": "Cluster",
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "type": "NodePort",
    }


def test_secrets():
    assert stored("{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: Yg==}, stringData: {c: d}}") == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "type": "Opaque",
        "data": {"a": "Yg==", "c": "ZA=="},
    }


def test_a_cron_job_keeps_its_job_as_it_is():
    text = "{apiVersion: batch/v1, kind: CronJob, metadata: {name: c}, spec: {schedule: '* * * * *', jobTemplate: {}}}"
    spec = stored(text)["spec"]
    assert (spec["concurrencyPolicy"], spec["suspend"]) == ("Allow", False)
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 1)
    assert set(spec["jobTemplate"]["spec"]) == {"template"}


def test_a_job_with_a_parallelism_alone_is_a_work_queue():
    text = "{apiVersion: batch/v1, kind: Job, metadata: {name: j, uid: u}, spec: {parallelism: 3}}"
    spec = stored(text)["spec"]
    assert "completions" not in spec
    assert spec["backoffLimit"] == 6


def test_tolerations_follow_the_settings_and_what_a_pod_has():
    text = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}"
    lab = stored(text, Settings())["spec"]["tolerations"]
    assert [toleration["tolerationSeconds"] for toleration in lab] == [3, 3]
    pod = yaml.safe_load(text)
    pod["spec"]["tolerations"] = [{"operator": "Exists"}]
    assert stored(pod)["spec"]["tolerations"] == [{"operator": "Exists"}]


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}, "Burstable"),
        ({"limits": {"nvidia.com/gpu": 1}}, "BestEffort"),
    ],
)
def test_quality_of_service(resources, qos):
    pod = yaml.safe_load("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}")
    pod["spec"]["containers"][0]["resources"] = resources
    assert stored(pod)["status"]["qosClass"] == qos


POD = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n}, spec: {containers: [{name: c, image: i}]}}"


def test_a_limit_range_fills_in_and_refuses():
    limits = {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}, "max": {"cpu": "2"}}
    ranges = [{"metadata": {"name": "l"}, "spec": {"limits": [limits]}}]
    assert stored(POD, limitranges=ranges)["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1"},
        "requests": {"cpu": "500m"},
    }
    limits["max"] = {"cpu": "100m"}
    with pytest.raises(ApiError, match="maximum cpu usage per Container is 100m, but limit is 1") as refused:
        stored(POD, limitranges=ranges)
    assert refused.value.code == 403


def test_a_quota_refuses_one_pod_too_many():
    quotas = [{"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}]
    stored(POD, resourcequotas=quotas)
    with pytest.raises(ApiError) as refused:
        stored(POD, resourcequotas=quotas, pods=[yaml.safe_load(POD)])
    assert (
        refused.value.message
        == 'pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    )


def test_a_quota_counts_quotas():
    quotas = [{"metadata": {"name": "q"}, "spec": {"hard": {"resourcequotas": "1"}}}]
    other = "{apiVersion: v1, kind: ResourceQuota, metadata: {name: r, namespace: n}, spec: {hard: {pods: 1}}}"
    with pytest.raises(ApiError, match="exceeded quota: q, requested: resourcequotas=1, used: resourcequotas=1"):
        stored(other, resourcequotas=quotas)


def test_a_pods_account_exists_and_its_old_field_follows_the_new_one():
    pod = yaml.safe_load(POD)
    pod["spec"] |= {"serviceAccountName": "new", "serviceAccount": "old"}
    spec = stored(pod, serviceaccounts=[{"metadata": {"name": "new"}}])["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("new", "new")
    why = 'pods "p" is forbidden: error looking up service account n/new: serviceaccount "new" not found'
    with pytest.raises(ApiError, match=why):
        stored(pod)


def test_a_quota_of_cpu_needs_requests():
    quotas = [{"metadata": {"name": "q"}, "spec": {"hard": {"cpu": "1"}}}]
    with pytest.raises(ApiError, match="failed quota: q: must specify cpu for: c"):
        stored(POD, resourcequotas=quotas)


def test_priority_comes_from_the_class():
    classes = [{"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}]
    pod = yaml.safe_load(POD)
    pod["spec"]["priorityClassName"] = "high"
    spec = stored(pod, priorityclasses=classes)["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
    pod["spec"]["priorityClassName"] = "nosuch"
    with pytest.raises(ApiError, match="no PriorityClass with name nosuch was found"):
        stored(pod)


def test_every_kind_takes_an_empty_object():
    for plural in ("pods", "services", "jobs.batch", "horizontalpodautoscalers.autoscaling", "persistentvolumes"):
        kind = lookup(plural)
        stored({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x", "uid": "u"}})
