"""Run one command that must not outlive whoever started it.

`python -m kitlib.guard COMMAND...` runs the command and ends it when standard input closes. The starter holds
the other end of that pipe, so the command also ends when the starter is killed and can clean up nothing
(a notebook kernel that was culled, for example).

`tied` does the same for a short command that needs its standard input for itself, at the price of a shell.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 3.0

WATCH = '(trap "" HUP INT TERM; exec </dev/fd/$0 >/dev/null 2>&1; read -r _; kill -KILL 0) & exec "$@"'
"""Becomes the command itself, beside a subshell that kills the process group when the pipe `$0` is closed."""


def tied(command: list[str], lifeline: int) -> list[str]:
    """Return a command that ends, with all it started, when the other end of a pipe is closed.

    It must lead a process group of its own (`start_new_session=True`), which lasts until the pipe is closed.

    Args:
        command: What to run; it keeps its standard input and the process id.
        lifeline: The pipe's reading end, which must be among the `pass_fds`.
    """
    return ["/bin/sh", "-c", WATCH, str(lifeline), *command]


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end; insist after the grace period."""
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input closes, and return its exit code."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def watch() -> None:
        while os.read(0, 4096):  # a blocked sys.stdin would not let the interpreter end
            pass
        asked.set()

    def end_when_asked() -> None:  # not in the handler: there the main thread is in the middle of waiting
        asked.wait()
        end(child)

    for task in (watch, end_when_asked):
        threading.Thread(target=task, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
