"""What several controllers share: owning and adopting, setting conditions, making Pods from a template.

Stands for `pkg/controller/controller_utils.go` and `controller_ref_manager.go` of kube-controller-manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kitlib.cluster.client import ApiError, Client, ignoring
from kitlib.cluster.clock import Clock, parse_time, rfc3339
from kitlib.cluster.config import ClusterConfig
from kitlib.cluster.events import EventRecorder
from kitlib.cluster.informer import Controller, Informer, Informers
from kitlib.cluster.labels import matches
from kitlib.cluster.objects import (
    Object,
    condition,
    controller_of,
    deep_copy,
    is_deleting,
    is_finished,
    is_ready,
    key_of,
)


@dataclass
class Context:
    """What every controller works with.

    Attributes:
        client: The API; its writes enter the informers' caches.
        informers: Shared caches.
        events: Recorder under the controller's name.
        clock: Time.
        config: The cluster, with its lab-sized times.
    """

    client: Client
    informers: Informers
    events: EventRecorder
    clock: Clock
    config: ClusterConfig


def owner_reference(owner: Object) -> Object:
    """Return the `ownerReferences` item that makes `owner` the managing controller of an object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def node_index(pod: Object) -> list[str]:
    """Index Pods by the node that they are bound to."""
    return [pod["spec"]["nodeName"]] if pod["spec"].get("nodeName") else []


def ready_since(pod: Object) -> float:
    """Return when the Pod became ready, in seconds since the epoch; 0 when it is not."""
    ready = condition(pod, "Ready")
    if ready is None or ready["status"] != "True" or not ready.get("lastTransitionTime"):
        return 0.0
    return parse_time(ready["lastTransitionTime"])


def is_available(pod: Object, min_ready_seconds: float, now: float) -> bool:
    """Tell whether the Pod has been ready for at least `min_ready_seconds`."""
    return is_ready(pod) and (not min_ready_seconds or ready_since(pod) + min_ready_seconds <= now)


def with_condition(
    conditions: Iterable[Object], kind: str, status: str, reason: str, message: str, now: float, **times: str
) -> list[Object]:
    """Return conditions with one replaced (moved to the end) or added.

    `lastTransitionTime` is kept when the status is; a condition that says the same already stays as it is.

    Args:
        conditions: The present ones.
        kind: Type of the condition.
        status: `True`, `False` or `Unknown`.
        reason: In CamelCase.
        message: For people.
        now: Seconds since the epoch.
        times: Further fields, such as `lastUpdateTime`.
    """
    conditions = list(conditions)
    old = next((item for item in conditions if item["type"] == kind), None)
    if old is not None and (old["status"], old.get("reason")) == (status, reason):
        return conditions
    new = {"type": kind, "status": status, "reason": reason, "message": message, **times}
    same = old is not None and old["status"] == status
    new["lastTransitionTime"] = old["lastTransitionTime"] if same and old is not None else rfc3339(now)
    return [item for item in conditions if item["type"] != kind] + [new]


def pod_from_template(template: Object, owner: Object) -> Object:
    """Return a Pod without a name, made of a Pod template and owned by `owner`."""
    metadata = template.get("metadata") or {}
    meta: Object = {
        "labels": dict(metadata.get("labels") or {}),
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner)],
    }
    for key in ("annotations", "finalizers"):
        if metadata.get(key):
            meta[key] = deep_copy(metadata[key])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": deep_copy(template["spec"])}


async def slow_start(count: int, create: Callable[[int], Awaitable[Any]]) -> int:
    """Do `create(i)` `count` times in batches of 1, 2, 4, ...; stop after a batch with a failure.

    A controller whose Pods are all refused (quota, a broken template) so makes one request, not hundreds.

    Args:
        count: How many.
        create: Called with 0 .. count - 1.

    Returns:
        How many succeeded.

    Raises:
        ApiError: The first failure.
    """
    done, batch = 0, 1
    while done < count:
        numbers = range(done, min(done + batch, count))
        results = await asyncio.gather(*(create(i) for i in numbers), return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException):
                raise error
        done, batch = done + len(results), batch * 2
    return done


async def create_pod(ctx: Context, owner: Object, pod: Object) -> Object:
    """Create a Pod and tell so with an Event about its owner.

    Raises:
        ApiError: The API server refused it (also told with an Event).
    """
    try:
        created = await ctx.client.create("pods", pod, pod["metadata"]["namespace"])
    except ApiError as error:
        if error.reason != "AlreadyExists":
            ctx.events.event(owner, "Warning", "FailedCreate", f"Error creating: {error.message}")
        raise
    ctx.events.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {created['metadata']['name']}")
    return created


async def delete_pod(ctx: Context, owner: Object, pod: Object) -> None:
    """Delete a Pod and tell so with an Event about its owner; a Pod that is gone already is fine."""
    namespace, name = key_of(pod)
    try:
        await ctx.client.delete("pods", name, namespace, uid=pod["metadata"]["uid"])
    except ApiError as error:
        if error.code not in (404, 409):
            ctx.events.event(owner, "Warning", "FailedDelete", f"Error deleting: {error.message}")
            raise
        return
    ctx.events.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")


async def claim(
    ctx: Context, owner: Object, informer: Informer, selector: Object, release_finalizer: str = ""
) -> list[Object]:
    """Return the objects that `owner` controls; adopt matching orphans, release those that match no more.

    Args:
        ctx: The controller's context.
        owner: The controlling object.
        informer: Cache of the dependents.
        selector: `LabelSelector` of the owner.
        release_finalizer: A finalizer to take off a released object.
    """
    uid = owner["metadata"]["uid"]
    mine = []
    for obj in informer.owned_by(uid):
        reference = controller_of(obj)
        if reference is None or reference["uid"] != uid:
            continue
        if matches(selector, obj["metadata"].get("labels")):
            mine.append(obj)
        elif not is_deleting(owner):
            await _release(ctx, informer.resource, obj, uid, release_finalizer)
    if is_deleting(owner):
        return mine
    informer.add_index("orphan", lambda obj: [] if controller_of(obj) else [obj["metadata"]["namespace"]])
    for obj in informer.indexed("orphan", owner["metadata"]["namespace"]):
        if matches(selector, obj["metadata"].get("labels")) and not is_deleting(obj) and not is_finished(obj):
            adopted = await _adopt(ctx, informer.resource, obj, owner)
            mine += [adopted] if adopted else []
    return mine


async def _adopt(ctx: Context, resource: str, obj: Object, owner: Object) -> Object | None:
    namespace, name = key_of(obj)
    owners = [*(obj["metadata"].get("ownerReferences") or ()), owner_reference(owner)]
    patch = {"metadata": {"uid": obj["metadata"]["uid"], "ownerReferences": owners}}
    patch["metadata"]["resourceVersion"] = obj["metadata"]["resourceVersion"]
    try:
        return await ctx.client.patch(resource, name, patch, namespace)
    except ApiError as error:
        if error.code in (404, 422):
            return None
        raise


async def _release(ctx: Context, resource: str, obj: Object, uid: str, finalizer: str) -> None:
    metadata = obj["metadata"]
    owners = [item for item in metadata["ownerReferences"] if item["uid"] != uid]
    patch: Object = {"uid": metadata["uid"], "ownerReferences": owners or None}
    if finalizer:
        patch["finalizers"] = [item for item in metadata.get("finalizers") or () if item != finalizer]
    with ignoring(404, 422):
        await ctx.client.patch(resource, metadata["name"], {"metadata": patch}, metadata["namespace"])


async def update_status(ctx: Context, resource: str, obj: Object, status: Object) -> Object:
    """Write `status` when it differs from the object's; answer the object as it is then.

    The object's resourceVersion goes along, so a write from stale knowledge is refused as a conflict.
    """
    if status == (obj.get("status") or {}):
        return obj
    return await ctx.client.update(resource, {**obj, "status": status}, subresource="status")


def watch_own(informer: Informer, controller: Controller) -> None:
    """Queue every object of a controller's kind that changes; one whose status alone changed is in no hurry."""

    def handler(_: str, old: Object | None, new: Object) -> None:
        generation = new["metadata"].get("generation")
        same = old is not None and old["metadata"].get("generation") == generation and not is_deleting(new)
        (controller.add_dependent if same else controller.queue.add)(key_of(new))

    informer.add_handler(handler)


def watch_owned(informer: Informer, kind: str, enqueue: Callable[[tuple[str, str]], None]) -> None:
    """Call `enqueue` with the key of the controller of `kind` whenever one of its dependents changes."""

    def handler(_: str, old: Object | None, new: Object) -> None:
        for obj in (old, new):
            reference = controller_of(obj) if obj is not None else None
            if reference is not None and reference["kind"] == kind:
                enqueue((new["metadata"]["namespace"], reference["name"]))

    informer.add_handler(handler)
