"""A controller manager that dies at any moment and starts again ends in the same state."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from lab import Lab, deployment, job, settle

from kitlib.cluster.controllers import CONTROLLERS, run
from kitlib.cluster.controllers.horizontalpodautoscaler import HorizontalPodAutoscalerController
from kitlib.cluster.controllers.nodelifecycle import NodeLifecycleController


async def _work_with_crashes(lab: Lab, seed: int, finished: Any) -> None:
    """Run the controllers, cancel them after a few steps, start them again, until `finished()`."""
    chance = random.Random(seed)
    chosen = tuple(each for each in CONTROLLERS if each is not NodeLifecycleController)

    async def crash_often() -> None:
        while True:
            manager = asyncio.ensure_future(run(lab.server.client, chosen, lab.config, lab.clock))
            try:
                await settle(chance.randrange(20, 120))
                await asyncio.sleep(chance.random() * 0.01)
            finally:
                manager.cancel()
                await asyncio.gather(manager, return_exceptions=True)

    crashing = asyncio.ensure_future(crash_often())
    try:
        await lab.until(finished)
    finally:
        crashing.cancel()
        await asyncio.gather(crashing, return_exceptions=True)


def _finish_when_running(lab: Lab, pods: list[dict[str, Any]]) -> None:
    for pod in pods:
        if pod["status"].get("phase") == "Running":
            lab.spawn(lab.finish(pod["metadata"]["name"]))


@pytest.mark.parametrize("mode", ["Indexed", "NonIndexed"])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_job_counts_every_pod_once(lab: Lab, mode: str, seed: int) -> None:
    lab.start(HorizontalPodAutoscalerController)
    spec = job("work", completions=6, parallelism=3, completionMode=mode)
    await lab.client.create("jobs.batch", spec, "default")

    async def complete() -> bool:
        _finish_when_running(lab, await lab.list("pods"))
        status = (await lab.get("jobs.batch", "work"))["status"]
        return any(item["type"] == "Complete" for item in status.get("conditions", []))

    await _work_with_crashes(lab, seed, complete)
    status = (await lab.get("jobs.batch", "work"))["status"]
    assert (status["succeeded"], status.get("failed", 0), status["uncountedTerminatedPods"]) == (6, 0, {})
    phases = Counter(item["status"]["phase"] for item in await lab.list("pods"))
    assert phases == {"Succeeded": 6}


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_rollout_ends_with_the_wanted_pods_and_no_more(lab: Lab, seed: int) -> None:
    lab.start(HorizontalPodAutoscalerController)
    await lab.client.create("deployments.apps", deployment("web", 5), "default")
    images: Counter[str] = Counter()

    async def settled(image: str) -> bool:
        found = await lab.get("deployments.apps", "web")
        status = found["status"]
        numbers = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        pods = await lab.list("pods")
        images.clear()
        images.update(item["spec"]["containers"][0]["image"] for item in pods)
        return status.get("observedGeneration") == found["metadata"]["generation"] and (numbers, images) == (
            [5, 5, 5],
            Counter({image: 5}),
        )

    await _work_with_crashes(lab, seed, lambda: settled("web:v1"))
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:v2"}]}}}}
    await lab.client.patch("deployments.apps", "web", patch, "default")
    await _work_with_crashes(lab, seed, lambda: settled("web:v2"))
    assert len(await lab.list("replicasets.apps")) == 2
