"""Server-side apply and the managers of fields."""

import copy

import pytest

from kitlib.cluster.apiserver import apply
from kitlib.cluster.apiserver.registry import lookup
from kitlib.cluster.client import ApiError

DEPLOYMENTS, PODS, CONFIG_MAPS = lookup("deployments.apps"), lookup("pods"), lookup("configmaps")


def deployment(replicas=2, image="nginx:1", labels=None, **spec):
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}}
    meta = {"name": "web", "namespace": "default", **({"labels": labels} if labels else {})}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def owners(obj, path):
    found = []
    for entry in obj["metadata"]["managedFields"]:
        node = entry["fieldsV1"]
        for step in path:
            node = node.get(step) if node is not None else None
        if node is not None:
            found.append(entry["manager"])
    return found


REPLICAS = ("f:spec", "f:replicas")
CONTAINER = ("f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"web"}')


def test_an_apply_creates_and_owns_what_it_names():
    obj = apply.server_side_apply(DEPLOYMENTS, None, deployment(), "kubectl", False)
    (entry,) = obj["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("kubectl", "Apply", "apps/v1")
    assert entry["fieldsV1"] == {
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:containers": {'k:{"name":"web"}': {".": {}, "f:name": {}, "f:image": {}}}},
            },
        }
    }


def test_names_and_the_like_belong_to_nobody():
    obj = apply.server_side_apply(DEPLOYMENTS, None, deployment(labels={"a": "b"}), "kubectl", False)
    assert obj["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"] == {"f:labels": {"f:a": {}}}


def updated(live, manager, subresource="", **changes):
    new = copy.deepcopy(live)
    new.update(changes)
    apply.track_update(DEPLOYMENTS, live, new, manager, "Update", subresource)
    return new


def created(manager="kubectl-client-side-apply", **spec):
    obj = deployment(**spec)
    apply.track_update(DEPLOYMENTS, None, obj, manager, "Update", "")
    return obj


def test_a_conflict_names_manager_version_and_field():
    live = created(replicas=2)
    with pytest.raises(ApiError) as refused:
        apply.server_side_apply(DEPLOYMENTS, live, deployment(replicas=3), "kubectl", False)
    assert refused.value.code == 409
    text = 'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    assert refused.value.message == text
    assert refused.value.status["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
            "field": ".spec.replicas",
        }
    ]


def test_several_conflicts_are_listed_by_manager():
    live = created(replicas=2)
    with pytest.raises(ApiError) as refused:
        apply.server_side_apply(DEPLOYMENTS, live, deployment(replicas=3, image="nginx:2"), "kubectl", False)
    assert refused.value.message == (
        'Apply failed with 2 conflicts: conflicts with "kubectl-client-side-apply" using apps/v1:\n'
        '- .spec.template.spec.containers[name="web"].image\n- .spec.replicas'
    )


def test_force_takes_the_field_over():
    live = created(replicas=2)
    obj = apply.server_side_apply(DEPLOYMENTS, live, deployment(replicas=3), "kubectl", True)
    assert obj["spec"]["replicas"] == 3
    assert owners(obj, REPLICAS) == ["kubectl"]


def test_the_same_value_is_owned_by_both():
    obj = apply.server_side_apply(DEPLOYMENTS, created(), deployment(), "kubectl", False)
    assert owners(obj, REPLICAS) == ["kubectl", "kubectl-client-side-apply"]


def test_what_is_no_longer_applied_goes():
    first = apply.server_side_apply(DEPLOYMENTS, None, deployment(labels={"a": "1", "b": "2"}), "kubectl", False)
    second = apply.server_side_apply(DEPLOYMENTS, first, deployment(labels={"b": "2"}), "kubectl", False)
    assert second["metadata"]["labels"] == {"b": "2"}
    third = apply.server_side_apply(DEPLOYMENTS, second, deployment(), "kubectl", False)
    assert "labels" not in third["metadata"]


def test_what_somebody_else_owns_stays():
    first = apply.server_side_apply(DEPLOYMENTS, None, deployment(), "kubectl", False)
    shared = apply.server_side_apply(DEPLOYMENTS, first, {**deployment(), "spec": {"replicas": 2}}, "other", False)
    obj = apply.server_side_apply(DEPLOYMENTS, shared, deployment(replicas=None), "kubectl", False)
    assert obj["spec"]["replicas"] == 2
    assert owners(obj, REPLICAS) == ["other"]


def test_a_container_that_is_no_longer_applied_goes_as_a_whole():
    both = deployment()
    both["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "s", "args": ["x"]})
    first = apply.server_side_apply(DEPLOYMENTS, None, both, "kubectl", False)
    second = apply.server_side_apply(DEPLOYMENTS, first, deployment(), "kubectl", False)
    assert [item["name"] for item in second["spec"]["template"]["spec"]["containers"]] == ["web"]


def test_applying_the_same_again_changes_nothing():
    first = apply.server_side_apply(DEPLOYMENTS, None, deployment(), "kubectl", False)
    first["metadata"]["managedFields"][0]["time"] = "2026-01-01T00:00:00Z"
    assert apply.server_side_apply(DEPLOYMENTS, first, deployment(), "kubectl", False) == first


def test_defaults_that_the_server_added_stay():
    live = apply.server_side_apply(DEPLOYMENTS, None, deployment(), "kubectl", False)
    live["spec"]["revisionHistoryLimit"] = 10
    obj = apply.server_side_apply(DEPLOYMENTS, live, deployment(image="nginx:2"), "kubectl", False)
    assert obj["spec"]["revisionHistoryLimit"] == 10
    assert obj["spec"]["template"]["spec"]["containers"] == [{"name": "web", "image": "nginx:2"}]


def test_inputs_stay_as_they_are():
    live, applied = created(), deployment(replicas=3, labels={"a": "b"})
    before = copy.deepcopy((live, applied))
    apply.server_side_apply(DEPLOYMENTS, live, applied, "kubectl", True)
    assert (live, applied) == before


def test_an_apply_needs_a_manager_and_no_managed_fields():
    with pytest.raises(ApiError) as refused:
        apply.server_side_apply(DEPLOYMENTS, None, deployment(), "", False)
    assert refused.value.code == 422
    bad = deployment()
    bad["metadata"]["managedFields"] = [{"manager": "x"}]
    with pytest.raises(ApiError, match="metadata.managedFields must be nil") as refused:
        apply.server_side_apply(DEPLOYMENTS, None, bad, "kubectl", False)
    assert refused.value.code == 400


def test_an_update_takes_the_fields_that_it_changes():
    live = created("kubectl-create", replicas=2)
    new = updated(live, "kubectl-edit", spec={**live["spec"], "replicas": 5})
    assert owners(new, REPLICAS) == ["kubectl-edit"]
    assert owners(new, ("f:spec", "f:selector")) == ["kubectl-create"]
    assert owners(live, REPLICAS) == ["kubectl-create"]


def test_an_update_that_removes_a_field_removes_its_owners():
    live = created("kubectl-create", replicas=2)
    spec = {name: value for name, value in live["spec"].items() if name != "replicas"}
    new = updated(live, "kubectl-edit", spec=spec)
    assert owners(new, REPLICAS) == []


def test_a_status_write_has_an_entry_of_its_own():
    live = created("kubectl-create")
    new = updated(live, "kube-controller-manager", "status", status={"replicas": 2})
    entry = new["metadata"]["managedFields"][-1]
    assert (entry["manager"], entry["subresource"]) == ("kube-controller-manager", "status")
    assert entry["fieldsV1"] == {"f:status": {"f:replicas": {}}}


def test_an_update_without_a_change_leaves_no_trace():
    live = created("kubectl-create")
    assert updated(live, "kubectl-edit") == live


def test_managed_fields_that_a_user_moves_to_another_manager_count():
    """As kubectl does when a client-side apply becomes a server-side one."""
    live = created()
    moved = copy.deepcopy(live)
    moved["metadata"]["managedFields"][0].update(manager="kubectl", operation="Apply")
    apply.track_update(DEPLOYMENTS, live, moved, "kubectl", "Update", "")
    assert [entry["manager"] for entry in moved["metadata"]["managedFields"]] == ["kubectl"]
    obj = apply.server_side_apply(DEPLOYMENTS, moved, deployment(replicas=7), "kubectl", False)
    assert obj["spec"]["replicas"] == 7


@pytest.mark.parametrize(
    "entries", [[{}], [{"manager": "x", "fieldsV1": {"f:spec": 5}}], [{"manager": "x", "fieldsV1": "y"}]]
)
def test_managed_fields_that_are_none_are_forgotten(entries):
    live = created()
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = entries
    new["spec"]["replicas"] = 9
    apply.track_update(DEPLOYMENTS, live, new, "me", "Update", "")
    assert [entry["manager"] for entry in new["metadata"]["managedFields"]] == ["me"]


def test_many_managers_are_merged_into_one():
    obj = created()
    for number in range(30):
        obj = updated(obj, f"manager-{number}", spec={**obj["spec"], "replicas": number, f"x{number}": 1})
    managers = [entry["manager"] for entry in obj["metadata"]["managedFields"]]
    assert len(managers) <= 10
    assert "ancient-changes" in managers and managers[-1] == "manager-29"


def test_ports_are_known_by_number_and_protocol():
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}
    obj = apply.server_side_apply(PODS, None, pod, "kubectl", False)
    container = obj["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert container["f:ports"] == {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}}


def test_kinds_without_a_status_subresource_track_all():
    obj = {"metadata": {"name": "c"}, "data": {"a": "1"}}
    apply.track_update(CONFIG_MAPS, None, obj, "kubectl-create", "Update", "")
    assert obj["metadata"]["managedFields"][0]["fieldsV1"] == {"f:data": {"f:a": {}}}
