from __future__ import annotations

from typing import Any

from lab import Lab, deployment


def config_map(name: str, *owners: dict[str, Any], block: bool = False) -> dict[str, Any]:
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    metadata = {"name": name, "namespace": "default", "ownerReferences": references}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


async def _names(lab: Lab) -> set[str]:
    return {item["metadata"]["name"] for item in await lab.list("configmaps")} - {"kube-root-ca.crt"}


async def _make(lab: Lab, name: str, *owners: dict[str, Any], block: bool = False) -> dict[str, Any]:
    return await lab.client.create("configmaps", config_map(name, *owners, block=block), "default")


async def test_background_deletion_takes_the_dependents_afterwards(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    top = await _make(lab, "top")
    await _make(lab, "bottom", await _make(lab, "middle", top))
    await lab.client.delete("configmaps", "top", "default", propagation_policy="Background")

    async def gone() -> bool:
        return not await _names(lab)

    await lab.until(gone)


async def test_foreground_deletion_takes_the_dependents_first(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    top = await _make(lab, "top")
    dependent = config_map("held", top, block=True)
    dependent["metadata"]["finalizers"] = ["example.org/hold"]
    await lab.client.create("configmaps", dependent, "default")
    await lab.client.delete("configmaps", "top", "default", propagation_policy="Foreground")

    async def dependent_is_going() -> bool:
        return "deletionTimestamp" in (await lab.get("configmaps", "held"))["metadata"]

    await lab.until(dependent_is_going)
    assert (await lab.get("configmaps", "top"))["metadata"]["finalizers"] == ["foregroundDeletion"]
    await lab.client.patch("configmaps", "held", {"metadata": {"finalizers": None}}, "default")

    async def gone() -> bool:
        return not await _names(lab)

    await lab.until(gone)


async def test_orphans_stay_and_forget_their_owner(lab: Lab) -> None:
    lab.start()
    await lab.client.create("deployments.apps", deployment("web", 1), "default")

    async def running() -> bool:
        return (await lab.get("deployments.apps", "web"))["status"].get("readyReplicas") == 1

    await lab.until(running)
    await lab.client.delete("deployments.apps", "web", "default", propagation_policy="Orphan")

    async def orphaned() -> bool:
        (rs,) = await lab.list("replicasets.apps")
        return not await lab.list("deployments.apps") and not rs["metadata"].get("ownerReferences")

    await lab.until(orphaned)
    assert len(await lab.list("pods")) == 1


async def test_an_object_with_one_living_owner_stays(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    one, other = await _make(lab, "one"), await _make(lab, "other")
    await _make(lab, "child", one, other)
    await lab.client.delete("configmaps", "one", "default")

    async def forgot() -> bool:
        owners = (await lab.get("configmaps", "child"))["metadata"]["ownerReferences"]
        return [owner["name"] for owner in owners] == ["other"]

    await lab.until(forgot)


async def test_an_owner_that_never_was_takes_its_dependents_along(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    ghost = {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}}
    await lab.client.create("configmaps", config_map("child", ghost), "default")

    async def gone() -> bool:
        return not await _names(lab)

    await lab.until(gone)


async def test_a_deleted_namespace_empties_itself_pods_first(lab: Lab) -> None:
    lab.start()
    await lab.client.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    web = deployment("web", 2)
    web["metadata"]["namespace"] = "team"
    await lab.client.create("deployments.apps", web, "team")

    async def running() -> bool:
        pods = await lab.list("pods", "team")
        return [item["status"]["phase"] for item in pods] == ["Running", "Running"]

    await lab.until(running)
    account = await lab.until(lambda: lab.get("serviceaccounts", "default", "team"))
    assert account
    await lab.client.delete("namespaces", "team")

    async def gone() -> bool:
        return "team" not in {item["metadata"]["name"] for item in await lab.list("namespaces", None)}

    await lab.until(gone)
    assert not await lab.list("deployments.apps", "team") and not await lab.list("configmaps", "team")
