"""Adds the embedded cluster to a kubeconfig of the user's, on request only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml


def merge_into(target: Path, source: Path) -> None:
    """Add the cluster, user and context of one kubeconfig to another; the current context stays as it is.

    Args:
        target: Kubeconfig to change, such as `~/.kube/config`; made (mode 0600) when missing. Entries of the same
            name are replaced.
        source: Kubeconfig to take the entries from.
    """
    new: dict[str, Any] = yaml.safe_load(source.read_text())
    old: dict[str, Any] = yaml.safe_load(target.read_text()) or {} if target.exists() else {}
    merged = {"apiVersion": "v1", "kind": "Config", **old}
    for section in ("clusters", "users", "contexts"):
        names = {entry["name"] for entry in new[section]}
        merged[section] = [entry for entry in old.get(section) or [] if entry["name"] not in names] + new[section]
    merged.setdefault("current-context", new["current-context"])
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".kit")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        yaml.safe_dump(merged, handle, sort_keys=False)
    os.replace(temporary, target)
