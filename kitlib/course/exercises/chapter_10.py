"""Chapter 10: a training run on the cluster."""

from __future__ import annotations

import json
from typing import Any

from kitlib.course.exercise import exercise
from kitlib.course.look import number, pods, read, real, require


@exercise(
    "10.1",
    "One worker too many",
    hints=[
        "How many GPUs can Pods ask for? `train.preflight(...)` counts them. Ask for one worker more than that.",
        'Give the run a name: `train.submit(workers=..., name="too-many")`. Then `print(run.explain())`.',
    ],
    solution='too_many = train.submit(workers=gpus + 1, gpus_per_worker=1, name="too-many")\n'
    'too_many.wait(until=lambda records: "wait" in too_many.explain())\n'
    "print(too_many.explain())",
)
def too_many(cluster: Any, answer: Any) -> str:
    """A run `too-many` has a worker that waits for a GPU."""
    job = read(cluster.batch.read_namespaced_job, "Job", "too-many", cluster.namespace)
    found = pods(cluster, "batch.kubernetes.io/job-name=too-many")
    waiting = [pod for pod in found if pod.status.phase == "Pending" and not pod.spec.node_name]
    running = len(found) - len(waiting)
    require(len(found) == job.spec.completions, f"{len(found)} of {job.spec.completions} Pods exist: check again.")
    require(waiting, f"All {len(found)} workers found a place: ask for more of them.")
    require(len(waiting) == 1, f"{len(waiting)} workers wait. One more than the cluster has GPUs is enough.")
    return f"{running} workers hold their GPUs and do nothing, because one waits. That is why queues like Kueue exist."


@exercise(
    "10.2",
    "Find the straggler",
    hints=[
        'Two heat maps: `slow.plot("heat_map", value="t_compute")`, and the same with `value="t_wait"`.',
        "A slow rank computes long and waits little. The others compute quickly and wait for it.",
    ],
    solution='slow.plot("heat_map")\nanswer = workers - 1\ncourse.check("10.2", answer)',
    needs_answer=True,
)
def straggler(cluster: Any, answer: Any) -> str:
    """The rank that the run `straggler` was told to slow down."""
    job = read(cluster.batch.read_namespaced_job, "Job", "straggler", cluster.namespace)
    slow = json.loads(job.metadata.annotations["kit/train"])["settings"]["slow_rank"]
    require(number(answer) == slow, f"Rank {answer} waits for another one: look at `t_compute`, not at the whole step.")
    return f"Rank {slow} computes longest in every step, and DDP makes all the others wait for it."


@exercise(
    "10.3",
    "How much of the ideal",
    hints=[
        "Ideal is N times the rate of one GPU without DDP.",
        "`100 * 2_400_000 / (8 * 350_000)`",
    ],
    solution='answer = 100 * 2_400_000 / (8 * 350_000)\ncourse.check("10.3", answer)',
    needs_answer=True,
    needs_cluster=False,
)
def efficiency(cluster: Any, answer: Any) -> str:
    """8 GPUs at 2.4 million tokens/s, one at 350 thousand: 85.7 %."""
    given = real(answer, "a number of percent")
    require(abs(100 * given - 85.7) >= 0.6, "Nearly: give it in percent.")
    require(abs(given - 85.7) < 0.6, f"{given:.4g} % it is not. Divide by what eight GPUs would do ideally.")
    return "About 86 %. The other 14 % are not lost to the network alone: part of them is the machine's."
