from __future__ import annotations

from lab import Lab, deployment


async def _rolled_out(lab: Lab, name: str = "web") -> bool:
    found = await lab.get("deployments.apps", name)
    status, want = found["status"], found["spec"]["replicas"]
    numbers = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")]
    return status.get("observedGeneration") == found["metadata"]["generation"] and numbers == [want] * 4


async def _image(lab: Lab, image: str) -> None:
    containers = [{"name": "web", "image": image}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    await lab.client.patch("deployments.apps", "web", patch, "default")


async def _sizes(lab: Lab) -> dict[str, int]:
    sets = await lab.list("replicasets.apps")
    return {rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["spec"]["replicas"] for rs in sets}


async def test_a_deployment_brings_up_its_pods_and_says_so(lab: Lab) -> None:
    lab.start()
    await lab.client.create("deployments.apps", deployment("web", 2), "default")
    await lab.until(lambda: _rolled_out(lab))
    found = await lab.get("deployments.apps", "web")
    reasons = {item["type"]: (item["status"], item["reason"]) for item in found["status"]["conditions"]}
    assert reasons == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    (rs,) = await lab.list("replicasets.apps")
    assert rs["metadata"]["name"] == f"web-{rs['metadata']['labels']['pod-template-hash']}"
    assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert rs["metadata"]["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3",
        "deployment.kubernetes.io/revision": "1",
    }
    name = rs["metadata"]["name"]
    assert await lab.events("ScalingReplicaSet") == [f"Scaled up replica set {name} from 0 to 2"]


async def test_a_deployment_of_4_with_a_bad_image_keeps_three_replicas_available(lab: Lab) -> None:
    lab.start()
    await lab.client.create("deployments.apps", deployment("web", 4), "default")
    await lab.until(lambda: _rolled_out(lab))
    await _image(lab, "bad")

    async def stuck() -> bool:
        status = (await lab.get("deployments.apps", "web"))["status"]
        return await _sizes(lab) == {"web:v1": 3, "bad": 2} and status.get("updatedReplicas") == 2

    await lab.until(stuck)
    status = (await lab.get("deployments.apps", "web"))["status"]
    assert (status["availableReplicas"], status["unavailableReplicas"]) == (3, 2)


async def test_undo_uses_the_old_replicaset_again_and_renumbers_it(lab: Lab) -> None:
    lab.start()
    await lab.client.create("deployments.apps", deployment("web", 4), "default")
    await lab.until(lambda: _rolled_out(lab))
    for image in ("bad", "web:v1"):
        await _image(lab, image)

        async def done(image: str = image) -> bool:
            sizes = await _sizes(lab)
            return sizes == {"web:v1": 3, "bad": 2} if image == "bad" else sizes == {"web:v1": 4, "bad": 0}

        await lab.until(done)
    await lab.until(lambda: _rolled_out(lab))
    sets = await lab.list("replicasets.apps")
    revisions = {
        rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["metadata"]["annotations"][
            "deployment.kubernetes.io/revision"
        ]
        for rs in sets
    }
    assert revisions == {"web:v1": "3", "bad": "2"}
