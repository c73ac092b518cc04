"""Reads container logs as `kubectl logs` wants them: the last lines, since a time, with timestamps, following.

Stands for `k8s.io/cri-client/pkg/logs`. Log files are in the format of the container runtime interface
(see `cri_log.py`). As in Kubernetes only the current file of a run is read; a follower stays over rotation.
A follower looks at its file five times a second, so that a chatty container costs no more than a quiet one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

from kitlib.cluster.kubelet.pod_manager import ContainerState, PodState

BLOCK = 64 << 10
_LONGEST = 50 * 365 * 86400
FOLLOW_INTERVAL = 0.2  # seconds


class LogError(Exception):
    """There is no such log; the message is a real kubelet's."""


@dataclass(frozen=True)
class LogOptions:
    """The fields of `PodLogOptions` that concern the reading.

    Attributes:
        follow: Go on until the container ends.
        previous: Read the run before the current one.
        timestamps: Begin each line with its time.
        tail_lines: Only that many lines of the end.
        since: Only lines from this time on, in RFC 3339 with nanoseconds, UTC.
        limit_bytes: Stop after that many bytes.
        stream: `stdout`, `stderr`, or empty for both.
    """

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: str = ""
    limit_bytes: int | None = None
    stream: str = ""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> LogOptions:
        """Read query parameters.

        Raises:
            ValueError: A number or time can't be read, or is out of range.
        """

        def number(name: str, least: int) -> int | None:
            value = int(query[name]) if query.get(name) else None
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}")
            return value

        def flag(name: str) -> bool:
            return query.get(name, "").lower() in ("true", "1")

        return cls(
            follow=flag("follow"),
            previous=flag("previous"),
            timestamps=flag("timestamps"),
            tail_lines=number("tailLines", 0),
            since=_since(query.get("sinceTime", ""), number("sinceSeconds", 0)),
            limit_bytes=number("limitBytes", 1),
            stream={"stdout": "stdout", "stderr": "stderr"}.get(query.get("stream", "").lower(), ""),
        )


def _since(time: str, seconds: int | None) -> str:
    if seconds is not None:
        moment = datetime.now(timezone.utc) - timedelta(seconds=min(seconds, _LONGEST))
    elif time:
        moment = datetime.fromisoformat(_python_time(time)).astimezone(timezone.utc)
    else:
        return ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _python_time(time: str) -> str:
    """Cut nanoseconds to microseconds and spell out Z, for Python 3.10."""
    time = time.replace("Z", "+00:00").replace("z", "+00:00").replace(" ", "+")
    head, dot, rest = time.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return head + (f".{rest[:digits][:6]:0<6}" + rest[digits:] if dot else "")


def find_log(pod: PodState, container: ContainerState, previous: bool) -> Path | None:
    """Return the file of the run that a client asks for; None when it has nothing to say yet.

    Raises:
        LogError: There was no such run, or the container has not started.
    """
    name, pod_name = container.name, pod.pod["metadata"]["name"]
    state = container.status.get("state") or {}
    earlier = (container.status.get("lastState") or {}).get("terminated") or {}
    if previous:
        if not earlier:
            raise LogError(f'previous terminated container "{name}" in pod "{pod_name}" not found')
    elif not ("running" in state or "terminated" in state or earlier):
        raise LogError(f'container "{name}" in pod "{pod_name}" is waiting to start{_why(state)}')
    return pod.log_path(name, previous)


def _why(state: Mapping[str, Mapping[str, str]]) -> str:
    reason = state.get("waiting", {}).get("reason", "")
    texts = {
        "": " - no logs yet",
        "ErrImagePull": ": image can't be pulled",
        "ImagePullBackOff": ": trying and failing to pull image",
    }
    return texts.get(reason, f": {reason}")


class _Filter:
    """Turns lines of the file into what the client wants to see."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._since = options.since.encode()
        self._stream = options.stream.encode()
        self._left = options.limit_bytes
        self._within_line = False

    @property
    def full(self) -> bool:
        """Whether the client's limit is reached."""
        return self._left is not None and self._left <= 0

    def __call__(self, lines: list[bytes]) -> bytes:
        out = b"".join(map(self._show, lines))
        if self._left is not None:
            out = out[: self._left]
            self._left -= len(out)
        return out

    def _show(self, line: bytes) -> bytes:
        time, _, rest = line.partition(b" ")
        stream, _, rest = rest.partition(b" ")
        tag, _, text = rest.partition(b" ")
        if time < self._since or (self._stream and stream != self._stream):
            return b""
        prefix = time + b" " if self._options.timestamps and not self._within_line else b""
        self._within_line = tag[:1] == b"P"
        return prefix + text + (b"" if self._within_line else b"\n")


async def read_log(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield a log in pieces; with `follow` until the container has ended and everything is read.

    Args:
        path: The log file of one run.
        options: Which part of it.
        is_running: Tells whether the run still goes on.
    """
    show, rest = _Filter(options), b""
    file = _open(path)
    try:
        if file is not None and options.tail_lines is not None:
            file.seek(_start_of_tail(file, options.tail_lines))
        while not show.full:
            running = options.follow and is_running()
            rotated = file is None or _is_rotated(file, path)
            block = file.read(BLOCK) if file is not None else b""
            if block:
                *lines, rest = (rest + block).split(b"\n")
                yield show(lines)
                await asyncio.sleep(FOLLOW_INTERVAL if running and len(block) < BLOCK else 0)
            elif rotated and (newer := _open(path)) is not None:
                if file is not None:
                    file.close()
                file = newer
            elif not running:
                return
            else:
                await asyncio.sleep(FOLLOW_INTERVAL)
    finally:
        if file is not None:
            file.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _is_rotated(file: BinaryIO, path: Path) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _start_of_tail(file: BinaryIO, lines: int) -> int:
    """Return where the last `lines` lines of the file begin."""
    position = file.seek(0, os.SEEK_END)
    if lines == 0:
        return position
    missing = lines + 1  # the newline that ends the file counts too
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        found = block.count(b"\n")
        if found >= missing:
            for _ in range(missing):
                end = block.rfind(b"\n")
                block = block[:end]
            return position + end + 1
        missing -= found
    return 0
