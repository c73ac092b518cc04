"""The folder in which the kit keeps what must outlive a process: clusters, kubeconfig copies, progress."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def kit_home() -> Path:
    """Return `$KIT_HOME`, else the user's state folder (`~/.local/state/kit` on Linux)."""
    configured = os.environ.get("KIT_HOME")
    return Path(configured).expanduser().absolute() if configured else Path(platformdirs.user_state_dir("kit"))
