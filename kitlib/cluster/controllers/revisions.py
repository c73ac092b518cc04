"""ControllerRevisions: the history of a DaemonSet's or StatefulSet's Pod template.

Stands for `pkg/controller/history`. The rule: each template is kept in a ControllerRevision named after its hash;
using an old template again gives its revision the highest number.
"""

from __future__ import annotations

from kitlib.cluster.client import ApiError
from kitlib.cluster.controllers.common import Context, owner_reference
from kitlib.cluster.controllers.deployment_rules import template_hash
from kitlib.cluster.objects import Object, deep_copy, key_of

REVISIONS = "controllerrevisions.apps"
HASH_LABEL = "controller-revision-hash"


def history(ctx: Context, owner: Object) -> list[Object]:
    """Return the owner's revisions, oldest first."""
    found = ctx.informers(REVISIONS).owned_by(owner["metadata"]["uid"])
    return sorted(found, key=lambda item: (item["revision"], item["metadata"]["name"]))


async def current(ctx: Context, owner: Object) -> Object:
    """Return the revision of the owner's present template, made or renumbered as needed."""
    template = {**owner["spec"]["template"], "$patch": "replace"}
    data = {"spec": {"template": template}}
    known = history(ctx, owner)
    number = known[-1]["revision"] + 1 if known else 1
    same = next((item for item in known if item.get("data") == data), None)
    if same is None:
        return await _create(ctx, owner, data, number)
    if same is not known[-1]:
        namespace, name = key_of(same)
        return await ctx.client.patch(REVISIONS, name, {"revision": number}, namespace)
    return same


async def _create(ctx: Context, owner: Object, data: Object, number: int) -> Object:
    namespace, name = key_of(owner)
    for collisions in range(10):
        hashed = template_hash(owner["spec"]["template"], collisions)
        labels = {**(owner["spec"]["selector"].get("matchLabels") or {}), HASH_LABEL: hashed}
        metadata = {"name": f"{name}-{hashed}", "namespace": namespace, "labels": labels}
        metadata["ownerReferences"] = [owner_reference(owner)]
        revision = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "revision": number}
        try:
            return await ctx.client.create(REVISIONS, {**revision, "data": deep_copy(data)}, namespace)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
    raise RuntimeError(f"no free name for a revision of {namespace}/{name}")


async def trim(ctx: Context, owner: Object, used: set[str]) -> None:
    """Delete the oldest revisions beyond `revisionHistoryLimit` that no Pod uses.

    Args:
        ctx: The controller's context.
        owner: The DaemonSet or StatefulSet.
        used: Hashes that Pods carry, and the present one.
    """
    idle = [item for item in history(ctx, owner) if hash_of(item) not in used]
    for item in idle[: max(0, len(idle) - owner["spec"].get("revisionHistoryLimit", 10))]:
        namespace, name = key_of(item)
        await ctx.client.delete(REVISIONS, name, namespace, uid=item["metadata"]["uid"])


def hash_of(obj: Object) -> str:
    """Return the revision hash that a revision or a Pod carries."""
    return str((obj["metadata"].get("labels") or {}).get(HASH_LABEL, ""))
