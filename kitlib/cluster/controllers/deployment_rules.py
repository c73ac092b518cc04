"""The arithmetic of a Deployment, without any API: surge, shares, revisions, progress.

Stands for `pkg/controller/deployment/util`. Every function reads objects and returns values; `deployment.py` acts.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from kitlib.cluster.clock import parse_time, rfc3339
from kitlib.cluster.controllers.common import with_condition
from kitlib.cluster.objects import NAME_ALPHABET, Object, annotation, condition

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
}
NO_DEADLINE = 2**31 - 1


def replicas(obj: Object) -> int:
    """Return the desired number of replicas."""
    return int(obj["spec"].get("replicas", 1))


def count(rs: Object | None, field: str) -> int:
    """Return a number from the status, 0 when absent."""
    return int(((rs or {}).get("status") or {}).get(field) or 0)


def scaled(value: Any, total: int, *, up: bool) -> int:
    """Resolve an int-or-percent against `total`, rounding up or down."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return math.ceil(share) if up else math.floor(share)
    return int(value)


def fenceposts(deployment: Object) -> tuple[int, int]:
    """Return `(max_surge, max_unavailable)`: surge rounded up, unavailable down; not both may be zero.

    A Deployment of 4 with the default 25 % may have 1 more and 1 less; one of 1 has 1 more and none less.
    Source: `ResolveFenceposts`.
    """
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = scaled(rolling.get("maxSurge", "25%"), replicas(deployment), up=True)
    unavailable = scaled(rolling.get("maxUnavailable", "25%"), replicas(deployment), up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas(deployment))


def min_available(deployment: Object) -> int:
    """Return how many Pods a rolling update must keep available."""
    return replicas(deployment) - fenceposts(deployment)[1]


def template_hash(template: Object, collisions: int) -> str:
    """Return the `pod-template-hash`: FNV-1a of the template, in the letters of generated names.

    The value differs from a Go control plane's (which differs between releases); its form does not.
    """
    value = 2166136261
    for byte in orjson.dumps(template, option=orjson.OPT_SORT_KEYS) + (str(collisions).encode() if collisions else b""):
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return "".join(NAME_ALPHABET[ord(digit) % len(NAME_ALPHABET)] for digit in str(value))


def same_template(rs: Object, deployment: Object) -> bool:
    """Tell whether the ReplicaSet's template is the Deployment's, the hash label not counted."""
    return _without_hash(rs["spec"]["template"]) == _without_hash(deployment["spec"]["template"])


def _without_hash(template: Object) -> Object:
    metadata = dict(template.get("metadata") or {})
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    metadata["labels"] = labels
    kept = {key: value for key, value in metadata.items() if value and key != "creationTimestamp"}
    return {**template, "metadata": kept}


def oldest_first(sets: list[Object]) -> list[Object]:
    """Return ReplicaSets by age, then name."""
    return sorted(sets, key=lambda rs: (rs["metadata"]["creationTimestamp"], rs["metadata"]["name"]))


def revision(obj: Object) -> int:
    """Return the revision annotation as a number, 0 when absent."""
    text = annotation(obj, REVISION)
    return int(text) if text.isdigit() else 0


def new_annotations(deployment: Object, rs: Object, number: int) -> dict[str, str]:
    """Return the annotations of the new ReplicaSet: the Deployment's own, the revision and the sizes.

    A ReplicaSet that is used again (undo) gets the next revision and remembers its former one.
    """
    annotations = dict(rs["metadata"].get("annotations") or {})
    own = deployment["metadata"].get("annotations") or {}
    annotations.update({key: value for key, value in own.items() if key not in NOT_COPIED})
    former = revision(rs)
    if former < number:
        if former:
            history = annotations.get(REVISION_HISTORY)
            annotations[REVISION_HISTORY] = f"{history},{former}" if history else str(former)
        annotations[REVISION] = str(number)
    return {**annotations, **size_annotations(deployment)}


def size_annotations(deployment: Object) -> dict[str, str]:
    """Return what each ReplicaSet remembers of the Deployment's size, for proportional scaling."""
    wanted = replicas(deployment)
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + fenceposts(deployment)[0])}


def new_set_size(deployment: Object, sets: list[Object], current: int) -> int:
    """Return the size that the new ReplicaSet may have now: as far as the surge allows.

    Args:
        deployment: The Deployment.
        sets: All its ReplicaSets.
        current: Size of the new ReplicaSet now.
    """
    wanted = replicas(deployment)
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return wanted
    room = wanted + fenceposts(deployment)[0] - sum(map(replicas, sets))
    return current + min(room, wanted - current) if room > 0 else current


def proportional_sizes(deployment: Object, active: list[Object]) -> dict[str, int]:
    """Return the sizes, by name, of the active ReplicaSets of a Deployment that is scaled in mid-rollout.

    Each gets its share of the change; what rounding leaves over goes to the largest.
    Source: `DeploymentController.scale` and `getReplicaSetFraction`.
    """
    wanted = replicas(deployment)
    allowed = wanted + fenceposts(deployment)[0] if wanted else 0
    to_add = allowed - sum(map(replicas, active))
    by_age = oldest_first(active)
    ordered = sorted(by_age[::-1] if to_add > 0 else by_age, key=replicas, reverse=True)
    sizes, added = {}, 0
    for rs in ordered:
        share = _share(deployment, rs, to_add, added)
        sizes[rs["metadata"]["name"]] = replicas(rs) + share
        added += share
    if ordered and to_add:
        largest = ordered[0]["metadata"]["name"]
        sizes[largest] = max(0, sizes[largest] + to_add - added)
    return sizes


def _share(deployment: Object, rs: Object, to_add: int, added: int) -> int:
    if replicas(rs) == 0 or to_add == 0 or to_add == added:
        return 0
    wanted = replicas(deployment)
    if wanted == 0:
        fraction = -replicas(rs)
    else:
        before = int(annotation(rs, MAXIMUM) or count(deployment, "replicas"))
        if before == 0:
            return 0
        fraction = round(replicas(rs) * (wanted + fenceposts(deployment)[0]) / before) - replicas(rs)
    limit = to_add - added
    return min(fraction, limit) if to_add > 0 else max(fraction, limit)


def old_set_sizes(deployment: Object, new: Object, old: list[Object]) -> dict[str, int]:
    """Return the old ReplicaSets, by name, that may shrink now, with their new sizes.

    First Pods that are not available go, from the oldest ReplicaSet on; then available ones, as many as the rest may
    spare. Source: `reconcileOldReplicaSets`.
    """
    everything = [*old, new]
    floor = min_available(deployment)
    new_unavailable = replicas(new) - count(new, "availableReplicas")
    spare = sum(map(replicas, everything)) - floor - new_unavailable
    sizes = {rs["metadata"]["name"]: replicas(rs) for rs in oldest_first(old)}
    if spare <= 0:
        return {}
    for rs in oldest_first(old):
        unhealthy = min(spare, max(0, replicas(rs) - count(rs, "availableReplicas")))
        sizes[rs["metadata"]["name"]] -= unhealthy
        spare -= unhealthy
    to_spare = sum(count(rs, "availableReplicas") for rs in everything) - floor
    for name, size in sizes.items():
        fewer = min(size, max(0, to_spare))
        sizes[name] -= fewer
        to_spare -= fewer
    return {
        rs["metadata"]["name"]: sizes[rs["metadata"]["name"]]
        for rs in old
        if sizes[rs["metadata"]["name"]] != replicas(rs)
    }


def is_saturated(deployment: Object, new: Object | None) -> bool:
    """Tell whether the new ReplicaSet alone is all that the Deployment wants."""
    wanted = replicas(deployment)
    return (
        new is not None
        and replicas(new) == wanted
        and annotation(new, DESIRED) == str(wanted)
        and count(new, "availableReplicas") == wanted
    )


def base_status(deployment: Object, new: Object | None, sets: list[Object], now: float) -> Object:
    """Return the status that follows from the ReplicaSets' own, progress not judged."""
    before = deployment.get("status") or {}
    total = sum(map(replicas, sets))
    available = sum(count(rs, "availableReplicas") for rs in sets)
    fields = {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        "replicas": sum(count(rs, "replicas") for rs in sets),
        "updatedReplicas": count(new, "replicas"),
        "readyReplicas": sum(count(rs, "readyReplicas") for rs in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total - available),
    }
    status = {name: value for name, value in fields.items() if value}
    status["terminatingReplicas"] = sum(count(rs, "terminatingReplicas") for rs in sets)
    if before.get("collisionCount"):
        status["collisionCount"] = before["collisionCount"]
    has, does = ("True", "has") if available >= min_available(deployment) else ("False", "does not have")
    reason = "MinimumReplicasAvailable" if has == "True" else "MinimumReplicasUnavailable"
    message = f"Deployment {does} minimum availability."
    conditions = before.get("conditions") or ()
    status["conditions"] = with_condition(
        conditions, "Available", has, reason, message, now, lastUpdateTime=rfc3339(now)
    )
    return status


def is_complete(deployment: Object, status: Object) -> bool:
    """Tell whether all replicas are of the new template and available, and none of an old one is left."""
    wanted = replicas(deployment)
    return all(status.get(name, 0) == wanted for name in ("updatedReplicas", "replicas", "availableReplicas"))


def has_progressed(before: Object, after: Object) -> bool:
    """Tell whether a status is a step forward: more updated, fewer old, more ready or more available."""

    def old_pods(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    more = any(
        after.get(name, 0) > before.get(name, 0) for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    return more or old_pods(after) < old_pods(before)


def deadline(deployment: Object) -> float | None:
    """Return `progressDeadlineSeconds`, None when there is none."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds in (None, NO_DEADLINE) else float(seconds)


def deadline_left(deployment: Object, status: Object, now: float) -> float | None:
    """Return seconds until the rollout counts as stuck; None when the clock does not tick."""
    progressing, limit = condition({"status": status}, "Progressing"), deadline(deployment)
    if (
        progressing is None
        or limit is None
        or progressing["reason"] in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded")
    ):
        return None
    return parse_time(progressing["lastUpdateTime"]) + limit - now


def progress(deployment: Object, new: Object | None, status: Object, now: float) -> list[Object]:
    """Return the conditions of `status` with Progressing judged: complete, a step further, or out of time."""
    conditions: list[Object] = status["conditions"]
    current = condition({"status": status}, "Progressing")
    if deadline(deployment) is None:
        return [item for item in conditions if item["type"] != "Progressing"]
    settled = current is not None and current["reason"] == "NewReplicaSetAvailable"
    if settled and status.get("replicas", 0) == status.get("updatedReplicas", 0):
        return conditions
    subject = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{deployment["metadata"]["name"]}"'
    stamp = {"lastUpdateTime": rfc3339(now)}
    if is_complete(deployment, status):
        text = f"{subject} has successfully progressed."
        return with_condition(conditions, "Progressing", "True", "NewReplicaSetAvailable", text, now, **stamp)
    if has_progressed(deployment.get("status") or {}, status):
        return _stepped(conditions, f"{subject} is progressing.", current, now)
    left = deadline_left(deployment, status, now)
    if left is not None and left < 0:
        text = f"{subject} has timed out progressing."
        return with_condition(conditions, "Progressing", "False", "ProgressDeadlineExceeded", text, now, **stamp)
    return conditions


def _stepped(conditions: list[Object], message: str, current: Object | None, now: float) -> list[Object]:
    """Renew the Progressing condition even when it says the same: its `lastUpdateTime` starts the deadline anew."""
    others = [item for item in conditions if item["type"] != "Progressing"]
    new = with_condition([], "Progressing", "True", "ReplicaSetUpdated", message, now, lastUpdateTime=rfc3339(now))
    if current is not None and current["status"] == "True":
        new[0]["lastTransitionTime"] = current["lastTransitionTime"]
    return others + new
