"""Claims, volumes and the class `standard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab import Lab, deployment, pod

from kitlib.cluster.apiserver import bootstrap_objects
from kitlib.cluster.client import ApiError

CLAIMS, VOLUMES, CLASSES = "persistentvolumeclaims", "persistentvolumes", "storageclasses.storage.k8s.io"


def claim(name: str, storage: str = "1Gi", **spec: Any) -> dict[str, Any]:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": asked}


def volume(name: str, path: Path, storage: str = "1Gi", **spec: Any) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": storage}, "hostPath": {"path": str(path)}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def user(name: str, of: str, **spec: Any) -> dict[str, Any]:
    return pod(name, volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": of}}], **spec)


def start(lab: Lab) -> None:
    bootstrap_objects.ensure_storage_class(lab.server.rest)
    lab.start()


async def phase(lab: Lab, name: str, wanted: str) -> Any:
    found = await lab.get(CLAIMS, name)
    return found if found["status"]["phase"] == wanted else None


async def gone(lab: Lab, resource: str, name: str = "") -> bool:
    namespace = None if resource == VOLUMES else "default"
    return all(name not in ("", each["metadata"]["name"]) for each in await lab.list(resource, namespace))


async def test_a_claim_gets_the_default_class_and_waits_for_its_first_consumer(lab: Lab) -> None:
    start(lab)
    made = await lab.client.create(CLAIMS, claim("data"), "default")
    assert made["spec"]["storageClassName"] == "standard"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    text = "waiting for first consumer to be created before binding"
    assert await lab.until(lambda: lab.events("WaitForFirstConsumer")) == [text]
    assert (await lab.get(CLAIMS, "data"))["status"]["phase"] == "Pending"
    assert await lab.list(VOLUMES, None) == []


async def test_a_claim_that_names_the_empty_class_is_left_to_people(lab: Lab) -> None:
    start(lab)
    made = await lab.client.create(CLAIMS, claim("data", storageClassName=""), "default")
    assert made["spec"]["storageClassName"] == ""
    text = "no persistent volumes available for this claim and no storage class is set"
    assert await lab.until(lambda: lab.events("FailedBinding")) == [text]


async def test_the_first_consumer_decides_the_node_and_the_provisioner_makes_the_volume(lab: Lab) -> None:
    start(lab)
    await lab.client.create(CLAIMS, claim("data"), "default")
    await lab.client.create("pods", user("one", "data"), "default")
    bound = await lab.until(lambda: phase(lab, "data", "Bound"))
    name = f"pvc-{bound['metadata']['uid']}"
    assert bound["spec"]["volumeName"] == name
    assert bound["status"]["capacity"] == {"storage": "1Gi"}
    notes = bound["metadata"]["annotations"]
    assert notes["volume.kubernetes.io/selected-node"] == "node-1"
    assert notes["volume.kubernetes.io/storage-provisioner"] == "rancher.io/local-path"
    made = await lab.get(VOLUMES, name, None)
    assert (made["status"]["phase"], made["spec"]["claimRef"]["name"]) == ("Bound", "data")
    assert Path(made["spec"]["hostPath"]["path"]).parent == lab.config.home / "volumes"
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    await lab.until(lambda: lab.get("pods", "one"))
    assert await lab.until(lambda: lab.events("ProvisioningSucceeded")) == [f"Successfully provisioned volume {name}"]
    (said,) = await lab.events("Provisioning")
    assert said == 'External provisioner is provisioning volume for claim "default/data"'
    assert await lab.until(lambda: lab.events("Scheduled")) == ["Successfully assigned default/one to node-1"]


async def test_a_volume_ties_later_pods_to_its_node(lab: Lab) -> None:
    await lab.node("node-2")
    start(lab)
    await lab.client.create(CLAIMS, claim("data"), "default")
    await lab.client.create("pods", user("one", "data", nodeSelector={"kubernetes.io/hostname": "node-2"}), "default")
    await lab.until(lambda: phase(lab, "data", "Bound"))
    await lab.client.patch("nodes", "node-2", {"spec": {"unschedulable": True}})
    await lab.client.create("pods", user("two", "data"), "default")
    (text,) = await lab.until(lambda: lab.events("FailedScheduling"))
    why = "1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) were unschedulable"
    assert text.startswith(f"0/2 nodes are available: {why}. ")


async def test_a_claim_in_use_is_deleted_after_its_pod_and_its_folder_goes_with_it(lab: Lab) -> None:
    start(lab)
    await lab.client.create(CLAIMS, claim("data"), "default")
    await lab.client.create("pods", user("one", "data"), "default")
    bound = await lab.until(lambda: phase(lab, "data", "Bound"))
    made = await lab.get(VOLUMES, bound["spec"]["volumeName"], None)
    folder = Path(made["spec"]["hostPath"]["path"])
    folder.mkdir(parents=True)
    (folder / "file").write_text("kept")
    await lab.until(lambda: lab.events("Scheduled"))
    await lab.client.delete(CLAIMS, "data", "default")
    assert (await lab.get(CLAIMS, "data"))["metadata"]["deletionTimestamp"]
    assert folder.exists()
    await lab.client.delete("pods", "one", "default", grace_period_seconds=0)
    await lab.until(lambda: gone(lab, CLAIMS))
    await lab.until(lambda: gone(lab, VOLUMES))
    assert not folder.exists()


async def test_a_folder_that_the_provisioner_did_not_make_is_never_removed(lab: Lab, tmp_path: Path) -> None:
    start(lab)
    folder = tmp_path / "mine"
    folder.mkdir()
    made = volume("mine", folder, storageClassName="standard", persistentVolumeReclaimPolicy="Delete")
    made["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": "rancher.io/local-path"}
    await lab.client.create(VOLUMES, made)
    await lab.client.create(CLAIMS, claim("data", volumeName="mine"), "default")
    await lab.until(lambda: phase(lab, "data", "Bound"))
    await lab.client.delete(CLAIMS, "data", "default")
    await lab.until(lambda: gone(lab, VOLUMES))
    assert folder.exists()


async def test_a_claim_takes_the_smallest_volume_that_satisfies_it_and_releases_it(lab: Lab, tmp_path: Path) -> None:
    start(lab)
    for name, storage in (("small", "1Gi"), ("right", "5Gi"), ("large", "9Gi")):
        await lab.client.create(VOLUMES, volume(name, tmp_path, storage, storageClassName="manual"))
    await lab.client.create(CLAIMS, claim("data", "3Gi", storageClassName="manual"), "default")
    bound = await lab.until(lambda: phase(lab, "data", "Bound"))
    assert (bound["spec"]["volumeName"], bound["status"]["capacity"]) == ("right", {"storage": "5Gi"})
    assert bound["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] == "yes"
    await lab.client.delete(CLAIMS, "data", "default")

    async def released() -> bool:
        phases = {each["metadata"]["name"]: each["status"]["phase"] for each in await lab.list(VOLUMES, None)}
        return phases == {"small": "Available", "right": "Released", "large": "Available"}

    assert await lab.until(released)


async def test_an_unknown_class_and_an_access_mode_of_many_nodes_are_named_in_events(lab: Lab) -> None:
    start(lab)
    await lab.client.create(CLAIMS, claim("lost", storageClassName="nosuch"), "default")
    await lab.client.create(CLAIMS, claim("many", accessModes=["ReadWriteMany"]), "default")
    await lab.client.create("pods", user("one", "many"), "default")

    async def both() -> Any:
        found = await lab.events("ProvisioningFailed")
        return found if len(found) == 2 else None

    failed = await lab.until(both)
    assert 'storageclass.storage.k8s.io "nosuch" not found' in failed
    assert any("only supports ReadWriteOnce and ReadWriteOncePod" in text for text in failed)


async def test_a_pod_waits_for_a_claim_that_does_not_exist_or_is_unbound(lab: Lab, tmp_path: Path) -> None:
    start(lab)
    await lab.client.create(CLAIMS, claim("unbound", storageClassName=""), "default")
    for name in ("missing", "unbound"):
        await lab.client.create("pods", user(name, name), "default")

    async def both() -> Any:
        found = await lab.events("FailedScheduling")
        return sorted(text.partition(". ")[0] for text in found) if len(found) == 2 else None

    none = "0/1 nodes are available: "
    missing, unbound = 'persistentvolumeclaim "missing" not found', "pod has unbound immediate PersistentVolumeClaims"
    assert await lab.until(both) == [none + missing, none + unbound]
    await lab.client.create(VOLUMES, volume("late", tmp_path))

    async def placed() -> bool:
        return bool((await lab.get("pods", "unbound"))["spec"].get("nodeName"))

    assert await lab.until(placed)


async def test_a_claim_cannot_grow_where_its_class_does_not_allow_it_nor_shrink(lab: Lab) -> None:
    start(lab)
    await lab.client.create(CLAIMS, claim("data"), "default")
    await lab.client.create("pods", user("one", "data"), "default")
    await lab.until(lambda: phase(lab, "data", "Bound"))

    async def resize(storage: str) -> ApiError:
        with pytest.raises(ApiError) as refused:
            patch = {"spec": {"resources": {"requests": {"storage": storage}}}}
            await lab.client.patch(CLAIMS, "data", patch, "default")
        return refused.value

    grown, shrunk = await resize("2Gi"), await resize("1Mi")
    assert (grown.code, grown.message) == (
        403,
        'persistentvolumeclaims "data" is forbidden: only dynamically provisioned pvc can be resized and the '
        "storageclass that provisions the pvc must support resize",
    )
    assert shrunk.code == 422
    assert "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity" in shrunk.message


def _set(replicas: int, **spec: Any) -> dict[str, Any]:
    made = {**deployment("db"), "kind": "StatefulSet"}
    made["spec"]["replicas"] = replicas
    made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    made["spec"].update(serviceName="db", volumeClaimTemplates=[{**claim("data")}], **spec)
    return made


async def _bound_claims(lab: Lab, number: int) -> Any:
    found = {each["metadata"]["name"]: each for each in await lab.list(CLAIMS)}
    bound = all(each["status"]["phase"] == "Bound" for each in found.values())
    return found if bound and len(found) == number else None


async def _pods(lab: Lab, number: int) -> Any:
    found = [each for each in await lab.list("pods") if each["status"]["phase"] == "Running"]
    return found if len(found) == number == len(await lab.list("pods")) else None


async def test_each_pod_of_a_statefulset_has_a_claim_of_its_own_that_outlives_it(lab: Lab) -> None:
    start(lab)
    await lab.client.create("statefulsets.apps", _set(2), "default")
    first, second = sorted(await lab.until(lambda: _pods(lab, 2)), key=lambda each: each["metadata"]["name"])
    assert first["spec"]["volumes"][0] == {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}
    claims = await lab.until(lambda: _bound_claims(lab, 2))
    assert sorted(claims) == ["data-db-0", "data-db-1"]
    assert claims["data-db-1"]["metadata"]["labels"] == {"app": "db"}
    assert "create Claim data-db-0 Pod db-0 in StatefulSet db success" in await lab.events("SuccessfulCreate")
    uid = claims["data-db-1"]["metadata"]["uid"]
    await lab.client.patch("statefulsets.apps", "db", {"spec": {"replicas": 1}}, "default")
    await lab.until(lambda: _pods(lab, 1))
    await lab.client.patch("statefulsets.apps", "db", {"spec": {"replicas": 2}}, "default")
    await lab.until(lambda: _pods(lab, 2))
    assert (await lab.get(CLAIMS, "data-db-1"))["metadata"]["uid"] == uid


async def test_claims_go_with_their_pods_and_their_set_where_the_retention_policy_says_so(lab: Lab) -> None:
    start(lab)
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    await lab.client.create("statefulsets.apps", _set(2, persistentVolumeClaimRetentionPolicy=policy), "default")
    await lab.until(lambda: _bound_claims(lab, 2))
    await lab.until(lambda: _pods(lab, 2))
    await lab.client.patch("statefulsets.apps", "db", {"spec": {"replicas": 1}}, "default")
    assert list(await lab.until(lambda: _bound_claims(lab, 1))) == ["data-db-0"]
    await lab.client.delete("statefulsets.apps", "db", "default")
    assert await lab.until(lambda: gone(lab, CLAIMS))
    assert await lab.until(lambda: gone(lab, VOLUMES))
