"""The machine's own GPUs, as NVML tells them."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class RealGPUs:
    """What NVML says about the machine's GPUs."""

    count: int
    product: str
    memory_mib: int


def has_driver() -> bool:
    """Tell whether the machine has NVIDIA's driver, be it through WSL."""
    return any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg")))


def find_gpus() -> RealGPUs | None:
    """Ask NVML for the machine's GPUs; None without driver or GPU."""
    if not has_driver():
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None
    try:
        count = int(pynvml.nvmlDeviceGetCount())
        if not count:
            return None
        first = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(first)
        product = (name.decode() if isinstance(name, bytes) else name).replace(" ", "-")
        return RealGPUs(count, product, int(pynvml.nvmlDeviceGetMemoryInfo(first).total) >> 20)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
