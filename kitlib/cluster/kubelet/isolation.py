"""What a container sees of the machine: its volumes, its host name.

Stands for the mount and UTS namespaces that a container runtime makes. Left out: network, PID and user isolation,
and an image's own root file system. Where the kernel allows no namespaces, `plain` mode rewrites paths (see
`containers.py`); it changes nothing outside the container either.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 8192, 16384, 1 << 18
_MNT_DETACH = 2
_DEVICES = frozenset(
    "null zero full random urandom tty ptmx pts shm mqueue console fuse kvm dri kfd infiniband".split()
)
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number).lower()}")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(_libc.mount(*arguments), f"mount {source} on {target}")


def _unshare() -> None:
    """Enter new mount and UTS namespaces, through a user namespace when not root."""
    uid, gid = os.getuid(), os.getgid()
    flags = _CLONE_NEWNS | _CLONE_NEWUTS
    if _libc.unshare(flags) == 0:
        return
    _check(_libc.unshare(flags | _CLONE_NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


@lru_cache
def namespaces_work() -> bool:
    """Tell whether this process may give its children what a container needs, by trying all of it once."""
    if sys.platform != "linux":
        return False
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        for name in ("dev", "tmp", "root", "volume"):
            os.mkdir(f"{folder}/{name}")
        pid = os.fork()
        if pid == 0:
            _try_everything(folder)
        return os.waitpid(pid, 0)[1] == 0


def _try_everything(folder: str) -> NoReturn:
    """In a forked child: enter namespaces with a volume at a place that does not exist; exit 0 if that works."""
    try:
        binds = [[f"{folder}/volume", "/kit-probe/volume", True]]
        spec = {"hostname": "probe", "binds": binds, "staging": folder, "tmp": f"{folder}/volume", "keep": [folder]}
        enter_new(spec)
        os._exit(0)
    finally:
        os._exit(1)


def mode(configured: str) -> str:
    """Return `namespaces` or `plain` for the configured `auto`, `namespaces` or `plain`.

    The environment variable KIT_ISOLATION wins over `auto`.
    """
    wanted = os.environ.get("KIT_ISOLATION", "auto") if configured == "auto" else configured
    if wanted == "plain":
        return "plain"
    return "namespaces" if namespaces_work() else "plain"


def enter_new(spec: Mapping[str, Any]) -> None:
    """In a forked child: enter new namespaces and set up what `spec` says.

    Args:
        spec: `hostname`; `binds`, a list of `[source, target, read_only]`; `staging`, an empty folder of the
            container to build in; `tmp`, its own /tmp; `keep`, folders of the machine that stay visible in it.

    Raises:
        OSError: A mount failed; the container does not start.
    """
    _unshare()
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _check(_libc.sethostname(spec["hostname"].encode(), len(spec["hostname"].encode())), "sethostname")
    staging = spec["staging"]
    binds = sorted(spec["binds"], key=lambda bind: bind[1].count("/"))
    _private_dev(staging + "/dev")
    _private_tmp(staging + "/tmp", spec["tmp"], spec["keep"])
    outside = [target for _, target, _ in binds if not target.startswith(("/dev/", "/tmp/"))]
    root = _new_root(staging + "/root", outside)
    for source, target, read_only in binds:
        _bind(source, root + target, read_only)
    if root:
        _pivot(root)


def _private_dev(staging: str) -> None:
    """Give the container a /dev of its own, with what every container has and the machine's accelerators."""
    _mount("tmpfs", staging, "tmpfs", 0, "mode=755,size=1m")
    for name in os.listdir("/dev"):
        if name in _DEVICES or name.startswith("nvidia"):
            _show(f"/dev/{name}", f"{staging}/{name}")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{staging}/{name}")
    _mount(staging, "/dev", "", _MS_MOVE)


def _private_tmp(staging: str, folder: str, keep: list[str]) -> None:
    """Give the container a /tmp of its own; what must stay visible of the machine's shows through."""
    _mount(folder, staging, "", _MS_BIND)
    for path in keep:
        if path.startswith("/tmp/") and os.path.isdir(path):
            shown = staging + path.removeprefix("/tmp")
            os.makedirs(shown, exist_ok=True)
            _mount(path, shown, "", _MS_BIND | _MS_REC)
    _mount(staging, "/tmp", "", _MS_MOVE)


def _show(source: str, target: str) -> None:
    """Make an entry of the machine visible at a place that does not exist yet."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, target, "", _MS_BIND | _MS_REC)


def _bind(source: str, target: str, read_only: bool) -> None:
    _make_mount_point(source, target)
    _mount(source, target, "", _MS_BIND | _MS_REC)
    if read_only:
        _mount("none", target, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _locked_flags(target))


def _locked_flags(target: str) -> int:
    """Flags of the mount below that a user namespace may not drop."""
    kept = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME
    return os.statvfs(target).f_flag & kept


def _make_mount_point(source: str, target: str) -> None:
    if os.path.exists(target):
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w"):
        pass


def join(pid: int) -> None:
    """In a forked child: enter the namespaces of the process `pid`.

    Raises:
        OSError: The process is gone, or the kernel refuses.
    """
    names = [name for name in ("user", "uts", "mnt") if _namespace(pid, name) != _namespace("self", name)]
    files = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in names]
    for name, file in zip(names, files, strict=True):
        _check(_libc.setns(file, 0), f"setns {name}")
        os.close(file)


def _namespace(pid: int | str, name: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{name}").st_ino


def _new_root(staging: str, targets: list[str]) -> str:
    """Build a root in which every target can be made without touching the machine's files.

    Returns:
        Its path; empty when every target exists already and the machine's own root serves.
    """
    missing = [target for target in targets if not os.path.exists(target)]
    if not missing:
        return ""
    _mount("tmpfs", staging, "tmpfs", 0, "mode=755,size=16m")
    _mirror("/", staging)
    opened = {"/"}
    for target in missing:
        _open_up(staging, target, opened)
    return staging


def _open_up(root: str, target: str, opened: set[str]) -> None:
    """Replace the deepest folder above `target` that exists by a private copy, entry by entry."""
    parent = os.path.dirname(target)
    while not os.path.isdir(root + parent):
        parent = os.path.dirname(parent)
    if parent in opened:
        return
    opened.add(parent)
    private = f"{root}/.private-{len(opened)}"
    os.mkdir(private)
    _mount("tmpfs", private, "tmpfs", 0, "mode=755,size=16m")
    _mirror(parent, private)
    _mount(private, root + parent, "", _MS_MOVE)
    os.rmdir(private)


def _mirror(folder: str, target: str) -> None:
    """Show every entry of a folder in a private one, without copying."""
    for entry in os.scandir(folder):
        _show(entry.path, f"{target}/{entry.name}")


def _pivot(root: str) -> None:
    os.chdir(root)
    _check(_libc.syscall(_pivot_root_number(), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def _pivot_root_number() -> int:
    return {"x86_64": 155, "aarch64": 41, "ppc64le": 203, "s390x": 217, "riscv64": 41}[os.uname().machine]
