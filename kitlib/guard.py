"""Run one command that must not outlive whoever started it.

`python -m kitlib.guard COMMAND...` runs the command and ends it when standard input closes. The starter holds
the other end of that pipe, so the command also ends when the starter is killed and can clean up nothing
(a notebook kernel that was culled, for example).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from types import FrameType

GRACE_SECONDS = 3.0


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end; insist after the grace period."""
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input closes, and return its exit code."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def on_signal(number: int, frame: FrameType | None) -> None:
        end(child)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)

    def watch() -> None:
        sys.stdin.buffer.read()
        end(child)

    threading.Thread(target=watch, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
