"""Which kubectl the kit runs, and how to get one: the program itself is Kubernetes' own, never part of the kit."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import urllib.request
from pathlib import Path

from kitlib.errors import KitError
from kitlib.home import kit_home

PINNED_VERSION = "v1.36.2"
"""What `download` fetches."""

DOWNLOADS = "https://dl.k8s.io/release"

HOW_TO_GET_IT = (
    "Get it with `conda install -c conda-forge kubernetes-client`, or from https://kubernetes.io/docs/tasks/tools/, "
    "or let the kit fetch it: `python -c 'from kitlib import kubectl; kubectl.download()'` (about 60 MB)."
)


def installed() -> str | None:
    """Return the path of kubectl: `$KIT_KUBECTL`, the one on PATH, or the one in KIT_HOME/bin; None without any."""
    own = kit_home() / "bin" / "kubectl"
    return shutil.which(os.environ.get("KIT_KUBECTL") or "kubectl") or (str(own) if os.access(own, os.X_OK) else None)


def find_kubectl() -> str:
    """Return the path of kubectl, see `installed`; fetch it if there is none and `KIT_DOWNLOAD_KUBECTL` is 1.

    Raises:
        KitError: There is none; the message says how to get it.
    """
    found = installed()
    if found:
        return found
    if os.environ.get("KIT_DOWNLOAD_KUBECTL") == "1":
        return str(download())
    raise KitError(f"kubectl is not installed. {HOW_TO_GET_IT}")


def download(version: str = PINNED_VERSION) -> Path:
    """Fetch kubectl into KIT_HOME/bin and check it against the checksum that Kubernetes publishes.

    Args:
        version: A release such as `v1.36.2`.

    Returns:
        Path of the program.

    Raises:
        KitError: No network, or the checksum differs; nothing is left behind then.
    """
    system = platform.system().lower()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    url = f"{DOWNLOADS}/{version}/bin/{system}/{machine}/kubectl"
    target = kit_home() / "bin" / "kubectl"
    try:
        wanted = _fetch(f"{url}.sha256").decode().split()[0]
        program = _fetch(url)
    except OSError as error:
        raise KitError(f"Could not fetch {url} ({error}). Is there a network?") from error
    if hashlib.sha256(program).hexdigest() != wanted:
        raise KitError(f"{url} does not match its checksum; it was thrown away. Try again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".kubectl-{os.getpid()}")
    partial.write_bytes(program)
    partial.chmod(partial.stat().st_mode | stat.S_IXUSR)
    os.replace(partial, target)
    return target


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())
