"""Chapter 06: rolling updates."""

from __future__ import annotations

from typing import Any

from kitlib.course.exercise import NotAttempted, exercise
from kitlib.course.look import BOOTCAMP, deployment, image, require, require_settled


@exercise(
    "06.1",
    "Never fewer than wanted",
    hints=[
        "`spec.strategy.rollingUpdate` of the Deployment says how many Pods may be missing or too many.",
        "`kubectl patch deployment NAME -p '{...}'` changes a part of the spec; `kubectl explain "
        "deployment.spec.strategy.rollingUpdate` names the fields.",
        "`maxUnavailable` must be 0 and `maxSurge` 1; then set the image to `...:v1` to roll.",
    ],
    solution="%kubectl patch deployment kubernetes-bootcamp -p "
    '\'{"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}}\'\n'
    "%kubectl set image deployments/kubernetes-bootcamp "
    "kubernetes-bootcamp=gcr.io/google-samples/kubernetes-bootcamp:v1\n"
    "%kubectl rollout status deployments/kubernetes-bootcamp",
)
def never_fewer(cluster: Any, answer: Any) -> str:
    """The app rolled to v1 with maxUnavailable 0 and maxSurge 1."""
    found = deployment(cluster, BOOTCAMP)
    rolling = found.spec.strategy.rolling_update
    settings = (str(rolling.max_unavailable), str(rolling.max_surge)) if rolling else ("none", "none")
    if settings == ("25%", "25%"):
        raise NotAttempted("The strategy is still the default: maxUnavailable 25%, maxSurge 25%.")
    require(settings[0] in ("0", "0%"), f"maxUnavailable is {settings[0]}: some Pods may still be missing.")
    require(settings[1] == "1", f"maxSurge is {settings[1]}, not 1.")
    require(image(found).endswith(":v1"), f"The image is still `{image(found)}`.")
    require_settled(found)
    return "One new Pod must be ready before one old Pod may go."


@exercise(
    "06.2",
    "Out of a bad release",
    hints=[
        "Start the bad release with the `v99` image, look at it, and then go back.",
        "`kubectl rollout undo` goes back to the revision before.",
    ],
    solution="%kubectl set image deployments/kubernetes-bootcamp "
    "kubernetes-bootcamp=gcr.io/google-samples/kubernetes-bootcamp:v99\n"
    "%kubectl rollout undo deployments/kubernetes-bootcamp\n"
    "%kubectl rollout status deployments/kubernetes-bootcamp",
)
def out_of_a_bad_release(cluster: Any, answer: Any) -> str:
    """A ReplicaSet of v99 exists, has no replicas any more, and the app is whole."""
    found = deployment(cluster, BOOTCAMP)
    sets = cluster.apps.list_namespaced_replica_set(cluster.namespace, label_selector=f"app={BOOTCAMP}").items
    bad = [item for item in sets if image(item).endswith(":v99")]
    if not bad:
        raise NotAttempted("No release of `:v99` has been tried yet.")
    require(not image(found).endswith(":v99"), "The Deployment still wants `:v99`.")
    require(not any(item.spec.replicas for item in bad), "The ReplicaSet of `:v99` still has replicas: wait a moment.")
    require_settled(found)
    return f"Back on `{image(found)}`, with the failed attempt kept in the history."
