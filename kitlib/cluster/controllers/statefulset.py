"""StatefulSet: Pods with names that stay, NAME-0, NAME-1, ..., made and removed in order.

Stands for `pkg/controller/statefulset`. The rule: Pod N+1 is made when Pod N is ready, and removed before it; with
`podManagementPolicy: Parallel` all at once. A rolling update deletes Pods of an old template from the highest number
down to `partition`, each after its successor is ready again. Each Pod has claims of its own, made from
`volumeClaimTemplates`, which outlive it unless `persistentVolumeClaimRetentionPolicy` says Delete.
"""

from __future__ import annotations

from kitlib.cluster.client import ApiError
from kitlib.cluster.controllers import revisions
from kitlib.cluster.controllers.common import (
    Context,
    claim,
    is_available,
    owner_reference,
    pod_from_template,
    update_status,
    watch_owned,
)
from kitlib.cluster.informer import Controller
from kitlib.cluster.objects import Key, Object, deep_copy, is_deleting, is_finished, is_ready, key_of
from kitlib.cluster.volumeclaims import CLAIMS

RESOURCE = "statefulsets.apps"


class StatefulSetController(Controller):
    name = "statefulset-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx.clock)
        self._ctx = ctx
        self._sets, self._pods, self._claims = (ctx.informers(each) for each in (RESOURCE, "pods", CLAIMS))
        ctx.informers(revisions.REVISIONS)
        self._sets.add_handler(lambda _, old, new: self.queue.add(key_of(new)))
        watch_owned(self._pods, "StatefulSet", self.queue.add)

    async def reconcile(self, key: Key) -> None:
        """Do the next step towards the wanted Pods, write the status."""
        stateful_set = self._sets.get(*key)
        if stateful_set is None or is_deleting(stateful_set):
            return
        await claim(self._ctx, stateful_set, self._pods, stateful_set["spec"]["selector"])
        update = await revisions.current(self._ctx, stateful_set)
        await self._step(stateful_set, update)
        await self._write_status(key, update)

    def _by_ordinal(self, stateful_set: Object) -> dict[int, Object]:
        pods = self._pods.owned_by(stateful_set["metadata"]["uid"])
        return {ordinal_of(pod, stateful_set): pod for pod in pods if ordinal_of(pod, stateful_set) >= 0}

    def _current_hash(self, stateful_set: Object, update: Object) -> str:
        """Return the hash of the template that Pods below the partition keep."""
        return str((stateful_set.get("status") or {}).get("currentRevision", "")).rpartition("-")[
            2
        ] or revisions.hash_of(update)

    async def _step(self, stateful_set: Object, update: Object) -> None:
        spec = stateful_set["spec"]
        first = (spec.get("ordinals") or {}).get("start", 0)
        wanted = range(first, first + spec.get("replicas", 1))
        parallel = spec.get("podManagementPolicy") == "Parallel"
        pods = self._by_ordinal(stateful_set)
        for ordinal in wanted:
            pod = pods.get(ordinal)
            if pod is None:
                await self._create(stateful_set, update, ordinal)
            elif is_finished(pod) and not is_deleting(pod):
                await self._delete(stateful_set, pod)
            if not parallel and not self._settled(stateful_set, pod):
                return
        surplus = [pods[ordinal] for ordinal in sorted(set(pods) - set(wanted), reverse=True)]
        for pod in surplus:
            if not is_deleting(pod):
                await self._give_claims_away(stateful_set, pod)
                await self._delete(stateful_set, pod)
            if not parallel:
                return
        await self._roll(stateful_set, update, [pods[ordinal] for ordinal in wanted if ordinal in pods])

    def _settled(self, stateful_set: Object, pod: Object | None) -> bool:
        if pod is None or is_deleting(pod):
            return False
        return is_available(pod, stateful_set["spec"].get("minReadySeconds", 0), self._ctx.clock.now())

    async def _roll(self, stateful_set: Object, update: Object, pods: list[Object]) -> None:
        strategy = stateful_set["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        for pod in reversed(pods):
            if ordinal_of(pod, stateful_set) < partition:
                return
            if revisions.hash_of(pod) != revisions.hash_of(update):
                if not is_deleting(pod):
                    await self._delete(stateful_set, pod)
                return
            if not self._settled(stateful_set, pod):
                return

    async def _create(self, stateful_set: Object, update: Object, ordinal: int) -> None:
        partition = ((stateful_set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition", 0)
        template, hashed = stateful_set["spec"]["template"], revisions.hash_of(update)
        if ordinal < partition:
            for item in revisions.history(self._ctx, stateful_set):
                if revisions.hash_of(item) == self._current_hash(stateful_set, update):
                    hashed = revisions.hash_of(item)
                    template = {k: v for k, v in item["data"]["spec"]["template"].items() if k != "$patch"}
        pod = stateful_pod(stateful_set, template, ordinal, hashed)
        await self._claim_storage(stateful_set, pod, ordinal)
        await self._tell("create", "Create", stateful_set, pod)

    async def _claim_storage(self, stateful_set: Object, pod: Object, ordinal: int) -> None:
        """Create the Pod's claims that do not exist yet."""
        namespace, name = key_of(pod)
        for wanted in stateful_claims(stateful_set, ordinal):
            present = self._claims.get(namespace, wanted["metadata"]["name"])
            if present is not None and is_deleting(present):
                message = f"claim {wanted['metadata']['name']} is being deleted"
                raise ApiError({"code": 409, "reason": "Conflict", "message": message})
            if present is None:
                await self._create_claim(stateful_set, name, wanted)

    async def _create_claim(self, stateful_set: Object, pod: str, wanted: Object) -> None:
        namespace, name = key_of(wanted)
        text = f"create Claim {name} Pod {pod} in StatefulSet {stateful_set['metadata']['name']}"
        try:
            await self._ctx.client.create(CLAIMS, wanted, namespace)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                self._ctx.events.event(stateful_set, "Warning", "FailedCreate", f"{text} failed error: {error.message}")
                raise
        else:
            self._ctx.events.event(stateful_set, "Normal", "SuccessfulCreate", f"{text} success")

    async def _give_claims_away(self, stateful_set: Object, pod: Object) -> None:
        """Let a surplus Pod own its claims when they are to go with it (`whenScaled: Delete`)."""
        if _retention(stateful_set, "whenScaled") != "Delete":
            return
        namespace, uid = pod["metadata"]["namespace"], pod["metadata"]["uid"]
        for wanted in stateful_claims(stateful_set, ordinal_of(pod, stateful_set)):
            name = wanted["metadata"]["name"]
            if self._claims.get(namespace, name) is not None:
                owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": uid}
                await self._ctx.client.patch(CLAIMS, name, {"metadata": {"ownerReferences": [owner]}}, namespace)

    async def _delete(self, stateful_set: Object, pod: Object) -> None:
        await self._tell("delete", "Delete", stateful_set, pod)

    async def _tell(self, verb: str, reason: str, stateful_set: Object, pod: Object) -> None:
        """Create or delete a Pod, with the Event that Kubernetes has for it."""
        namespace, name = key_of(pod)
        text = f"{verb} Pod {name} in StatefulSet {stateful_set['metadata']['name']}"
        try:
            if verb == "create":
                await self._ctx.client.create("pods", pod, namespace)
            else:
                await self._ctx.client.delete("pods", name, namespace, uid=pod["metadata"]["uid"])
        except ApiError as error:
            message = f"{text} failed error: {error.message}"
            self._ctx.events.event(stateful_set, "Warning", f"Failed{reason}", message)
            raise
        self._ctx.events.event(stateful_set, "Normal", f"Successful{reason}", f"{text} successful")

    async def _write_status(self, key: Key, update: Object) -> None:
        stateful_set = self._sets.get(*key)
        if stateful_set is None:
            return
        now, seconds = self._ctx.clock.now(), stateful_set["spec"].get("minReadySeconds", 0)
        pods = [pod for pod in self._by_ordinal(stateful_set).values() if not is_finished(pod)]
        live = [pod for pod in pods if not is_deleting(pod)]
        new, old = revisions.hash_of(update), self._current_hash(stateful_set, update)
        updated = sum(revisions.hash_of(pod) == new for pod in live)
        done = updated == len(live) == stateful_set["spec"].get("replicas", 1) and all(map(is_ready, live))
        old = new if done else old
        name = stateful_set["metadata"]["name"]
        counts = {
            "readyReplicas": sum(map(is_ready, live)),
            "currentReplicas": sum(revisions.hash_of(pod) == old for pod in live),
            "updatedReplicas": updated,
        }
        status = {
            "observedGeneration": stateful_set["metadata"].get("generation", 1),
            "replicas": len(pods),
            "availableReplicas": sum(is_available(pod, seconds, now) for pod in live),
            "currentRevision": f"{name}-{old}",
            "updateRevision": f"{name}-{new}",
            "collisionCount": 0,
            **{field: value for field, value in counts.items() if value},
        }
        await update_status(self._ctx, RESOURCE, stateful_set, status)
        await revisions.trim(self._ctx, stateful_set, {new, old, *map(revisions.hash_of, pods)})


def ordinal_of(pod: Object, stateful_set: Object) -> int:
    """Return the number in the Pod's name, -1 when it is not one of the set's names."""
    base, _, number = pod["metadata"]["name"].rpartition("-")
    return int(number) if base == stateful_set["metadata"]["name"] and number.isdigit() else -1


def stateful_pod(stateful_set: Object, template: Object, ordinal: int, hashed: str) -> Object:
    """Return the Pod with a number: its name, its host name under the Service's subdomain, its labels."""
    pod = pod_from_template(template, stateful_set)
    name = f"{stateful_set['metadata']['name']}-{ordinal}"
    pod["metadata"]["name"] = name
    pod["metadata"]["labels"].update(
        {
            revisions.HASH_LABEL: hashed,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(ordinal),
        }
    )
    pod["spec"]["hostname"] = name
    claims = {each["name"]: each["persistentVolumeClaim"] for each in _claim_volumes(stateful_set, ordinal)}
    if claims:
        others = [each for each in pod["spec"].get("volumes") or () if each["name"] not in claims]
        pod["spec"]["volumes"] = [*_claim_volumes(stateful_set, ordinal), *others]
    if stateful_set["spec"].get("serviceName"):
        pod["spec"]["subdomain"] = stateful_set["spec"]["serviceName"]
    return pod


def stateful_claims(stateful_set: Object, ordinal: int) -> list[Object]:
    """Return the claims of the Pod with a number: TEMPLATE-NAME-NUMBER, labelled as the set selects."""
    metadata, labels = stateful_set["metadata"], stateful_set["spec"]["selector"].get("matchLabels") or {}
    claims = []
    for template in stateful_set["spec"].get("volumeClaimTemplates") or ():
        own = {key: value for key, value in template["metadata"].items() if key in ("labels", "annotations")}
        own.update(name=f"{template['metadata']['name']}-{metadata['name']}-{ordinal}", namespace=metadata["namespace"])
        own["labels"] = {**(own.get("labels") or {}), **labels}
        if _retention(stateful_set, "whenDeleted") == "Delete":
            own["ownerReferences"] = [owner_reference(stateful_set)]
        spec = deep_copy(template["spec"])
        claims.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": own, "spec": spec})
    return claims


def _claim_volumes(stateful_set: Object, ordinal: int) -> list[Object]:
    templates = [each["metadata"]["name"] for each in stateful_set["spec"].get("volumeClaimTemplates") or ()]
    claims = [each["metadata"]["name"] for each in stateful_claims(stateful_set, ordinal)]
    return [
        {"name": name, "persistentVolumeClaim": {"claimName": claim_name}}
        for name, claim_name in zip(templates, claims, strict=True)
    ]


def _retention(stateful_set: Object, when: str) -> str:
    return str((stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}).get(when, "Retain"))
