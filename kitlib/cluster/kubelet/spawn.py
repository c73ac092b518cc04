"""Start a process the way a low-level container runtime (runc) does: fork, put on its surroundings, exec.

Only for single-threaded processes: the child runs Python between fork and exec.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import sys
import termios
from collections.abc import Mapping, Sequence
from typing import Any

from kitlib.cluster.kubelet import isolation

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KERNEL_LISTS = os.path.exists("/proc/thread-self/children")
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)


class SpawnError(Exception):
    """The process could not be started; the message is worded as runc words it."""


def become_subreaper() -> None:
    """Make orphans below this process its children, so that none escapes (Linux only)."""
    if _LINUX:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Return a process's children, from the kernel's own lists where there are some (no scan of every process)."""
    if not _KERNEL_LISTS:
        import psutil

        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += [int(word) for word in file.read().split()]
    return found


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    stdio: Sequence[int],
    *,
    tty: bool = False,
    cpus: Sequence[int] | None = None,
    isolate: Mapping[str, Any] | None = None,
    join: int = 0,
) -> int:
    """Start a process in a session of its own that dies with this process.

    Args:
        argv: Command; its first word is looked up on the PATH of `env`.
        env: Its whole environment.
        cwd: Its working directory.
        stdio: File descriptors for stdin, stdout, stderr.
        tty: `stdio` is a terminal: make it the controlling one.
        cpus: CPU cores to run on; None leaves them all.
        isolate: Specification of new namespaces (see `isolation.enter_new`), or None.
        join: Process whose namespaces to join, or 0.

    Returns:
        The process id.

    Raises:
        SpawnError: The command, or what it needs, could not be set up.
    """
    read_end, write_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _surroundings(stdio, tty, cpus, isolate, join, parent)
            _exec(argv, env, cwd)
        except BaseException as error:  # noqa: BLE001  (a forked child must never return)
            os.write(write_end, str(error).encode(errors="replace")[:4000] or b"unknown error")
        finally:
            os._exit(128)
    os.close(write_end)
    with open(read_end, "rb") as report:
        failure = report.read().decode(errors="replace")
    if failure:
        os.waitpid(pid, 0)
        raise SpawnError(failure)
    return pid


def _surroundings(
    stdio: Sequence[int],
    tty: bool,
    cpus: Sequence[int] | None,
    isolate: Mapping[str, Any] | None,
    join: int,
    parent: int,
) -> None:
    os.setsid()
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if tty:
        fcntl.ioctl(stdio[0], termios.TIOCSCTTY, 0)
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    if isolate:
        isolation.enter_new(isolate)
    elif join:
        isolation.join(join)
    if _LINUX:  # after the namespaces: a change of credentials clears it
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() not in (parent, 0):
            os._exit(137)
    for target, source in enumerate(stdio):
        os.dup2(source, target)


def _exec(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError as error:
        text = f'chdir to cwd ("{cwd}") set in config.json failed: {_words(error)}'
        raise SpawnError(text) from error
    name = argv[0]
    try:
        os.execvpe(name, list(argv), dict(env))
    except OSError as error:
        if "/" not in name and error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise SpawnError(f'exec: "{name}": executable file not found in $PATH') from error
        detail = f"stat {name}: {_words(error)}" if error.errno == errno.ENOENT else _words(error)
        raise SpawnError(f'exec: "{name}": {detail}') from error


def _words(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
