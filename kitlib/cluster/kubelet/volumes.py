"""Volumes: folders of the node that a Pod's containers see at their `mountPath`.

Stands for the kubelet's volume manager and its plugins: emptyDir, hostPath, configMap, secret, downwardAPI,
projected, and persistentVolumeClaim for volumes that are local folders. Left out: CSI, quotas, `fsGroup`.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kitlib.cluster.config import SHARED_MEMORY
from kitlib.cluster.kubelet import env
from kitlib.cluster.objects import Object

Files = dict[str, tuple[bytes, int]]
"""Contents and mode by relative path."""

TRASH = "trash"
_DATA = "..data"


class MountFailed(Exception):  # noqa: N818
    """A volume cannot be set up; the message is that of the kubelet's FailedMount event."""


@dataclass
class Source:
    """What the plugins may ask about the cluster.

    Attributes:
        lookup: Finds ConfigMaps and Secrets of the Pod's namespace.
        claim: Finds the PersistentVolume bound to a claim; raises MountFailed.
        token: Returns the service account token for an audience.
        memory: The Pod's folder in memory (see `NodeConfig.memory_dir`).
    """

    lookup: env.Lookup
    claim: Callable[[str], Object]
    token: Callable[[str], str]
    memory: Path


def set_up(pod: Object, folder: Path, source: Source) -> dict[str, Path]:
    """Make or refresh every volume of a Pod; doing it again brings changed contents up to date.

    Args:
        pod: The Pod.
        folder: The Pod's folder of volumes.
        source: The cluster.

    Returns:
        Where each volume is, by name.

    Raises:
        MountFailed: One of them cannot be set up.
    """
    return {volume["name"]: _set_up_one(pod, volume, folder, source) for volume in pod["spec"].get("volumes") or []}


def _set_up_one(pod: Object, volume: Object, folder: Path, source: Source) -> Path:
    name: str = volume["name"]
    try:
        if "hostPath" in volume:
            return _host_path(name, volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            return _claim(name, volume["persistentVolumeClaim"], source)
        path = folder / name
        if "emptyDir" in volume:
            return _empty_dir(path, volume["emptyDir"] or {}, source.memory)
        write_atomically(path, _files(pod, volume, source))
        return path
    except env.ConfigError as error:
        raise MountFailed(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error


def _empty_dir(path: Path, spec: Object, memory: Path) -> Path:
    if spec.get("medium") == "Memory" and os.access(SHARED_MEMORY, os.W_OK):
        (memory / path.name).mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(memory / path.name)
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


_HOST_PATH_TYPES: Mapping[str, tuple[str, Callable[[Path], bool]]] = {
    "Directory": ("directory", Path.is_dir),
    "File": ("file", Path.is_file),
    "Socket": ("socket", Path.is_socket),
    "CharDevice": ("character device", Path.is_char_device),
    "BlockDevice": ("block device", Path.is_block_device),
}


def _host_path(name: str, spec: Object) -> Path:
    path, kind = Path(spec["path"]), spec.get("type") or ""
    try:
        if kind == "DirectoryOrCreate" and not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        elif kind == "FileOrCreate":
            path.touch(exist_ok=True)
    except OSError as error:
        raise MountFailed(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
    kind = kind.removesuffix("OrCreate")
    if kind in _HOST_PATH_TYPES and not _HOST_PATH_TYPES[kind][1](path):
        raise MountFailed(
            f'MountVolume.SetUp failed for volume "{name}" : hostPath type check failed: '
            f"{path} is not a {_HOST_PATH_TYPES[kind][0]}"
        )
    return path


def _claim(name: str, spec: Object, source: Source) -> Path:
    volume = source.claim(spec["claimName"])
    local = volume["spec"].get("hostPath") or volume["spec"].get("local")
    if not local:
        raise MountFailed(
            f'MountVolume.SetUp failed for volume "{volume["metadata"]["name"]}" : only hostPath and local volumes '
            "exist in the embedded cluster"
        )
    Path(local["path"]).mkdir(parents=True, exist_ok=True)
    return Path(local["path"])


def _files(pod: Object, volume: Object, source: Source) -> Files:
    if "projected" in volume:
        spec = volume["projected"]
        files: Files = {}
        for part in spec.get("sources") or []:
            files.update(_source_files(pod, part, spec.get("defaultMode") or 0o644, source))
        return files
    kind = next((kind for kind in ("configMap", "secret", "downwardAPI") if kind in volume), "")
    if not kind:
        raise env.ConfigError("no volume plugin matched")
    return _source_files(pod, volume, volume[kind].get("defaultMode") or 0o644, source)


def _source_files(pod: Object, part: Object, mode: int, source: Source) -> Files:
    if "configMap" in part:
        spec = part["configMap"]
        return _object_files("configmaps", spec.get("name", ""), spec, mode, source)
    if "secret" in part:
        spec = part["secret"]
        return _object_files("secrets", spec.get("secretName") or spec.get("name", ""), spec, mode, source)
    if "downwardAPI" in part:
        return dict(_downward_file(pod, item, mode) for item in part["downwardAPI"].get("items") or [])
    if "serviceAccountToken" in part:
        spec = part["serviceAccountToken"]
        return {spec["path"]: (source.token(spec.get("audience") or "").encode(), mode)}
    return {}


def _object_files(resource: str, name: str, spec: Object, mode: int, source: Source) -> Files:
    obj = source.lookup(resource, name)
    if obj is None:
        if spec.get("optional"):
            return {}
        raise env.ConfigError(env.not_found(resource, name))
    data = env.contents(obj)
    if not spec.get("items"):
        return {key: (value, mode) for key, value in data.items()}
    files: Files = {}
    for item in spec["items"]:
        if item["key"] in data:
            files[item["path"]] = (data[item["key"]], item.get("mode") or mode)
        elif not spec.get("optional"):
            raise env.ConfigError(f"references non-existent {resource[:-1]} key: {item['key']}")
    return files


def _downward_file(pod: Object, item: Object, mode: int) -> tuple[str, tuple[bytes, int]]:
    if "fieldRef" in item:
        text = env.field_value(pod, item["fieldRef"]["fieldPath"])
    else:
        text = env.resource_value(pod, item["resourceFieldRef"])
    return item["path"], (text.encode(), item.get("mode") or mode)


def write_atomically(path: Path, files: Files) -> None:
    """Show files in a folder, all of the new or all of the old, as the kubelet's AtomicWriter does.

    The files live in a hidden folder named after the time; `..data` points to it, and each visible name is a link
    through `..data`. A change swaps that one link.
    """
    path.mkdir(parents=True, exist_ok=True)
    data = path / _DATA
    old = path / os.readlink(data) if data.is_symlink() else None
    if old is not None and _read_back(old) == files:
        return
    temporary = path / "..data_tmp"
    temporary.unlink(missing_ok=True)  # of a kubelet that was killed right here
    temporary.symlink_to(_write_new(path, files).name)
    temporary.replace(data)
    _link_visible(path, files)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _write_new(path: Path, files: Files) -> Path:
    new = path / f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime())}.{time.time_ns() % 10**9}"
    for name, (content, mode) in files.items():
        target = new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)
    new.mkdir(exist_ok=True)
    return new


def _read_back(folder: Path) -> Files:
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mode & 0o777)
        for file in folder.rglob("*")
        if file.is_file()
    }


def _link_visible(path: Path, files: Files) -> None:
    tops = {name.partition("/")[0] for name in files}
    for entry in path.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    for top in tops:
        link = path / top
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{top}")


def mounts(container: Object, volumes: Mapping[str, Path], values: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """Return what a container sees where: source on the node, `mountPath`, read-only (all that the kubelet writes is).

    Args:
        container: The container's spec.
        volumes: Where each volume is.
        values: The container's environment, for `subPathExpr`.

    Raises:
        MountFailed: A subPath leaves its volume.
    """
    found = []
    for mount in container.get("volumeMounts") or []:
        source = volume = volumes[mount["name"]].resolve()
        sub = mount.get("subPath") or env.expand(mount.get("subPathExpr") or "", values)
        if sub:
            source = (volume / sub).resolve()  # a container may have put links into the volume
            if ".." in Path(sub).parts or not source.is_relative_to(volume):
                raise MountFailed(f'failed to prepare subPath for volumeMount "{mount["name"]}"')
            if not source.exists():
                source.mkdir(parents=True)
        read_only = bool(mount.get("readOnly")) or (volume / _DATA).is_symlink()
        found.append((str(source), mount["mountPath"].rstrip("/") or "/", read_only))
    return found


def remove(folder: Path, memory: Path) -> None:
    """Remove a Pod's folder and its volumes in memory; folders of the machine that it used stay.

    The folder gets out of the way at once; a disk may take its time to delete it, in a thread.
    """
    shutil.rmtree(memory, ignore_errors=True)
    trash = folder.parent.parent / TRASH / folder.name
    try:
        trash.parent.mkdir(exist_ok=True)
        folder.rename(trash)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        return
    threading.Thread(target=shutil.rmtree, args=(trash, True)).start()
