"""The folder in which the kit keeps what must outlive a process: clusters, kubeconfig copies, progress."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from kitlib.errors import KitError


def kit_home() -> Path:
    """Return `$KIT_HOME`, else the user's state folder (`~/.local/state/kit` on Linux).

    Raises:
        KitError: There is neither, as in a container with a user id that has no name.
    """
    try:
        return Path(os.environ.get("KIT_HOME") or platformdirs.user_state_dir("kit")).expanduser().absolute()
    except RuntimeError as error:
        raise KitError("you have no home folder here: set KIT_HOME to a folder of yours") from error
