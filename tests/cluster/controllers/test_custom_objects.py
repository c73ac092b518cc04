"""Garbage collection and the end of a namespace reach the objects of CustomResourceDefinitions."""

from __future__ import annotations

from typing import Any

from lab import Lab

DEFINITIONS, WIDGETS = "customresourcedefinitions.apiextensions.k8s.io", "widgets.example.com"


def definition() -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "widgets", "kind": "Widget"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": WIDGETS},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


async def defined(lab: Lab) -> None:
    await lab.client.create(DEFINITIONS, definition())

    async def served() -> bool:
        return "Established" in str((await lab.get(DEFINITIONS, WIDGETS, None)).get("status"))

    await lab.until(served)


async def make(lab: Lab, resource: str, name: str, owner: dict[str, Any] | None, namespace: str = "default") -> Any:
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    if resource == WIDGETS:
        kind = {"apiVersion": "example.com/v1", "kind": "Widget"}
    meta: dict[str, Any] = {"name": name, "namespace": namespace}
    if owner is not None:
        named = {field: owner["metadata"][field] for field in ("name", "uid")}
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], **named, "blockOwnerDeletion": True}
        meta["ownerReferences"] = [reference]
    return await lab.client.create(resource, {**kind, "metadata": meta}, namespace)


async def names(lab: Lab, resource: str) -> set[str]:
    return {item["metadata"]["name"] for item in await lab.list(resource)} - {"kube-root-ca.crt"}


async def gone(lab: Lab, *resources: str) -> None:
    async def nothing_left() -> bool:
        return not set().union(*[await names(lab, resource) for resource in resources])

    await lab.until(nothing_left)


async def test_the_dependents_of_a_custom_object_go_with_it(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    await defined(lab)
    top = await make(lab, WIDGETS, "top", None)
    middle = await make(lab, "configmaps", "middle", top)
    await make(lab, WIDGETS, "bottom", middle)
    await lab.client.delete(WIDGETS, "top", "default")
    await gone(lab, WIDGETS, "configmaps")


async def test_a_custom_owner_can_wait_for_its_dependents(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    await defined(lab)
    await make(lab, "configmaps", "bottom", await make(lab, WIDGETS, "top", None))
    await lab.client.delete(WIDGETS, "top", "default", propagation_policy="Foreground")
    await gone(lab, WIDGETS, "configmaps")


async def test_a_custom_object_whose_owner_never_was_is_collected(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    await defined(lab)
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "uid": "nobody"}}
    await make(lab, WIDGETS, "stray", owner)
    await gone(lab, WIDGETS)


async def test_the_dependents_of_all_objects_go_with_their_definition(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    await defined(lab)
    await make(lab, "configmaps", "bottom", await make(lab, WIDGETS, "top", None))
    await lab.client.delete(DEFINITIONS, WIDGETS)
    await gone(lab, "configmaps", DEFINITIONS)
    await defined(lab)
    await make(lab, "configmaps", "bottom", await make(lab, WIDGETS, "top", None))
    await lab.client.delete(WIDGETS, "top", "default")
    await gone(lab, "configmaps")


async def test_a_namespace_takes_its_custom_objects_along(lab: Lab) -> None:
    lab.start(kubelet=False, scheduler=False)
    await defined(lab)
    await lab.client.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    await make(lab, WIDGETS, "theirs", None, "team")
    await make(lab, WIDGETS, "ours", None)
    await lab.client.delete("namespaces", "team")

    async def ended() -> bool:
        return "team" not in await names(lab, "namespaces")

    await lab.until(ended)
    assert await names(lab, WIDGETS) == {"ours"}
