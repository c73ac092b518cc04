"""Runs a command as Binder would: one CPU, no rights, no network but the loopback. `python limits.py COMMAND ...`.

Each limit is taken where the kernel allows it, and said on standard error, so that a test can tell what held.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import socket
import struct
import sys

CLONE_NEWNET = 0x40000000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
NOWHERE = "http://127.0.0.1:9"
libc = ctypes.CDLL(None, use_errno=True)


def one_cpu() -> str:
    """Bind this process and all that it starts to one CPU."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return "one CPU"


def no_network() -> str:
    """Leave the network for one that has nothing but its own loopback, or send what goes out to a dead proxy."""
    if libc.unshare(CLONE_NEWNET) == 0:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sh", b"lo", 0)
            (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))
        return "loopback only"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ[name] = NOWHERE
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.0/8,localhost"
    return "a dead proxy"


def no_rights(home: str) -> str:
    """Become nobody where nobody can run this Python; in any case without capabilities."""
    said = f"user {os.getuid()}"
    if os.getuid() == 0:
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        nobody = pwd.getpwnam("nobody")
        if _reachable(sys.executable, nobody.pw_uid):
            _give(home, nobody.pw_uid, nobody.pw_gid)
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
        said = "user nobody" if os.getuid() else "root without capabilities"
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return said


def _reachable(program: str, uid: int) -> bool:
    """Return whether another user could run a program and read this repository."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setuid(uid)
        os._exit(0 if os.access(program, os.X_OK) and os.access(__file__, os.R_OK) else 1)
    return os.waitpid(child, 0)[1] == 0


def _give(folder: str, uid: int, gid: int) -> None:
    for path, folders, files in os.walk(folder):
        for name in [".", *folders, *files]:
            os.chown(os.path.join(path, name), uid, gid, follow_symlinks=False)


if __name__ == "__main__":
    held = [one_cpu(), no_network(), no_rights(os.environ["HOME"])]
    print(f"limits: {', '.join(held)}", file=sys.stderr, flush=True)
    os.execvp(sys.argv[1], sys.argv[1:])
