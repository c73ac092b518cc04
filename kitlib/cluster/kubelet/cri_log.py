"""Container logs in the format of the container runtime interface: `<RFC3339Nano> <stream> <F or P> <text>`.

Rotation as the kubelet does it by default (`containerLogMaxSize` 10 MiB), with two files a run instead of five.
"""

from __future__ import annotations

import os
import time

MAX_SIZE = 10 << 20
MAX_LINE = 16 << 10


def timestamp() -> str:
    """Return the time in RFC 3339 with nanoseconds, as container runtimes write it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


class LogWriter:
    """Writes one run's log, a whole line at a time and at once, so that followers see it.

    Args:
        path: The log file; a full one is renamed to `<path>.1`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._partial = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Add output of `stdout` or `stderr`; text after the last newline waits for the rest of its line."""
        prefix = f"{timestamp()} {stream} ".encode()
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        out = [prefix + b"F " + line + b"\n" for line in lines]
        while len(rest) >= MAX_LINE:
            out.append(prefix + b"P " + rest[:MAX_LINE] + b"\n")
            rest = rest[MAX_LINE:]
        self._partial[stream] = rest
        self._append(b"".join(out))

    def close(self, stream: str) -> None:
        """Write what is left of a stream that ended; without a newline it stays a partial line."""
        rest, self._partial[stream] = self._partial[stream], b""
        if rest:
            self._append(f"{timestamp()} {stream} P ".encode() + rest + b"\n")

    def _append(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._size + len(data) > MAX_SIZE and self._size:
                os.replace(self._path, self._path + ".1")
                full = self._fd
                self._open()
                os.close(full)
            self._size += os.write(self._fd, data)
        except OSError:
            pass  # the disk is full, or the Pod's folder is gone: a container loses lines, never its end

    def release(self) -> None:
        """Close the file."""
        os.close(self._fd)
