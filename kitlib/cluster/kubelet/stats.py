"""What the Pods of this node use: the Summary API and the kubelet's Prometheus metrics.

Stands for `pkg/kubelet/server/stats`. A node is a share of a machine here, so its own use is that of
its Pods and its kubelet. File systems and networks are left out.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import psutil

from kitlib.cluster.clock import rfc3339_now
from kitlib.cluster.kubelet.pod_manager import PodManager

SHORTEST_WINDOW, LONGEST_WINDOW = 0.2, 60.0
Usage = dict[tuple[str, str, str], tuple[int, int]]
"""CPU nanoseconds and memory bytes by namespace, Pod and container; the kubelet itself is `("", "", "")`."""
KUBELET = ("", "", "")


@dataclass(frozen=True)
class Sample:
    """Use at one moment."""

    at: float
    usage: Usage


class Stats:
    """Measures the containers of a node.

    Args:
        node: Name of the node.
        pods: Its Pods.
    """

    def __init__(self, node: str, pods: PodManager) -> None:
        self._node = node
        self._pods = pods
        self._last: Sample | None = None

    async def sample(self) -> Sample:
        """Measure now."""
        usage: Usage = {KUBELET: (time.process_time_ns(), psutil.Process().memory_info().rss)}
        for (namespace, pod), containers in (await self._pods.stats()).items():
            usage |= {(namespace, pod, name): used for name, used in containers.items()}
        return Sample(time.monotonic(), usage)

    async def _window(self) -> tuple[Sample, Sample]:
        """Return two samples, far enough from each other for a rate and not too far."""
        earlier, now = self._last, await self.sample()
        if earlier is None or now.at - earlier.at > LONGEST_WINDOW:
            earlier = now
        if now.at - earlier.at < SHORTEST_WINDOW:
            await asyncio.sleep(SHORTEST_WINDOW)
            now = await self.sample()
        self._last = now
        return earlier, now

    async def summary(self) -> dict[str, Any]:
        """Return the answer of `/stats/summary`."""
        earlier, now = await self._window()
        moment = rfc3339_now()

        def stats(*keys: tuple[str, str, str]) -> dict[str, Any]:
            total = sum(now.usage[key][0] for key in keys)
            used = sum(now.usage[key][0] - earlier.usage.get(key, now.usage[key])[0] for key in keys)
            memory = sum(now.usage[key][1] for key in keys)
            rate = round(max(0, used) / (now.at - earlier.at))
            return {
                "cpu": {"time": moment, "usageNanoCores": rate, "usageCoreNanoSeconds": total},
                "memory": {"time": moment, "usageBytes": memory, "workingSetBytes": memory, "rssBytes": memory},
            }

        pods = []
        for pod in self._pods.pods():
            meta = pod.pod["metadata"]
            keys = [key for key in now.usage if key[:2] == (meta["namespace"], meta["name"]) and key != KUBELET]
            if keys:
                reference = {name: meta[name] for name in ("name", "namespace", "uid")}
                containers = [{"name": key[2], **stats(key)} for key in keys]
                pods.append({"podRef": reference, "containers": containers, **stats(*keys)})
        return {"node": {"nodeName": self._node, **stats(*now.usage)}, "pods": pods}

    async def metrics(self) -> str:
        """Return the answer of `/metrics/resource`."""
        usage = (await self.sample()).usage
        containers = {key: used for key, used in usage.items() if key != KUBELET}
        lines = []
        for metric, kind, column, unit in (
            ("cpu_usage_seconds_total", "counter", 0, 1e-9),
            ("memory_working_set_bytes", "gauge", 1, 1),
        ):
            lines.append(f"# TYPE container_{metric} {kind}")
            for (namespace, pod, name), used in containers.items():
                labels = f'container="{name}",namespace="{namespace}",pod="{pod}"'
                lines.append(f"container_{metric}{{{labels}}} {used[column] * unit:g}")
            lines.append(f"# TYPE node_{metric} {kind}")
            lines.append(f"node_{metric} {sum(used[column] for used in usage.values()) * unit:g}")
        return "\n".join([*lines, "# TYPE resource_scrape_error gauge", "resource_scrape_error 0", ""])
