"""What `kubectl get` shows: columns, the STATUS of a Pod, ages."""

# ruff: noqa: E501 (Kubernetes' messages and rows are long)

from datetime import datetime, timedelta, timezone

import pytest

from kitlib.cluster.apiserver.printers.durations import human_duration
from kitlib.cluster.apiserver.printers.table import definitions, table
from kitlib.cluster.apiserver.registry import KINDS, by_gvk, lookup

NOW = datetime(2026, 11, 23, 11, 11, 2, tzinfo=timezone.utc)


def ago(seconds):
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def cells(resource, wide=False, age=5, **obj):
    kind = lookup(resource)
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, **obj}
    obj["metadata"] = {"name": "x", "creationTimestamp": ago(age), **obj.get("metadata", {})}
    found = table(kind, [obj], "Metadata", NOW, {})
    row = found["rows"][0]["cells"]
    assert len(row) == len(found["columnDefinitions"])
    return [
        cell for cell, column in zip(row, found["columnDefinitions"], strict=True) if wide or not column["priority"]
    ]


def headers(resource, wide=False):
    return [each["name"].upper() for each in definitions(lookup(resource)) if wide or not each["priority"]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (192, "3m12s"), (599, "9m59s"), (600, "10m"),
     (179 * 60, "179m"), (3 * 3600, "3h"), (3 * 3600 + 60, "3h1m"), (8 * 3600 + 60, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"),
     (49 * 3600, "2d1h"), (8 * 86400 + 3600, "8d"), (400 * 86400, "400d"), (730 * 86400, "2y"), (740 * 86400, "2y10d"),
     (3000 * 86400, "8y")],
)  # fmt: skip
def test_ages(seconds, text):
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("resource", "line", "wide"),
    [
        ("pods", "NAME READY STATUS RESTARTS AGE", "IP|NODE|NOMINATED NODE|READINESS GATES"),
        ("deployments.apps", "NAME READY UP-TO-DATE AVAILABLE AGE", "CONTAINERS|IMAGES|SELECTOR"),
        ("replicasets.apps", "NAME DESIRED CURRENT READY AGE", "CONTAINERS|IMAGES|SELECTOR"),
        ("nodes", "NAME STATUS ROLES AGE VERSION", "INTERNAL-IP|EXTERNAL-IP|OS-IMAGE|KERNEL-VERSION|CONTAINER-RUNTIME"),
        ("services", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE", "SELECTOR"),
        ("endpointslices.discovery.k8s.io", "NAME ADDRESSTYPE PORTS ENDPOINTS AGE", ""),
        ("jobs.batch", "NAME STATUS COMPLETIONS DURATION AGE", "CONTAINERS|IMAGES|SELECTOR"),
    ],
)
def test_headers(resource, line, wide):
    assert headers(resource) == line.split()
    assert headers(resource, wide=True)[len(line.split()) :] == [name for name in wide.split("|") if name]


def test_every_kind_has_a_table_even_for_an_empty_object():
    for kind in KINDS:
        obj = {"kind": kind.kind, "metadata": {}}
        found = table(kind, [obj], "Object", NOW, {"resourceVersion": "1"})
        assert len(found["rows"][0]["cells"]) == len(found["columnDefinitions"])
        assert found["metadata"] == {"resourceVersion": "1"}


def test_kinds_without_columns_of_their_own_show_when_they_were_created():
    assert headers("roles.rbac.authorization.k8s.io") == ["NAME", "CREATED AT"]
    assert cells("roles.rbac.authorization.k8s.io") == ["x", ago(5)]


def test_columns_are_described():
    assert definitions(lookup("pods"))[0]["description"].startswith("Name must be unique within a namespace.")
    assert definitions(lookup("pods"))[4]["description"].startswith("CreationTimestamp is a timestamp")


def test_rows_carry_metadata_the_object_or_nothing():
    obj = {"kind": "Pod", "metadata": {"name": "x", "labels": {"a": "b"}}}
    rows = {
        include: table(lookup("pods"), [obj], include, NOW, {})["rows"][0] for include in ("Metadata", "Object", "None")
    }
    assert rows["Metadata"]["object"]["kind"] == "PartialObjectMetadata"
    assert rows["Metadata"]["object"]["metadata"] == obj["metadata"]
    assert rows["Object"]["object"] is obj
    assert "object" not in rows["None"]


def waiting(reason, **more):
    return {"name": "c", "restartCount": 0, "state": {"waiting": {"reason": reason}}, **more}


def ended(code, reason="", **more):
    return {"name": "c", "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason, **more}}}


RUNNING = {"name": "c", "restartCount": 0, "ready": True, "state": {"running": {}}}
ONE = {"containers": [{"name": "c"}]}
INIT = {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]}
SIDECAR = {"containers": [{"name": "c"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]}
READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("spec", "status", "shown"),
    [
        (ONE, {"phase": "Pending"}, "0/1 Pending"),
        (ONE, {"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]}, "0/1 ContainerCreating"),
        (ONE, {"phase": "Pending", "containerStatuses": [waiting("ErrImagePull")]}, "0/1 ErrImagePull"),
        (ONE, {"phase": "Running", "containerStatuses": [RUNNING]}, "1/1 Running"),
        (ONE, {"phase": "Running", "containerStatuses": [{**RUNNING, "ready": False}]}, "0/1 Running"),
        (ONE, {"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}, "0/1 CrashLoopBackOff"),
        (ONE, {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}, "0/1 Completed"),
        (ONE, {"phase": "Failed", "containerStatuses": [ended(1, "Error")]}, "0/1 Error"),
        (ONE, {"phase": "Failed", "containerStatuses": [ended(3)]}, "0/1 ExitCode:3"),
        (ONE, {"phase": "Failed", "containerStatuses": [ended(137, signal=9)]}, "0/1 Signal:9"),
        (ONE, {"phase": "Failed", "reason": "Evicted"}, "0/1 Evicted"),
        (ONE, {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
         "0/1 SchedulingGated"),
        (INIT, {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}, "0/1 Init:0/2"),
        (INIT, {"phase": "Pending", "initContainerStatuses": [{**ended(0), "name": "i"}, {**ended(2, "Error"), "name": "j"}]},
         "0/1 Init:Error"),
        (INIT, {"phase": "Pending", "initContainerStatuses": [{**waiting("CrashLoopBackOff"), "name": "i"}]},
         "0/1 Init:CrashLoopBackOff"),
        (INIT, {"phase": "Pending", "initContainerStatuses": [{**ended(1), "name": "i"}]}, "0/1 Init:ExitCode:1"),
        (SIDECAR, {"phase": "Running", "containerStatuses": [RUNNING],
                   "initContainerStatuses": [{**RUNNING, "name": "i", "started": True}]}, "2/2 Running"),
        ({"containers": [{"name": "c"}, {"name": "d"}]},
         {"phase": "Running", "conditions": READY, "containerStatuses": [ended(0, "Completed"), RUNNING]}, "1/2 Running"),
        ({"containers": [{"name": "c"}, {"name": "d"}]},
         {"phase": "Running", "containerStatuses": [ended(0, "Completed"), RUNNING]}, "1/2 NotReady"),
    ],
)  # fmt: skip
def test_status_of_a_pod(spec, status, shown):
    _, ready, state, *_ = cells("pods", spec=spec, status=status)
    assert f"{ready} {state}" == shown


def test_a_pod_that_is_being_deleted_is_terminating_unless_it_is_done():
    meta = {"deletionTimestamp": ago(1)}
    running = {"phase": "Running", "containerStatuses": [RUNNING]}
    assert cells("pods", metadata=meta, spec=ONE, status=running)[2] == "Terminating"
    done = {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}
    assert cells("pods", metadata=meta, spec=ONE, status=done)[2] == "Completed"
    assert cells("pods", metadata=meta, spec=ONE, status={**running, "reason": "NodeLost"})[2] == "Unknown"


def test_restarts_tell_when_the_last_one_was():
    last = {"terminated": {"exitCode": 7, "finishedAt": ago(8)}}
    item = {**ended(7, "Error"), "restartCount": 1, "lastState": last}
    assert cells("pods", age=8, spec=ONE, status={"phase": "Running", "containerStatuses": [item]}) == [
        "x", "0/1", "Error", "1 (8s ago)", "8s",
    ]  # fmt: skip


def test_wide_pods():
    spec = {**ONE, "nodeName": "node-1", "readinessGates": [{"conditionType": "g"}]}
    status = {"phase": "Running", "podIPs": [{"ip": "10.244.0.144"}]}
    assert cells("pods", wide=True, spec=spec, status=status)[5:] == ["10.244.0.144", "node-1", "<none>", "0/1"]


TEMPLATE = {"spec": {"containers": [{"name": "web", "image": "web:1"}, {"name": "b", "image": "b"}]}}
SELECTOR = {"matchLabels": {"app": "web", "a": "b"}}


@pytest.mark.parametrize(
    ("resource", "obj", "row"),
    [
        ("deployments.apps",
         {"spec": {"replicas": 4, "template": TEMPLATE, "selector": SELECTOR},
          "status": {"readyReplicas": 3, "updatedReplicas": 2, "availableReplicas": 3}},
         ["3/4", 2, 3, "5s", "web,b", "web:1,b", "a=b,app=web"]),
        ("replicasets.apps", {"spec": {"replicas": 4, "template": TEMPLATE, "selector": SELECTOR}, "status": {"replicas": 4}},
         [4, 4, 0, "5s", "web,b", "web:1,b", "a=b,app=web"]),
        ("statefulsets.apps", {"spec": {"replicas": 2, "template": TEMPLATE}, "status": {"readyReplicas": 1}},
         ["1/2", "5s", "web,b", "web:1,b"]),
        ("daemonsets.apps", {"spec": {"template": TEMPLATE, "selector": SELECTOR}, "status": {"desiredNumberScheduled": 3}},
         [3, 0, 0, 0, 0, "<none>", "5s", "web,b", "web:1,b", "a=b,app=web"]),
        ("jobs.batch",
         {"spec": {"completions": 2, "template": TEMPLATE},
          "status": {"succeeded": 2, "startTime": ago(5), "completionTime": ago(2),
                     "conditions": [{"type": "Complete", "status": "True"}]}},
         ["Complete", "2/2", "3s", "5s", "web,b", "web:1,b", "<none>"]),
        ("jobs.batch", {"spec": {"parallelism": 3}, "status": {"startTime": ago(4)}},
         ["Running", "0/1 of 3", "4s", "5s", "", "", "<none>"]),
        ("jobs.batch", {"spec": {"completions": 1}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}},
         ["Failed", "0/1", "", "5s", "", "", "<none>"]),
        ("cronjobs.batch", {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": TEMPLATE}}},
                            "status": {"lastScheduleTime": ago(2), "active": [{}]}},
         ["* * * * *", "<none>", "False", 1, "2s", "5s", "web,b", "web:1,b", "<none>"]),
        ("services", {"spec": {"type": "NodePort", "clusterIP": "10.96.248.164", "selector": {"app": "web"},
                               "ports": [{"port": 8080, "nodePort": 30209, "protocol": "TCP"}]}},
         ["NodePort", "10.96.248.164", "<none>", "8080:30209/TCP", "5s", "app=web"]),
        ("services", {"spec": {"type": "LoadBalancer", "clusterIP": "None"}},
         ["LoadBalancer", "None", "<pending>", "<none>", "5s", "<none>"]),
        ("services", {"spec": {"type": "ExternalName", "externalName": "a.example"}},
         ["ExternalName", "<none>", "a.example", "<none>", "5s", "<none>"]),
        ("endpoints", {"subsets": [{"addresses": [{"ip": f"1.1.1.{n}"} for n in range(4)], "ports": [{"port": 80}]}]},
         ["1.1.1.0:80,1.1.1.1:80,1.1.1.2:80 + 1 more...", "5s"]),
        ("endpointslices.discovery.k8s.io",
         {"addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.244.0.144"]}]},
         ["IPv4", "8080", "10.244.0.144", "5s"]),
        ("nodes",
         {"metadata": {"labels": {"node-role.kubernetes.io/worker": ""}}, "spec": {"unschedulable": True},
          "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "192.0.2.2"}],
                     "nodeInfo": {"kubeletVersion": "v1.36.2", "osImage": "Debian", "kernelVersion": "6.1", "architecture": "amd64",
                                  "containerRuntimeVersion": "kit://1"}}},
         ["Ready,SchedulingDisabled", "worker", "5s", "v1.36.2", "192.0.2.2", "<none>", "Debian", "6.1 (amd64)", "kit://1"]),
        ("nodes", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
         ["NotReady", "<none>", "5s", "", "<none>", "<none>", "<unknown>", "<unknown> (<unknown>)", "<unknown>"]),
        ("configmaps", {"data": {"a": "b"}, "binaryData": {"c": ""}}, [2, "5s"]),
        ("secrets", {"type": "Opaque", "data": {"a": "Yg=="}}, ["Opaque", 1, "5s"]),
        ("namespaces", {"status": {"phase": "Active"}}, ["Active", "5s"]),
        ("persistentvolumeclaims",
         {"spec": {"volumeName": "pv", "storageClassName": "std", "volumeMode": "Filesystem"},
          "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}},
         ["Bound", "pv", "1Gi", "RWO", "std", "<unset>", "5s", "Filesystem"]),
        ("leases.coordination.k8s.io", {"spec": {"holderIdentity": "node-1"}}, ["node-1", "5s"]),
        ("horizontalpodautoscalers.autoscaling",
         {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5,
                   "metrics": [{"type": "Resource",
                                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}},
         ["Deployment/web", "cpu: <unknown>/80%", "1", "5", "0", "5s"]),
        ("poddisruptionbudgets.policy", {"spec": {"minAvailable": 1}, "status": {"disruptionsAllowed": 2}}, ["1", "N/A", 2, "5s"]),
        ("rolebindings.rbac.authorization.k8s.io",
         {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"},
                                                                 {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]},
         ["Role/r", "5s", "u", "", "n/s"]),
        ("resourcequotas", {"status": {"hard": {"pods": "4", "limits.cpu": "2"}, "used": {"pods": "1"}}},
         ["pods: 1/4", "limits.cpu: 0/2", "5s"]),
    ],
)  # fmt: skip
def test_rows(resource, obj, row):
    assert cells(resource, wide=True, **obj) == ["x", *row]


def test_events():
    obj = {"type": "Warning", "reason": "BackOff", "message": " Back-off \n", "lastTimestamp": ago(7), "firstTimestamp": ago(9),
           "count": 3, "involvedObject": {"kind": "Pod", "name": "crash", "fieldPath": "spec.containers{w}"},
           "source": {"component": "kubelet", "host": "node-1"}}  # fmt: skip
    assert cells("events", wide=True, **obj) == [
        "7s", "Warning", "BackOff", "pod/crash", "spec.containers{w}", "kubelet, node-1", "Back-off", "9s", 3, "x",
    ]  # fmt: skip


def test_an_event_without_timestamps_shows_its_event_time():
    obj = {"eventTime": "2026-11-23T11:10:54.123456Z", "reportingComponent": "default-scheduler"}
    assert cells("events", **obj)[0] == "7s"


def test_both_versions_of_an_event_have_the_same_table():
    assert definitions(by_gvk("events.k8s.io/v1", "Event"))[0]["name"] == "Last Seen"
