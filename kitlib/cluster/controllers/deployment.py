"""Deployment: one ReplicaSet per Pod template, and a controlled way from the old one to the new.

Stands for `pkg/controller/deployment`. The rule: the ReplicaSet whose template is the Deployment's is the new one
(created when missing, numbered as the next revision); each reconcile does one step of the rollout and reports: let the
new one grow as far as `maxSurge` allows, else let old ones shrink as far as `maxUnavailable` allows, else clean up
what is beyond `revisionHistoryLimit`. The arithmetic is in `deployment_rules.py`.
"""

from __future__ import annotations

from kitlib.cluster.client import ApiError
from kitlib.cluster.clock import rfc3339
from kitlib.cluster.controllers import deployment_rules as rules
from kitlib.cluster.controllers.common import (
    Context,
    claim,
    owner_reference,
    update_status,
    watch_owned,
    with_condition,
)
from kitlib.cluster.controllers.deployment_rules import HASH_LABEL, count, replicas
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, annotation, condition, deep_copy, is_deleting, is_finished, key_of

DEPLOYMENTS, SETS = "deployments.apps", "replicasets.apps"


class DeploymentController(Controller):
    name = "deployment-controller"

    def __init__(self, ctx: Context) -> None:
        """Watch Deployments and ReplicaSets; Pods are only looked at."""
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._deployments = ctx.informers(DEPLOYMENTS)
        self._sets = ctx.informers(SETS)
        self._pods = ctx.informers("pods")
        self._deployments.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        watch_owned(self._sets, "Deployment", self.queue.add)
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, kind: str, _: Object | None, pod: Object) -> None:
        """A Recreate rollout waits for the last old Pod to go."""
        if kind == "DELETED":
            for owner in pod["metadata"].get("ownerReferences") or ():
                rs = self._sets.get(pod["metadata"]["namespace"], owner["name"])
                for above in (rs or {"metadata": {}})["metadata"].get("ownerReferences") or ():
                    self.queue.add((pod["metadata"]["namespace"], above["name"]))

    async def reconcile(self, key: Key) -> None:
        """Do one step of the rollout and write the status."""
        deployment = self._deployments.get(*key)
        if deployment is None:
            return
        selector = deployment["spec"]["selector"]
        sets = await claim(self._ctx, deployment, self._sets, selector)
        if is_deleting(deployment):
            await self._report(deployment, self._new(deployment, sets), sets)
            return
        deployment = await self._note_pause(deployment)
        active = [rs for rs in sets if replicas(rs) > 0]
        wanted = str(replicas(deployment))
        rescaled = any(annotation(rs, rules.DESIRED) not in ("", wanted) for rs in active)
        if deployment["spec"].get("paused") or rescaled:
            await self._scale_only(deployment, sets)
        elif (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            await self._recreate(deployment, sets)
        else:
            await self._roll(deployment, sets)

    @staticmethod
    def _new(deployment: Object, sets: list[Object]) -> Object | None:
        return next((rs for rs in rules.oldest_first(sets) if rules.same_template(rs, deployment)), None)

    def _fresh(self, sets: list[Object]) -> list[Object]:
        """Return the ReplicaSets as the cache has them after this reconcile's writes."""
        found = (self._sets.get(*key_of(rs)) for rs in sets)
        return [rs for rs in found if rs is not None]

    async def _note_pause(self, deployment: Object) -> Object:
        """Keep the Progressing condition from counting paused time."""
        current = condition(deployment, "Progressing")
        reason = current["reason"] if current else ""
        paused = bool(deployment["spec"].get("paused"))
        stuck = reason == "ProgressDeadlineExceeded"
        if rules.deadline(deployment) is None or stuck or paused == (reason == "DeploymentPaused"):
            return deployment
        word = "paused" if paused else "resumed"
        return await self._set_progressing(deployment, "Unknown", f"Deployment{word.title()}", f"Deployment is {word}")

    async def _set_progressing(self, deployment: Object, status: str, reason: str, message: str) -> Object:
        now = self._ctx.clock.now()
        before = deployment.get("status") or {}
        stamp = rfc3339(now)
        conditions = with_condition(
            before.get("conditions") or (), "Progressing", status, reason, message, now, lastUpdateTime=stamp
        )
        return await update_status(self._ctx, DEPLOYMENTS, deployment, {**before, "conditions": conditions})

    # New ReplicaSet and revisions

    async def _sync_revision(
        self, deployment: Object, sets: list[Object], *, create: bool
    ) -> tuple[Object, Object | None, list[Object]]:
        """Return `(deployment, new, old)` with the new ReplicaSet there, numbered and annotated."""
        new = self._new(deployment, sets)
        old = [rs for rs in sets if new is None or rs["metadata"]["uid"] != new["metadata"]["uid"]]
        number = max([rules.revision(rs) for rs in old], default=0) + 1
        if new is not None:
            new = await self._annotate(deployment, new, number)
            if condition(deployment, "Progressing") is None and rules.deadline(deployment) is not None:
                text = f'Found new replica set "{new["metadata"]["name"]}"'
                deployment = await self._set_progressing(deployment, "True", "FoundNewReplicaSet", text)
        elif create:
            deployment, new = await self._create_set(deployment, old, number)
        if new is not None:
            deployment = await self._number(deployment, annotation(new, rules.REVISION))
        return deployment, new, old

    async def _annotate(self, deployment: Object, new: Object, number: int) -> Object:
        annotations = rules.new_annotations(deployment, new, number)
        seconds = deployment["spec"].get("minReadySeconds", 0)
        if annotations == new["metadata"].get("annotations") and seconds == new["spec"].get("minReadySeconds", 0):
            return new
        return await self._patch_set(new, {"minReadySeconds": seconds}, annotations)

    async def _number(self, deployment: Object, number: str) -> Object:
        if annotation(deployment, rules.REVISION) == number:
            return deployment
        namespace, name = key_of(deployment)
        patch = {"metadata": {"annotations": {rules.REVISION: number}}}
        return await self._ctx.client.patch(DEPLOYMENTS, name, patch, namespace, subresource="status")

    async def _create_set(self, deployment: Object, old: list[Object], number: int) -> tuple[Object, Object | None]:
        size = rules.new_set_size(deployment, old, 0)
        rs = new_replica_set(deployment, size, number)
        namespace, name = key_of(rs)
        try:
            created = await self._ctx.client.create(SETS, rs, namespace)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return deployment, await self._existing(deployment, name)
            await self._set_progressing(deployment, "False", "ReplicaSetCreateError", error.message)
            raise
        if size:
            self._tell(deployment, name, 0, size)
        if rules.deadline(deployment) is not None:
            text = f'Created new replica set "{name}"'
            deployment = await self._set_progressing(deployment, "True", "NewReplicaSetCreated", text)
        return deployment, created

    async def _existing(self, deployment: Object, name: str) -> Object | None:
        """Use the ReplicaSet of that name if it is ours; else count a collision, so the next hash differs."""
        found = await self._ctx.client.get(SETS, name, deployment["metadata"]["namespace"])
        uid = deployment["metadata"]["uid"]
        ours = any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences") or ())
        if ours and rules.same_template(found, deployment):
            return found
        before = deployment.get("status") or {}
        status = {**before, "collisionCount": before.get("collisionCount", 0) + 1}
        await update_status(self._ctx, DEPLOYMENTS, deployment, status)
        return None

    # Steps

    async def _roll(self, deployment: Object, sets: list[Object]) -> None:
        deployment, new, old = await self._sync_revision(deployment, sets, create=True)
        if new is None:
            return
        wanted, size = replicas(deployment), replicas(new)
        target = wanted if size > wanted else rules.new_set_size(deployment, [*old, new], size)
        if not await self._resize(deployment, new, target):
            sizes = rules.old_set_sizes(deployment, new, old)
            for rs in rules.oldest_first(old):
                await self._resize(deployment, rs, sizes.get(rs["metadata"]["name"], replicas(rs)))
        await self._report(deployment, new, [*old, new])

    async def _recreate(self, deployment: Object, sets: list[Object]) -> None:
        deployment, new, old = await self._sync_revision(deployment, sets, create=False)
        shrunk = [await self._resize(deployment, rs, 0) for rs in old]
        if not any(shrunk) and not self._has_pods(old):
            deployment, new, old = await self._sync_revision(deployment, sets, create=True)
            if new is not None:
                await self._resize(deployment, new, replicas(deployment))
        await self._report(deployment, new, [*old, new] if new else old)

    def _has_pods(self, sets: list[Object]) -> bool:
        pods = (pod for rs in sets for pod in self._pods.owned_by(rs["metadata"]["uid"]))
        return any(not is_finished(pod) for pod in pods)

    async def _scale_only(self, deployment: Object, sets: list[Object]) -> None:
        """Bring the present ReplicaSets to a new size, in proportion, without moving the rollout."""
        deployment, new, old = await self._sync_revision(deployment, sets, create=False)
        everything = [*old, new] if new else old
        for rs, size in self._scaled_sizes(deployment, new, old):
            await self._resize(deployment, rs, size)
        if deployment["spec"].get("paused"):
            await self._clean_up(deployment, old)
        await self._report(deployment, new, everything, judge=False)

    @staticmethod
    def _scaled_sizes(deployment: Object, new: Object | None, old: list[Object]) -> list[tuple[Object, int]]:
        everything = [*old, new] if new else old
        active = [rs for rs in everything if replicas(rs) > 0]
        if len(active) <= 1:
            latest = active or ([new] if new else sorted(old, key=rules.revision)[-1:])
            return [(rs, replicas(deployment)) for rs in latest]
        if rules.is_saturated(deployment, new):
            return [(rs, 0) for rs in old if replicas(rs) > 0]
        sizes = rules.proportional_sizes(deployment, active)
        return [(rs, sizes[rs["metadata"]["name"]]) for rs in active]

    async def _resize(self, deployment: Object, rs: Object, size: int) -> bool:
        """Set a ReplicaSet's size; tell whether it changed."""
        before = replicas(rs)
        marks = rules.size_annotations(deployment)
        known = rs["metadata"].get("annotations") or {}
        if before == size and marks.items() <= known.items():
            return False
        if before == size and size == 0:
            return False
        await self._patch_set(rs, {"replicas": size}, {**known, **marks})
        if before != size:
            self._tell(deployment, rs["metadata"]["name"], before, size)
        return before != size

    async def _patch_set(self, rs: Object, spec: Object, annotations: dict[str, str]) -> Object:
        namespace, name = key_of(rs)
        metadata = {"resourceVersion": rs["metadata"]["resourceVersion"], "annotations": annotations}
        return await self._ctx.client.patch(SETS, name, {"metadata": metadata, "spec": spec}, namespace)

    def _tell(self, deployment: Object, name: str, before: int, after: int) -> None:
        direction = "up" if after > before else "down"
        text = f"Scaled {direction} replica set {name} from {before} to {after}"
        self._ctx.events.event(deployment, "Normal", "ScalingReplicaSet", text)

    async def _clean_up(self, deployment: Object, old: list[Object]) -> None:
        """Delete the oldest empty ReplicaSets beyond the history limit."""
        idle = [rs for rs in old if not is_deleting(rs)]
        surplus = len(idle) - deployment["spec"].get("revisionHistoryLimit", 10)
        for rs in sorted(idle, key=rules.revision)[: max(0, surplus)]:
            if replicas(rs) == 0 and count(rs, "replicas") == 0:
                namespace, name = key_of(rs)
                uid = rs["metadata"]["uid"]
                await self._ctx.client.delete(SETS, name, namespace, uid=uid, propagation_policy="Background")

    async def _report(self, deployment: Object, new: Object | None, sets: list[Object], *, judge: bool = True) -> None:
        now = self._ctx.clock.now()
        sets = self._fresh(sets)
        new = next((rs for rs in sets if new and rs["metadata"]["uid"] == new["metadata"]["uid"]), None)
        status = rules.base_status(deployment, new, sets, now)
        if judge and not is_deleting(deployment):
            status["conditions"] = rules.progress(deployment, new, status, now)
        status["conditions"] = _with_failure(status["conditions"], new, sets)
        if judge and rules.is_complete(deployment, status):
            await self._clean_up(deployment, [rs for rs in sets if rs is not new])
        await update_status(self._ctx, DEPLOYMENTS, deployment, status)
        left = rules.deadline_left(deployment, status, now)
        if left is not None:
            self.queue.add_after(key_of(deployment), max(left, 0) + 1)


def new_replica_set(deployment: Object, size: int, number: int) -> Object:
    """Return the ReplicaSet of the Deployment's present template."""
    template = deep_copy(deployment["spec"]["template"])
    hashed = rules.template_hash(template, count(deployment, "collisionCount"))
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: hashed}
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    selector = deep_copy(deployment["spec"]["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: hashed}
    metadata: Object = {
        "name": f"{deployment['metadata']['name']}-{hashed}",
        "namespace": deployment["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": [owner_reference(deployment)],
    }
    metadata["annotations"] = rules.new_annotations(deployment, {"metadata": metadata}, number)
    spec: Object = {"replicas": size, "selector": selector, "template": template}
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}


def _with_failure(conditions: list[Object], new: Object | None, sets: list[Object]) -> list[Object]:
    """Show the ReplicaFailure of the new ReplicaSet, or of any."""
    failures = [c for rs in [new, *sets] if rs for c in [condition(rs, "ReplicaFailure")] if c]
    others = [c for c in conditions if c["type"] != "ReplicaFailure"]
    if not failures:
        return others
    known = next((c for c in conditions if c["type"] == "ReplicaFailure"), None)
    if known and (known["reason"], known["message"]) == (failures[0]["reason"], failures[0]["message"]):
        return conditions
    return [*others, {**failures[0], "lastUpdateTime": failures[0]["lastTransitionTime"]}]
