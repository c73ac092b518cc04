"""A learning kit: Kubernetes from numbered notebooks, then PyTorch DDP on it.

`connect` chooses the cluster; `course` holds the exercises, `kubectl` the real kubectl, `views` the pictures and
`train` the training job. The parts are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kitlib.connect import connect
from kitlib.errors import KitError

if TYPE_CHECKING:
    from kitlib import course, kubectl, train, views

__all__ = ["KitError", "connect", "course", "kubectl", "train", "views"]


def __getattr__(name: str) -> Any:
    """Import `course`, `kubectl`, `train` or `views` on first use."""
    if name in __all__:
        return importlib.import_module(f"kitlib.{name}")
    raise AttributeError(f"module 'kitlib' has no attribute {name!r}")
