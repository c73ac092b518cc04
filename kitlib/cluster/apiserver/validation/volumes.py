"""Rules for the volumes of a Pod.

Stands for `ValidateVolumes` in `pkg/apis/core/validation`. Left out: the finer rules of rarely used volumes.
"""

from __future__ import annotations

from collections.abc import Sequence

from kitlib.cluster import quantity
from kitlib.cluster.apiserver.validation.fielderrors import (
    FieldErrors,
    dns_label,
)
from kitlib.cluster.objects import Object


def check_volumes(found: FieldErrors, volumes: Sequence[Object], path: str) -> set[str]:
    """Check a Pod's volumes; returns their names."""
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        sources = [key for key in volume if key != "name"]
        if not sources:
            found.required(where, "must specify a volume type")
        for extra in sources[1:]:
            found.forbidden(f"{where}.{extra}", "may not specify more than 1 volume type")
        _check_volume_source(found, volume, where)
        found.named(f"{where}.name", name, dns_label)
        found.unique(f"{where}.name", name, names)
    return names


_VOLUME_REFERENCES = (
    ("configMap", "name"),
    ("secret", "secretName"),
    ("persistentVolumeClaim", "claimName"),
    ("hostPath", "path"),
)


def _check_volume_source(found: FieldErrors, volume: Object, path: str) -> None:
    for source, name in _VOLUME_REFERENCES:
        if source in volume:
            found.all_there(volume[source], name, path=f"{path}.{source}")
        _check_items(found, volume, source, path)
    _check_downward(found, volume, path)
    for index, part in enumerate((volume.get("projected") or {}).get("sources") or ()):
        where = f"{path}.projected.sources[{index}]"
        for source in ("configMap", "secret"):
            _check_items(found, part, source, where)
        _check_downward(found, part, where)
        if "serviceAccountToken" in part:
            _check_file(found, part["serviceAccountToken"], f"{where}.serviceAccountToken")
    limit = (volume.get("emptyDir") or {}).get("sizeLimit")
    if limit is not None and quantity.parse(limit) < 0:
        found.forbidden(f"{path}.emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity")
    mode = next(
        (volume[name]["defaultMode"] for name in ("configMap", "secret") if "defaultMode" in volume.get(name, {})), 0
    )
    if not 0 <= mode <= 0o777:
        source = "configMap" if "configMap" in volume else "secret"
        text = "must be a number between 0 and 0777 (octal), both inclusive"
        found.invalid(f"{path}.{source}.defaultMode", mode, text)


def _check_items(found: FieldErrors, volume: Object, source: str, path: str) -> None:
    for index, item in enumerate((volume.get(source) or {}).get("items") or ()):
        where = f"{path}.{source}.items[{index}]"
        found.all_there(item, "key", path=where)
        _check_file(found, item, where)


def _check_downward(found: FieldErrors, volume: Object, path: str) -> None:
    for index, item in enumerate((volume.get("downwardAPI") or {}).get("items") or ()):
        _check_file(found, item, f"{path}.downwardAPI.items[{index}]")


def _check_file(found: FieldErrors, item: Object, path: str) -> None:
    """Check where in its volume a file goes: nowhere else."""
    if not item.get("path"):
        found.required(f"{path}.path")
    else:
        check_local_path(found, item["path"], f"{path}.path")
        if item["path"].startswith("..") and not item["path"].startswith("../"):
            found.invalid(f"{path}.path", item["path"], "must not start with '..'")


def check_local_path(found: FieldErrors, value: str, path: str) -> None:
    """Check a path that must stay within its volume."""
    if value.startswith("/"):
        found.invalid(path, value, "must be a relative path")
    elif ".." in value.split("/"):
        found.invalid(path, value, "must not contain '..'")
