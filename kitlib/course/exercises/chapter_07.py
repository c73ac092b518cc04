"""Chapter 07: declaring the application in files."""

from __future__ import annotations

from typing import Any

from kitlib import kubectl
from kitlib.course.exercise import NotAttempted, exercise
from kitlib.course.look import BOOTCAMP, deployment, is_ready, pods, read, require, require_settled

GREETING = "Good evening"


@exercise(
    "07.1",
    "A new greeting reaches the Pods",
    hints=[
        "Change the ConfigMap `greeting` first: in the file, and then `kubectl apply`.",
        "A running program keeps the environment it was started with, so its Pods must be replaced.",
        "`kubectl rollout restart deployment/kubernetes-bootcamp` replaces them, a few at a time.",
    ],
    solution='text = (cluster.folder / "config.yaml").read_text()\n'
    '(cluster.folder / "config.yaml").write_text(text.replace("Good morning", "Good evening"))\n'
    "%kubectl apply -f config.yaml\n"
    "%kubectl rollout restart deployment/kubernetes-bootcamp\n"
    "%kubectl rollout status deployment/kubernetes-bootcamp",
)
def new_greeting(cluster: Any, answer: Any) -> str:
    """The ConfigMap says `Good evening`, and so does the environment of every ready Pod."""
    config = read(cluster.core.read_namespaced_config_map, "ConfigMap", "greeting", cluster.namespace)
    text = (config.data or {}).get("GREETING", "")
    if text == "Good morning":
        raise NotAttempted("In the cluster, the ConfigMap `greeting` still says `Good morning`.")
    require(text == GREETING, f"The ConfigMap `greeting` says {text!r}, not {GREETING!r}.")
    require_settled(deployment(cluster, BOOTCAMP))
    running = [pod.metadata.name for pod in pods(cluster, f"app={BOOTCAMP}") if is_ready(pod)]
    require(running, f"No Pod of `{BOOTCAMP}` is ready.")
    heard = {name: _greeting_in(cluster, name) for name in running}
    without = [name for name, text in heard.items() if not text]
    first = "apply the Deployment with `envFrom` first, as in *A careful application*"
    require(not without, f"{len(without)} of {len(running)} Pods have no variable GREETING: {first}.")
    old = [name for name, text in heard.items() if text != GREETING]
    require(not old, f"The ConfigMap is new, but {len(old)} of {len(running)} Pods still have the old text.")
    return f"All {len(running)} Pods were started with the new text."


def _greeting_in(cluster: Any, pod: str) -> str:
    """Return what a Pod's program sees as GREETING."""
    return kubectl.run(["exec", pod, "--namespace", cluster.namespace, "--", "printenv", "GREETING"]).stdout.strip()


@exercise(
    "07.2",
    "A file for a careful application",
    hints=[
        "Begin with the Deployment in `kubernetes.yaml`: another name, another label, the same image.",
        "`readinessProbe`, `resources.requests` and `resources.limits` belong to the container.",
        "The selector must match the template's labels, and not those of the other app.",
    ],
    solution='text = (cluster.folder / "kubernetes.yaml").read_text()\n'
    '(cluster.folder / "careful.yaml").write_text(text.replace("name: kubernetes-bootcamp}", "name: careful}")\n'
    '    .replace("app: kubernetes-bootcamp", "app: careful"))\n'
    "%kubectl apply -f careful.yaml\n"
    "%kubectl rollout status deployment/careful",
)
def careful(cluster: Any, answer: Any) -> str:
    """A Deployment `careful` has a readiness probe, requests and limits, and was applied from a file."""
    found = deployment(cluster, "careful")
    applied = "kubectl.kubernetes.io/last-applied-configuration" in (found.metadata.annotations or {})
    applied = applied or any(entry.operation == "Apply" for entry in found.metadata.managed_fields or [])
    require(applied, "`careful` was not made with `kubectl apply`.")
    chosen = found.spec.selector.match_labels or {}
    require(
        chosen != {"app": BOOTCAMP}, f"`careful` selects app={BOOTCAMP}, the Pods of the other app: change its labels."
    )
    container = found.spec.template.spec.containers[0]
    require(container.readiness_probe, "Its container has no `readinessProbe`.")
    resources = container.resources
    require({"cpu", "memory"} <= set(resources.requests or {}), "`resources.requests` should name cpu and memory.")
    require("memory" in (resources.limits or {}), "`resources.limits` should name memory.")
    require_settled(found)
    return "Declared in a file, ready when it says so, and modest."
