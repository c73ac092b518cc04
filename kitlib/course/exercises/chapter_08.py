"""Chapter 08: Jobs, and the failure lab."""

from __future__ import annotations

from typing import Any

from kubernetes.utils.quantity import parse_quantity

from kitlib.course.exercise import NotAttempted, exercise
from kitlib.course.look import deployment, image, read, require, require_settled

GPU = "nvidia.com/gpu"
NEEDED = 131 << 20
"""Bytes that the hungry program has in use: for a moment, before it is killed, it looks well with less."""


@exercise(
    "08.1",
    "Six tasks, two at a time",
    hints=[
        "`completions` says how many Pods must succeed, `parallelism` how many may run at once.",
        "Take the YAML of the Job `squares` and change its name and two numbers.",
    ],
    solution="%%kubectl apply -f -\n"
    "apiVersion: batch/v1\n"
    "kind: Job\n"
    "metadata: {name: six}\n"
    "spec:\n"
    "  completions: 6\n"
    "  parallelism: 2\n"
    "  template:\n"
    "    spec:\n"
    "      restartPolicy: Never\n"
    "      containers: [{name: task, image: busybox, command: [sh, -c, echo done]}]",
)
def six_tasks(cluster: Any, answer: Any) -> str:
    """A Job `six` has six completions, parallelism 2, and has succeeded."""
    job = read(cluster.batch.read_namespaced_job, "Job", "six", cluster.namespace)
    require(job.spec.completions == 6, f"`six` wants {job.spec.completions} completions, not 6.")
    require(job.spec.parallelism == 2, f"`six` runs {job.spec.parallelism} at once, not 2.")
    failed = [c.reason for c in job.status.conditions or [] if c.type == "Failed" and c.status == "True"]
    require(not failed, f"`six` failed: {failed[0] if failed else ''}. Look at its Pods' logs, delete it, try again.")
    done = job.status.succeeded or 0
    require(done == 6, f"{done} of 6 Pods have succeeded: wait a moment, check again.")
    return "Six Pods succeeded, never more than two at once."


@exercise(
    "08.2",
    "The Pod that waits for GPUs",
    hints=[
        "Its events say which resource is missing. How many does one node have?",
        "A Pod runs on one node, so it can have at most what one node has.",
        "`%kubectl set resources deployment/needs-gpu --limits=nvidia.com/gpu=N`.",
    ],
    solution="nodes = cluster.core.list_node().items\n"
    'most = max(int(node.status.allocatable.get("nvidia.com/gpu", 0)) for node in nodes)\n'
    "wish = min(1, most)\n"
    "%kubectl set resources deployment/needs-gpu --limits=nvidia.com/gpu={wish}\n"
    "%kubectl rollout status deployment/needs-gpu",
)
def needs_gpu(cluster: Any, answer: Any) -> str:
    """`needs-gpu` asks for no more GPUs than a node has, and runs."""
    found = deployment(cluster, "needs-gpu")
    resources = found.spec.template.spec.containers[0].resources
    limits = (resources and resources.limits) or {}
    wanted = int(limits.get(GPU, 0))
    if wanted == 64:
        raise NotAttempted("`needs-gpu` still asks for 64 GPUs.")
    most = max(int((node.status.allocatable or {}).get(GPU, 0)) for node in cluster.core.list_node().items)
    require(wanted <= most, f"It asks for {wanted} GPUs; the largest node has {most}.")
    require(wanted or not most, "It runs without a GPU, but this cluster has some: ask for one.")
    require_settled(found)
    return f"It asks for {wanted} GPU(s) and runs."


@exercise(
    "08.3",
    "The one that eats too much",
    hints=[
        "Exit code 137 is 128 + 9: killed. The reason stands in the container's last state.",
        "The program loads about 120 MB; its limit is smaller.",
        "`%kubectl set resources deployment/hungry --limits=memory=256Mi`.",
    ],
    solution="%kubectl set resources deployment/hungry --limits=memory=256Mi\n"
    "%kubectl rollout status deployment/hungry",
)
def hungry(cluster: Any, answer: Any) -> str:
    """`hungry` has a memory limit, large enough, and runs."""
    found = deployment(cluster, "hungry")
    resources = found.spec.template.spec.containers[0].resources
    limit = ((resources and resources.limits) or {}).get("memory")
    if limit == "64Mi":
        raise NotAttempted("The limit of `hungry` is still 64Mi.")
    size = int(parse_quantity(limit or 0))
    require(size, "`hungry` has no memory limit now. It runs, but it could take a whole node down: set one.")
    require(size >= NEEDED, f"{limit} is too little: the program loads 120Mi, and Python itself needs about ten more.")
    require_settled(found)
    return f"With a limit of {limit} it has enough."


@exercise(
    "08.4",
    "The crash loop and the bad image",
    hints=[
        "`kubectl logs --previous` shows the last words of a container that crashed.",
        "`crasher` misses a variable: `kubectl set env deployment/crasher TOKEN=...` sets one.",
        "`typo` has an image that does not exist: compare it with `busybox`, letter by letter.",
    ],
    solution="%kubectl set env deployment/crasher TOKEN=secret\n"
    "%kubectl set image deployment/typo main=busybox\n"
    "%kubectl rollout status deployment/crasher\n"
    "%kubectl rollout status deployment/typo",
)
def crash_and_typo(cluster: Any, answer: Any) -> str:
    """`crasher` has its variable, `typo` an image that exists, and both run."""
    crasher, typo = deployment(cluster, "crasher"), deployment(cluster, "typo")
    container = crasher.spec.template.spec.containers[0]
    named = [entry.name for entry in container.env or []]
    mended = "TOKEN" in named or bool(container.env_from), "busibox" not in image(typo)
    if not any(mended):
        raise NotAttempted("`crasher` has no variable TOKEN, and `typo` still wants the image `busibox`.")
    require(mended[0], "`typo` is mended; `crasher` still has no variable TOKEN.")
    require(mended[1], "`crasher` is mended; `typo` still wants the image `busibox`.")
    require_settled(crasher)
    require_settled(typo)
    return "Both run. The log named one fault, the events the other."
