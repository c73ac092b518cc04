"""Chapter 05: scaling."""

from __future__ import annotations

from typing import Any

from kitlib.course.exercise import NotAttempted, exercise
from kitlib.course.look import (
    BOOTCAMP,
    deployment,
    endpoints,
    is_ready,
    pods,
    real,
    require,
    require_available,
    service,
)


@exercise(
    "05.1",
    "Three replicas",
    hints=[
        "`kubectl scale` takes the object and `--replicas`.",
        "`%kubectl scale deployments/kubernetes-bootcamp --replicas=3`, then wait for the rollout.",
    ],
    solution="%kubectl scale deployments/kubernetes-bootcamp --replicas=3\n"
    "%kubectl rollout status deployment/kubernetes-bootcamp",
)
def three_replicas(cluster: Any, answer: Any) -> str:
    """The app has three available replicas."""
    found = deployment(cluster, BOOTCAMP)
    if found.spec.replicas == 2:
        raise NotAttempted(f"`{BOOTCAMP}` still asks for the 2 replicas that the text left it with.")
    require_available(found, 3)
    nodes = {pod.spec.node_name for pod in pods(cluster, f"app={BOOTCAMP}")}
    return f"Three Pods on {len(nodes)} node(s)."


@exercise(
    "05.2",
    "Mend the Service that leads nowhere",
    hints=[
        "Compare `%kubectl describe service lost` with `%kubectl get pods --show-labels`.",
        "A Service without endpoints has a selector that no ready Pod's labels match.",
        "`%kubectl set selector service/lost app=...` writes a new selector.",
    ],
    solution="%kubectl set selector service/lost app=kubernetes-bootcamp",
)
def lost_service(cluster: Any, answer: Any) -> str:
    """The Service `lost` leads to every ready Pod of the app."""
    found = service(cluster, "lost")
    behind = endpoints(cluster, "lost")
    ready = {pod.status.pod_ip for pod in pods(cluster, f"app={BOOTCAMP}") if is_ready(pod)}
    if found.spec.selector == {"app": "kubernetes-bootkamp"} and not behind:
        raise NotAttempted("`lost` is as your colleague left it.")
    selector = ",".join(f"{key}={value}" for key, value in (found.spec.selector or {}).items()) or "nothing"
    require(behind, f"`lost` selects `{selector}`, and no ready Pod carries that.")
    require(ready, f"No Pod of `{BOOTCAMP}` is ready: scale it up first.")
    require(behind == ready, f"`lost` leads to {len(behind)} Pod(s); {len(ready)} of the app are ready.")
    return f"`lost` is found: {len(behind)} Pod(s) answer."


@exercise(
    "05.3",
    "How many replicas does the load need?",
    hints=[
        "Each Pod can take `capacity` requests a second; the last Pod may have room to spare.",
        "Round up: `math.ceil(load / capacity)`. Then one more, so that one may die.",
    ],
    solution='answer = math.ceil(250 / 60) + 1\ncourse.check("05.3", answer)',
    needs_answer=True,
    needs_cluster=False,
)
def replicas_for_load(cluster: Any, answer: Any) -> str:
    """250 requests a second at 60 for each Pod, and one Pod may fail: six."""
    given = real(answer)
    require(given != 5, "Five carry the load; but when one of them dies, four do not.")
    require(given == int(given), f"{given:.3g} Pods cannot be had: they are whole.")
    require(given >= 5, f"{given:g} Pods answer {given * 60:g} requests a second at most.")
    require(given == 6, f"{given:g} would do, but one fewer would too.")
    return "Five carry 250 requests a second, and a sixth may die at any time."
