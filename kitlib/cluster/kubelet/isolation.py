"""What a container sees of the machine: a root file system of its own, its volumes, its host name.

Stands for the mount and UTS namespaces that a container runtime makes. The root is the container's own folder; the
machine's programs and libraries show through in it, read-only, for the stand-ins have none of their own. Nothing else
of the machine is there: a container can neither see nor delete the user's files. Left out: network, PID and user
isolation. Where the kernel allows no namespaces, `plain` mode rewrites paths (see `containers.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable, Mapping
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
_SYSTEM = frozenset("bin sbin usr lib lib32 lib64 libx32 etc proc sys nix gnu".split())
"""Folders of the machine that a container has too; all but the kernel's own are read-only there."""
_EMPTY = ("home", "media", "mnt", "opt", "root", "run", "srv", "tmp", "var/cache", "var/lib", "var/log", "var/tmp")
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
    import tempfile

    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        for name in ("root", "volume"):
            os.mkdir(f"{folder}/{name}")
        pid = os.fork()
        if pid == 0:
            _try_everything(folder)
        return os.waitpid(pid, 0)[1] == 0


def _try_everything(folder: str) -> NoReturn:
    """In a forked child: enter namespaces with volumes at places that do not exist; exit 0 if that works."""
    try:
        binds = [[f"{folder}/volume", target, True] for target in ("/kit-probe/volume", "/usr/share/kit-probe")]
        enter_new({"hostname": "probe", "root": f"{folder}/root", "binds": binds, "keep": []})
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
        spec: `hostname`; `root`, the folder that becomes `/`; `binds`, a list of `[source, target, read_only]`;
            `keep`, paths of the machine that show through, read-only; and optionally `cwd`, a working folder to
            make, and `read_only`, whether `/` is.

    Raises:
        OSError: A mount failed; the container does not start.
    """
    _unshare()
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _check(_libc.sethostname(spec["hostname"].encode(), len(spec["hostname"].encode())), "sethostname")
    root = spec["root"]
    _mount(root, root, "", _MS_BIND)  # only a mount can become the root
    _show_system(root)
    _show_kept(root, spec["keep"])
    _private_dev(f"{root}/dev")
    for source, target, read_only in sorted(spec["binds"], key=lambda bind: bind[1].count("/")):
        _place(source, root, target)
        _bind(source, root + target, read_only)
    with contextlib.suppress(OSError):  # then the change of folder says what is wrong
        os.makedirs(root + spec.get("cwd", "/"), exist_ok=True)
    _pivot(root)
    if spec.get("read_only"):
        _make_read_only("/")


def _show_system(root: str) -> None:
    """Show the machine's programs and libraries, and make the folders that every image has."""
    for entry in os.scandir("/"):
        if entry.name in _SYSTEM and not os.path.lexists(f"{root}/{entry.name}"):
            _show(entry.path, f"{root}/{entry.name}")
            if entry.name not in ("proc", "sys") and not entry.is_symlink():
                _make_read_only(f"{root}/{entry.name}")
    for name in _EMPTY:
        os.makedirs(f"{root}/{name}", exist_ok=True)
    for name in ("tmp", "var/tmp"):
        os.chmod(f"{root}/{name}", 0o1777)


def _show_kept(root: str, paths: Iterable[str]) -> None:
    """Show paths of the machine at the same place; links on the way to them are followed."""
    for path in sorted(set(paths), key=lambda path: path.count("/")):
        if not os.path.exists(root + path) and os.path.exists(path):
            _place(path, root, path)
            _bind(path, root + path, True)


def _private_dev(target: str) -> None:
    """Give the container a /dev of its own, with what every container has and the machine's accelerators."""
    os.makedirs(target, exist_ok=True)
    _mount("tmpfs", target, "tmpfs", 0, "mode=755,size=1m")
    for name in os.listdir("/dev"):
        if name in _DEVICES or name.startswith("nvidia"):
            _show(f"/dev/{name}", f"{target}/{name}")
    for name, place in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{place}", f"{target}/{name}")


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
    _mount(source, target, "", _MS_BIND | _MS_REC)
    if read_only:
        _make_read_only(target)


def _make_read_only(target: str) -> None:
    _mount("none", target, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _locked_flags(target))


def _locked_flags(target: str) -> int:
    """Flags of the mount below that a user namespace may not drop."""
    kept = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME
    return os.statvfs(target).f_flag & kept


def _place(source: str, root: str, target: str) -> None:
    """Make what `source` can be mounted on; below a folder of the machine, in a private copy of that folder."""
    if os.path.exists(root + target):
        return
    try:
        _make_mount_point(source, root + target)
    except OSError:  # it is read-only
        _open_up(root, target)
        _make_mount_point(source, root + target)


def _make_mount_point(source: str, target: str) -> None:
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


def mount_namespace(pid: int) -> int | None:
    """Return the number of a process's mount namespace; None when the process has ended."""
    try:
        return _namespace(pid, "mnt")
    except OSError:
        return None


def _open_up(root: str, target: str) -> None:
    """Replace the deepest folder above `target` that exists by a private copy, entry by entry."""
    parent = os.path.dirname(target)
    while not os.path.isdir(root + parent):
        parent = os.path.dirname(parent)
    private = f"{root}/.private"
    os.mkdir(private)
    _mount("tmpfs", private, "tmpfs", 0, "mode=755,size=16m")
    _mirror(root + parent, private)
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
