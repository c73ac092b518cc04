"""Creating, reading, changing and deleting objects, in Kubernetes' words."""

from __future__ import annotations

import asyncio
import re

import pytest
from apiharness import API, config_map, deployment, pod

from kitlib.cluster.client import ApiError

CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


async def test_a_new_object_gets_uid_time_and_revision_and_can_be_read_back(api: API) -> None:
    made = await api.post(CMS, config_map("a"))
    assert made.code == 201
    meta = made.body["metadata"]
    assert meta["namespace"] == "default" and re.fullmatch(r"[0-9a-f-]{36}", meta["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", meta["creationTimestamp"])
    assert (await api.get(f"{CMS}/a")).body == made.body


async def test_a_taken_name_is_409_already_exists(api: API) -> None:
    await api.post(CMS, config_map("a"))
    again = await api.post(CMS, config_map("a"))
    assert (again.code, again.body["reason"]) == (409, "AlreadyExists")
    assert again.message == 'configmaps "a" already exists'
    assert again.body["details"] == {"name": "a", "kind": "configmaps"}


async def test_a_missing_object_is_404_with_its_kind_and_name(api: API) -> None:
    missing = await api.get(f"{DEPLOYMENTS}/zzz")
    assert missing.code == 404 and missing.message == 'deployments.apps "zzz" not found'
    assert missing.body["details"] == {"name": "zzz", "group": "apps", "kind": "deployments"}
    assert missing.body["kind"] == "Status" and missing.body["status"] == "Failure"


async def test_generate_name_gives_each_object_a_name_of_its_own(api: API) -> None:
    names = {(await api.post(CMS, config_map(generateName="cm-"))).body["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5 and all(re.fullmatch(r"cm-[b-z2-9]{5}", name) for name in names)


async def test_an_object_without_a_name_is_invalid(api: API) -> None:
    nameless = await api.post(CMS, config_map())
    assert nameless.code == 422
    assert nameless.message.startswith('ConfigMap "" is invalid: metadata.name: Required value: name or generateName')


async def test_a_namespace_must_exist_and_fit_the_path(api: API) -> None:
    missing = await api.post("/api/v1/namespaces/nope/configmaps", config_map("a"))
    assert missing.code == 404 and missing.message == 'namespaces "nope" not found'
    other = await api.post(CMS, config_map("a", namespace="kube-system"))
    assert other.code == 400 and "namespace of the provided object does not match" in other.message


async def test_a_stale_resource_version_is_a_conflict_and_none_is_not(api: API) -> None:
    made = (await api.post(CMS, config_map("cmx"))).body
    assert (await api.put(f"{CMS}/cmx", {**made, "data": {"k": "1"}})).code == 200
    stale = await api.put(f"{CMS}/cmx", {**made, "data": {"k": "2"}})
    assert stale.code == 409 and stale.body["reason"] == "Conflict"
    assert stale.message == (
        'Operation cannot be fulfilled on configmaps "cmx": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert (await api.put(f"{CMS}/cmx", config_map("cmx"))).code == 200


async def test_an_update_cannot_change_what_the_server_owns(api: API) -> None:
    made = (await api.post(CMS, config_map("a"))).body
    changed = config_map("a", creationTimestamp="2001-01-01T00:00:00Z", generation=9)
    meta = (await api.put(f"{CMS}/a", changed)).body["metadata"]
    assert meta["uid"] == made["metadata"]["uid"] and meta["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    assert "generation" not in meta
    other = await api.put(f"{CMS}/a", config_map("a", uid="00000000-0000-0000-0000-000000000000"))
    assert other.code == 409 and "Precondition failed: UID in precondition" in other.message


async def test_an_update_that_changes_nothing_keeps_the_revision(api: API) -> None:
    made = (await api.post(CMS, config_map("a"))).body
    assert (await api.put(f"{CMS}/a", made)).body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    patched = await api.patch(f"{CMS}/a", {"data": {"k": "v"}})
    assert patched.body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_the_name_in_the_object_must_be_the_one_in_the_path(api: API) -> None:
    await api.post(CMS, config_map("a"))
    other = await api.put(f"{CMS}/a", config_map("b"))
    assert other.code == 400
    assert other.message == "the name of the object (b) does not match the name on the URL (a)"


async def test_generation_counts_changes_of_the_spec_alone(api: API) -> None:
    made = (await api.post(DEPLOYMENTS, deployment())).body
    assert made["metadata"]["generation"] == 1
    labelled = await api.patch(f"{DEPLOYMENTS}/web", {"metadata": {"labels": {"a": "b"}}})
    assert labelled.body["metadata"]["generation"] == 1
    scaled = await api.patch(f"{DEPLOYMENTS}/web", {"spec": {"replicas": 5}})
    assert scaled.body["metadata"]["generation"] == 2
    status = await api.patch(f"{DEPLOYMENTS}/web/status", {"status": {"replicas": 5}})
    assert status.body["metadata"]["generation"] == 2 and status.body["status"]["replicas"] == 5


async def test_status_and_spec_are_written_apart(api: API) -> None:
    new = {**deployment(), "status": {"replicas": 7}}
    assert (await api.post(DEPLOYMENTS, new)).body.get("status", {}).get("replicas", 0) == 0
    both = {"spec": {"replicas": 9}, "status": {"replicas": 3}}
    through_status = (await api.patch(f"{DEPLOYMENTS}/web/status", both)).body
    assert through_status["spec"]["replicas"] == 2 and through_status["status"]["replicas"] == 3
    through_main = (await api.patch(f"{DEPLOYMENTS}/web", {**both, "status": {"replicas": 8}})).body
    assert through_main["spec"]["replicas"] == 9 and through_main["status"]["replicas"] == 3


async def test_a_deployments_annotations_count_unless_its_controller_writes_them_with_the_status(api: API) -> None:
    await api.post(DEPLOYMENTS, deployment())
    annotated = {"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}, "labels": {"no": "no"}}}
    by_controller = (await api.patch(f"{DEPLOYMENTS}/web/status", annotated)).body["metadata"]
    assert by_controller["annotations"] and "labels" not in by_controller and by_controller["generation"] == 1
    by_user = await api.patch(f"{DEPLOYMENTS}/web", {"metadata": {"annotations": {"a": "b"}}})
    assert by_user.body["metadata"]["generation"] == 2


async def test_scale_reads_and_changes_replicas(api: API) -> None:
    await api.post(DEPLOYMENTS, deployment())
    scale = (await api.get(f"{DEPLOYMENTS}/web/scale")).body
    assert scale["kind"] == "Scale" and scale["spec"] == {"replicas": 2} and scale["status"]["selector"] == "app=web"
    table = (await api.get(f"{DEPLOYMENTS}/web/scale", Accept="application/json;as=Table;v=v1;g=meta.k8s.io")).body
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]
    assert table["rows"][0]["cells"][:3] == ["web", 2, 0]
    scale["spec"]["replicas"] = 4
    assert (await api.put(f"{DEPLOYMENTS}/web/scale", scale)).body["spec"]["replicas"] == 4
    assert (await api.put(f"{DEPLOYMENTS}/web/scale", scale)).code == 409
    patched = await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 0}})
    assert patched.body["spec"] == {}
    assert (await api.get(f"{DEPLOYMENTS}/web")).body["spec"]["replicas"] == 0
    negative = await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": -1}})
    assert negative.code == 422


async def test_dry_run_goes_through_everything_and_stores_nothing(api: API) -> None:
    revision = api.store.revision
    made = await api.post(f"{CMS}?dryRun=All", config_map("a"))
    assert made.code == 201 and made.body["metadata"]["uid"]
    assert (await api.get(f"{CMS}/a")).code == 404
    await api.post(CMS, config_map("b"))
    assert (await api.patch(f"{CMS}/b?dryRun=All", {"data": {"k": "new"}})).body["data"] == {"k": "new"}
    assert (await api.delete(f"{CMS}/b?dryRun=All")).code == 200
    assert (await api.get(f"{CMS}/b")).body["data"] == {"k": "v"}
    assert api.store.revision == revision + 1
    assert (await api.post(f"{CMS}?dryRun=no", config_map("c"))).code == 422


async def test_four_kinds_of_patch(api: API) -> None:
    await api.post(DEPLOYMENTS, deployment())
    path = f"{DEPLOYMENTS}/web"
    merge = await api.patch(path, {"metadata": {"labels": {"x": "1"}}}, "merge-patch+json")
    assert merge.body["metadata"]["labels"] == {"x": "1"}
    json_patch = [{"op": "replace", "path": "/spec/replicas", "value": 6}]
    assert (await api.patch(path, json_patch, "json-patch+json")).body["spec"]["replicas"] == 6
    containers = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "busybox"}]}}}}
    strategic = await api.patch(path, containers, "strategic-merge-patch+json")
    names = [each["name"] for each in strategic.body["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["c", "side"]
    unknown = await api.patch(path, {}, "cbor")
    assert unknown.code == 415 and unknown.body["reason"] == "UnsupportedMediaType"


async def test_a_strategic_patch_may_name_another_kind(api: API) -> None:
    await api.post(DEPLOYMENTS, deployment())
    scale = {"kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 7}}
    path = f"{DEPLOYMENTS}/web"
    patched = (await api.patch(f"{path}/scale", scale, "strategic-merge-patch+json")).body
    assert (patched["kind"], patched["apiVersion"], patched["spec"]["replicas"]) == ("Scale", "autoscaling/v1", 7)
    assert (await api.patch(path, {"kind": "Pod"}, "strategic-merge-patch+json")).body["kind"] == "Deployment"


async def test_an_apply_names_the_kind_of_its_path(api: API) -> None:
    for body, named in (
        ({"apiVersion": "v1", "kind": "Secret"}, "/v1, Kind=Secret"),
        (deployment(), "apps/v1, Kind=Deployment"),
    ):
        refused = await api.patch(f"{CMS}/a?fieldManager=one", body, "apply-patch+yaml")
        assert (refused.code, refused.message) == (400, f"invalid object type: {named}")


async def test_a_server_side_apply_creates_and_changes_and_must_name_its_manager(api: API) -> None:
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
    nameless = await api.patch(f"{CMS}/a", applied, "apply-patch+yaml")
    assert nameless.code == 422 and "fieldManager: Required value: is required for apply patch" in nameless.message
    made = await api.patch(f"{CMS}/a?fieldManager=one", applied, "apply-patch+yaml")
    assert made.code == 201 and made.body["metadata"]["managedFields"][0]["manager"] == "one"
    again = await api.patch(f"{CMS}/a?fieldManager=one", applied, "apply-patch+yaml")
    assert again.code == 200
    assert again.body["metadata"]["resourceVersion"] == made.body["metadata"]["resourceVersion"]
    rival = await api.patch(f"{CMS}/a?fieldManager=two", {**applied, "data": {"k": "w"}}, "apply-patch+yaml")
    assert rival.code == 409 and rival.body["reason"] == "Conflict"
    assert rival.body["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    taken = {**applied, "data": {"k": "w"}}
    forced = await api.patch(f"{CMS}/a?fieldManager=two&force=true", taken, "apply-patch+yaml")
    assert forced.code == 200 and forced.body["data"] == {"k": "w"}


async def test_a_patch_with_a_stale_revision_is_a_conflict(api: API) -> None:
    made = (await api.post(CMS, config_map("a"))).body
    await api.patch(f"{CMS}/a", {"data": {"k": "2"}})
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"k": "3"}}
    assert (await api.patch(f"{CMS}/a", stale)).code == 409


async def test_warnings_travel_as_headers_and_strict_refuses(api: API) -> None:
    odd = {**config_map("a"), "dta": 1}
    warned = await api.post(CMS, odd)
    assert warned.code == 201 and warned.headers["Warning"] == '299 - "unknown field \\"dta\\""'
    assert "dta" not in warned.body
    strict = await api.post(f"{CMS}?fieldValidation=Strict", {**odd, "metadata": {"name": "b"}})
    assert strict.code == 400 and 'strict decoding error: unknown field "dta"' in strict.message


async def test_deleting_answers_with_a_status_that_names_the_uid(api: API) -> None:
    made = (await api.post(CMS, config_map("a"))).body
    gone = await api.delete(f"{CMS}/a", {"propagationPolicy": "Background"})
    assert gone.code == 200 and gone.body["status"] == "Success"
    assert gone.body["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert (await api.delete(f"{CMS}/a")).code == 404


async def test_deletion_preconditions_are_held(api: API) -> None:
    made = (await api.post(CMS, config_map("a"))).body
    wrong = await api.delete(f"{CMS}/a", {"preconditions": {"uid": "other"}})
    assert wrong.code == 409 and "Precondition failed: UID in precondition: other" in wrong.message
    right = {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}
    assert (await api.delete(f"{CMS}/a", {"preconditions": right})).code == 200


async def test_finalizers_hold_an_object_until_the_last_is_removed(api: API) -> None:
    await api.post(CMS, config_map("a", finalizers=["example.com/wait"]))
    marked = await api.delete(f"{CMS}/a")
    assert marked.body["kind"] == "ConfigMap" and marked.body["metadata"]["deletionTimestamp"]
    more = await api.patch(f"{CMS}/a", {"metadata": {"finalizers": ["example.com/wait", "example.com/more"]}})
    assert more.code == 422 and "no new finalizers can be added if the object is being deleted" in more.message
    assert (await api.patch(f"{CMS}/a", {"metadata": {"finalizers": None}})).code == 200
    assert (await api.get(f"{CMS}/a")).code == 404


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_propagation_policies_leave_a_finalizer_for_the_garbage_collector(
    api: API, policy: str, finalizer: str
) -> None:
    await api.post(DEPLOYMENTS, deployment())
    marked = await api.delete(f"{DEPLOYMENTS}/web", {"propagationPolicy": policy})
    assert marked.body["metadata"]["finalizers"] == [finalizer]
    assert (await api.delete(f"{DEPLOYMENTS}/web", {"propagationPolicy": "Maybe"})).code == 422


async def test_a_job_keeps_its_pods_unless_asked_and_says_so(api: API) -> None:
    container = {"name": "c", "image": "busybox"}
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec}
    await api.post("/apis/batch/v1/namespaces/default/jobs", job)
    marked = await api.delete("/apis/batch/v1/namespaces/default/jobs/j")
    assert marked.body["metadata"]["finalizers"] == ["orphan"]
    assert "child pods are preserved by default" in marked.headers["Warning"]


async def test_a_collection_is_deleted_by_its_selector(api: API) -> None:
    for name in "abc":
        await api.post(CMS, config_map(name, labels={"go": str(name != "b").lower()}))
    assert (await api.delete(f"{CMS}?labelSelector=go%3Dtrue")).names == ["a", "c"]
    assert (await api.get(CMS)).names == ["b"]


async def test_a_scheduled_pod_gets_its_grace_period(api: API) -> None:
    await api.post(PODS, pod("p", nodeName="node-1"))
    marked = (await api.delete(f"{PODS}/p")).body["metadata"]
    assert marked["deletionGracePeriodSeconds"] == 30 and marked["deletionTimestamp"]
    shorter = (await api.delete(f"{PODS}/p", {"gracePeriodSeconds": 2})).body["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 2 and shorter["deletionTimestamp"] < marked["deletionTimestamp"]
    assert (await api.delete(f"{PODS}/p", {"gracePeriodSeconds": 0})).body["kind"] == "Pod"
    assert (await api.get(f"{PODS}/p")).code == 404


async def test_a_pod_without_a_node_or_with_a_final_phase_is_deleted_at_once(api: API) -> None:
    await api.post(PODS, pod("waiting"))
    await api.post(PODS, pod("done", nodeName="node-1"))
    await api.patch(f"{PODS}/done/status", {"status": {"phase": "Succeeded"}})
    for name in ("waiting", "done"):
        assert (await api.delete(f"{PODS}/{name}")).code == 200
        assert (await api.get(f"{PODS}/{name}")).code == 404


async def test_binding_gives_a_pod_its_node_once(api: API) -> None:
    await api.post(PODS, pod("p"))
    binding = {"kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    assert (await api.post(f"{PODS}/p/binding", binding)).code == 201
    bound = (await api.get(f"{PODS}/p")).body
    assert bound["spec"]["nodeName"] == "n1" and bound["metadata"]["generation"] == 1
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    again = await api.post(f"{PODS}/p/binding", binding)
    assert again.code == 409
    assert again.message == (
        'Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"'
    )


async def test_an_eviction_waits_for_the_disruption_budget(api: API) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": spec}
    await api.post(budgets, budget)
    await api.post(PODS, pod("p", nodeName="n1"))
    await api.patch(f"{PODS}/p/status", {"status": {"phase": "Running"}})
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "default"}}
    early = await api.post(f"{PODS}/p/eviction", eviction)
    assert early.code == 429 and early.headers["Retry-After"] == "10"
    counts = {"desiredHealthy": 1, "currentHealthy": 1, "expectedPods": 1, "observedGeneration": 1}
    await api.patch(f"{budgets}/b/status", {"status": {**counts, "disruptionsAllowed": 0}})
    refused = await api.post(f"{PODS}/p/eviction", eviction)
    assert refused.code == 429 and refused.body["reason"] == "TooManyRequests"
    assert refused.message == "Cannot evict pod as it would violate the pod's disruption budget."
    message = "The disruption budget b needs 1 healthy pods and has 1 currently"
    assert refused.body["details"]["causes"] == [{"reason": "DisruptionBudget", "message": message}]
    await api.patch(f"{budgets}/b/status", {"status": {**counts, "disruptionsAllowed": 1}})
    assert (await api.post(f"{PODS}/p/eviction", eviction)).code == 201
    left = (await api.get(f"{PODS}/p")).body
    assert left["metadata"]["deletionTimestamp"]
    assert "DisruptionTarget" in [each["type"] for each in left["status"]["conditions"]]
    status = (await api.get(f"{budgets}/b")).body["status"]
    assert status.get("disruptionsAllowed", 0) == 0 and "p" in status["disruptedPods"]


async def test_a_namespace_waits_until_it_is_empty(api: API) -> None:
    made = (await api.post("/api/v1/namespaces", {"metadata": {"name": "team"}})).body
    assert made["spec"] == {"finalizers": ["kubernetes"]} and made["status"] == {"phase": "Active"}
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    marked = (await api.delete("/api/v1/namespaces/team")).body
    assert marked["status"]["phase"] == "Terminating" and marked["metadata"]["deletionTimestamp"]
    late = await api.post("/api/v1/namespaces/team/configmaps", config_map("a"))
    assert late.code == 403 and late.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert "unable to create new content in namespace team because it is being terminated" in late.message
    assert (await api.put("/api/v1/namespaces/team/finalize", {**marked, "spec": {}})).code == 200
    assert (await api.get("/api/v1/namespaces/team")).code == 404


async def test_the_system_namespaces_cannot_be_deleted(api: API) -> None:
    for name in ("default", "kube-system", "kube-public"):
        refused = await api.delete(f"/api/v1/namespaces/{name}")
        assert refused.code == 403
        assert refused.message == f'namespaces "{name}" is forbidden: this namespace may not be deleted'


SERVICES = "/api/v1/namespaces/default/services"


def service(name: str, **spec: object) -> dict:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}, **spec}}


async def test_services_get_addresses_of_their_own(api: API) -> None:
    first = (await api.post(SERVICES, service("one"))).body["spec"]
    assert first["clusterIP"].startswith("127.77.") and first["clusterIPs"] == [first["clusterIP"]]
    assert first["ipFamilies"] == ["IPv4"] and first["ipFamilyPolicy"] == "SingleStack"
    moved = await api.patch(f"{SERVICES}/one", {"spec": {"clusterIP": "None"}})
    assert 'spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set' in moved.message
    headless = (await api.post(SERVICES, service("headless", clusterIP="None"))).body["spec"]
    assert headless["clusterIP"] == "None"
    taken = await api.post(SERVICES, service("two", clusterIP=first["clusterIP"]))
    assert taken.code == 422 and "provided IP is already allocated" in taken.message
    outside = await api.post(SERVICES, service("two", clusterIP="10.96.0.1"))
    assert outside.code == 422 and "is not in the valid range" in outside.message
    bad = await api.post(SERVICES, service("two", clusterIP="10.96.0.1", ports=[{"port": 0, "nodePort": 30001}]))
    assert "spec.ports[0].port: Invalid value: 0" in bad.message and "clusterIP" not in bad.message
    assert "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'" in bad.message


async def test_node_ports_are_given_out_and_kept(api: API) -> None:
    made = (await api.post(SERVICES, service("web", type="NodePort"))).body
    port = made["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    again = (await api.put(f"{SERVICES}/web", service("web", type="NodePort"))).body
    assert again["spec"]["ports"][0]["nodePort"] == port and again["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    asked = service("two", type="NodePort", ports=[{"port": 80, "nodePort": port}])
    taken = await api.post(SERVICES, asked)
    assert taken.code == 422
    assert f"spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated" in taken.message
    plain = (await api.patch(f"{SERVICES}/web", {"spec": {"type": "ClusterIP"}})).body["spec"]
    assert "nodePort" not in plain["ports"][0]


async def test_the_kubernetes_service_leads_to_the_api_server(api: API) -> None:
    spec = (await api.get(f"{SERVICES}/kubernetes")).body["spec"]
    assert spec["clusterIP"] == "127.77.128.1" and spec["ports"][0]["port"] == 443
    endpoints = (await api.get("/api/v1/namespaces/default/endpoints/kubernetes")).body
    assert endpoints["subsets"][0]["ports"][0]["port"] == api.config.port


async def test_deprecated_kinds_warn_whoever_uses_them(api: API) -> None:
    shown = await api.get("/api/v1/componentstatuses")
    assert shown.names == ["controller-manager", "etcd-0", "scheduler"]
    assert shown.headers["Warning"] == '299 - "v1 ComponentStatus is deprecated in v1.19+"'
    endpoints = await api.get("/api/v1/namespaces/default/endpoints/kubernetes")
    assert "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice" in endpoints.headers["Warning"]
    assert "Warning" not in (await api.get("/api/v1/nodes")).headers


async def test_events_have_two_faces(api: API) -> None:
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    event = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "Started", "message": "hello"}
    await api.post("/api/v1/namespaces/default/events", event)
    seen = (await api.get("/apis/events.k8s.io/v1/namespaces/default/events/e")).body
    assert seen["apiVersion"] == "events.k8s.io/v1" and seen["note"] == "hello" and seen["regarding"]["name"] == "p"
    by_object = await api.get("/api/v1/events?fieldSelector=involvedObject.name%3Dp")
    assert by_object.names == ["e"]


async def test_an_autoscaler_of_version_1_is_one_of_version_2(api: API) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60}
    path = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
    made = await api.post(path.format("v1"), {"metadata": {"name": "h"}, "spec": spec})
    assert made.code == 201 and made.body["spec"]["targetCPUUtilizationPercentage"] == 60
    two = (await api.get(path.format("v2") + "/h")).body
    assert two["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    assert (await api.get(path.format("v1"))).names == ["h"]


async def test_the_in_process_client_has_the_same_semantics(api: API) -> None:
    client = api.client
    made = await client.create("configmaps", config_map("a"), "default")
    assert made["metadata"]["resourceVersion"]
    with pytest.raises(ApiError, match='configmaps "a" already exists'):
        await client.create("configmaps", config_map("a"), "default")
    with pytest.raises(ApiError) as refused:
        await client.create("deployments.apps", {**deployment(), "spec": {}}, "default")
    assert refused.value.code == 422
    await client.update("configmaps", {**made, "data": {"k": "2"}})
    with pytest.raises(ApiError, match="the object has been modified"):
        await client.update("configmaps", {**made, "data": {"k": "3"}})
    patched = await client.patch("configmaps", "a", {"data": {"k": "4"}}, "default")
    assert patched["data"] == {"k": "4"}
    listed = await client.list("configmaps", label_selector="x!=y")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
    await client.delete("configmaps", "a", "default", uid=made["metadata"]["uid"])
    with pytest.raises(ApiError) as missing:
        await client.get("configmaps", "a", "default")
    assert missing.value.code == 404
    with pytest.raises(ApiError, match="could not find the requested resource"):
        await client.list("unicorns")


async def test_what_a_client_hands_in_stays_its_own(api: API) -> None:
    mine = config_map("a")
    made = await api.client.create("configmaps", mine, "default")
    assert mine == config_map("a") and made["data"] is not mine["data"]


async def test_sixteen_writers_of_one_object_lose_no_update(api: API) -> None:
    await api.post(CMS, {**config_map("counter"), "data": {"n": "0"}})

    async def increment() -> None:
        while True:
            current = (await api.get(f"{CMS}/counter")).body
            current["data"]["n"] = str(int(current["data"]["n"]) + 1)
            if (await api.put(f"{CMS}/counter", current)).code == 200:
                return

    await asyncio.gather(*(increment() for _ in range(16)))
    assert (await api.get(f"{CMS}/counter")).body["data"] == {"n": "16"}


async def test_metadata_that_comes_with_a_status_is_checked_too(api: API) -> None:
    await api.post(PODS, pod("p"))
    wrong = {"metadata": {"labels": {"a": "no label \u2603"}}, "status": {"phase": "Running"}}
    refused = await api.patch(f"{PODS}/p/status", wrong)
    assert refused.code == 422 and "metadata.labels" in refused.message
    assert (await api.get(f"{PODS}/p")).body["status"]["phase"] == "Pending"


async def test_ephemeral_containers_are_added_by_their_subresource_alone_and_stay(api: API) -> None:
    pods, look = "/api/v1/namespaces/default/pods", {"name": "look", "image": "busybox"}
    refused = await api.post(pods, pod("early", ephemeralContainers=[look]))
    assert "spec.ephemeralContainers: Forbidden: cannot be set on create" in refused.message
    await api.post(pods, pod("p"))
    patched = await api.patch(f"{pods}/p", {"spec": {"ephemeralContainers": [look]}})
    assert "ephemeralContainers" not in patched.body["spec"]
    made = await api.patch(f"{pods}/p/ephemeralcontainers", {"spec": {"ephemeralContainers": [look]}})
    assert [each["name"] for each in made.body["spec"]["ephemeralContainers"]] == ["look"]
    assert made.body["metadata"]["generation"] == 2
    kept = made.body["spec"]["ephemeralContainers"]
    for wrong, words in (
        ([], 'existing ephemeral containers "look" may not be removed'),
        ([{**look, "image": "other"}], 'existing ephemeral containers "look" may not be changed'),
        ([*kept, look], 'Duplicate value: "look"'),
        (
            [*kept, {"name": "x"}],
            "spec.ephemeralContainers[1].image: Required value",
        ),
    ):
        answer = await api.patch(f"{pods}/p/ephemeralcontainers", {"spec": {"ephemeralContainers": wrong}})
        assert (answer.code, words in answer.message) == (422, True), answer.message
