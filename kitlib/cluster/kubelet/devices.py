"""GPUs of a node: real ones, found with NVML, or simulated ones, each bound to CPU cores of its own.

Stands for the device manager and NVIDIA's device plugin. A simulated GPU is never mistaken for a real one: the node's
label says so, and the container's environment too.
"""

from __future__ import annotations

import os

from kitlib.cluster.config import NodeConfig
from kitlib.cluster.gpus import find_gpus, has_driver

RESOURCE = "nvidia.com/gpu"


class Devices:
    """The GPUs that one node offers, and which Pod holds which.

    Args:
        config: The node; `gpus` are offered, numbered from `gpu_offset` on the machine.

    Attributes:
        real: What NVML says when the machine has enough real GPUs, else None.
    """

    def __init__(self, config: NodeConfig) -> None:
        """Look for real GPUs if any are wanted."""
        self._config = config
        found = find_gpus() if config.gpus else None
        self.real = found if found and found.count >= config.gpu_offset + config.gpus else None
        self._holders: dict[int, str] = {}

    @property
    def count(self) -> int:
        """GPUs that the node offers."""
        return self._config.gpus

    def labels(self) -> dict[str, str]:
        """Return the node labels that tell what its GPUs are."""
        if not self.count:
            return {}
        if self.real is None:
            return {"kit/gpu": "simulated", "nvidia.com/gpu.count": str(self.count)}
        return {
            "kit/gpu": "real",
            "nvidia.com/gpu.count": str(self.count),
            "nvidia.com/gpu.product": self.real.product,
            "nvidia.com/gpu.memory": str(self.real.memory_mib),
        }

    def allocate(self, holder: str, wanted: int) -> list[int] | None:
        """Give free GPUs to a container; None when there are too few.

        Args:
            holder: Pod uid and container name.
            wanted: How many.

        Returns:
            Their numbers on the machine.
        """
        held = [gpu for gpu, name in self._holders.items() if name == holder]
        if held:
            return held
        free = [gpu for gpu in self._all() if gpu not in self._holders]
        if len(free) < wanted:
            return None
        self.keep(holder, free[:wanted])
        return free[:wanted]

    def _all(self) -> range:
        return range(self._config.gpu_offset, self._config.gpu_offset + self.count)

    def held(self) -> int:
        """Return how many GPUs are given out."""
        return len(self._holders)

    def keep(self, holder: str, gpus: list[int]) -> None:
        """Note GPUs that a container already holds."""
        self._holders.update(dict.fromkeys(gpus, holder))

    def release(self, uid: str) -> None:
        """Take back what the containers of a Pod hold."""
        self._holders = {gpu: name for gpu, name in self._holders.items() if not name.startswith(uid)}

    def environment(self, gpus: list[int]) -> dict[str, str]:
        """Return the variables that tell a container which GPUs are its own."""
        numbers = ",".join(map(str, gpus))
        if self.real is not None:
            return {"CUDA_VISIBLE_DEVICES": numbers, "NVIDIA_VISIBLE_DEVICES": numbers or "void"}
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if has_driver() else {}
        return {**hidden, **({"KIT_SIMULATED_GPU": numbers} if gpus else {})}

    def cores(self, gpus: list[int]) -> list[int] | None:
        """Return the CPU cores of simulated GPUs, one each; None leaves a container all cores."""
        if self.real is not None or not gpus or not hasattr(os, "sched_getaffinity"):
            return None
        cores = sorted(os.sched_getaffinity(0))
        return sorted({cores[gpu % len(cores)] for gpu in gpus})
