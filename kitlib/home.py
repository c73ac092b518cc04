"""The folder in which the kit keeps what must outlive a process: clusters, kubeconfig copies, progress."""

from __future__ import annotations

import os
from pathlib import Path

from kitlib.errors import KitError

ROOM = 1 << 20
"""Bytes that a folder must take before work begins that would end in it."""


def kit_home() -> Path:
    """Return `$KIT_HOME`, else the user's state folder (`~/.local/state/kit` on Linux).

    Raises:
        KitError: There is neither, as in a container with a user id that has no name.
    """
    import platformdirs

    try:
        return Path(os.environ.get("KIT_HOME") or platformdirs.user_state_dir("kit")).expanduser().absolute()
    except RuntimeError as error:
        raise KitError("you have no home folder here: set KIT_HOME to a folder of yours") from error


def working_directory_is_gone() -> bool:
    """Return whether somebody deleted the folder that this process works in."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def prove_writable(folder: Path) -> None:
    """Make a folder and write a file of `ROOM` bytes into it that is gone at once.

    Raises:
        OSError: The place is full, forbidden or no folder.
    """
    import tempfile

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(ROOM))
