"""How a kubelet reads the log files of containers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_pods import FakePods

from kitlib.cluster.kubelet.logs import LogError, LogOptions, find_log, read_log

LINES = [
    "2026-01-01T00:00:01.000000000Z stdout F one",
    "2026-01-01T00:00:02.000000000Z stderr F two",
    "2026-01-01T00:00:03.000000000Z stdout P thr",
    "2026-01-01T00:00:03.000000001Z stdout F ee",
    "2026-01-01T00:00:04.500000000Z stdout F ",
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text("\n".join(LINES) + "\n")
    return path


async def read(path: Path, is_running: Callable[[], bool] = lambda: False, **query: str) -> str:
    pieces = [piece async for piece in read_log(path, LogOptions.parse(query), is_running)]
    return b"".join(pieces).decode()


async def test_partial_lines_are_joined(log: Path) -> None:
    assert await read(log) == "one\ntwo\nthree\n\n"


async def test_text_without_a_newline_at_the_end_stays_without(log: Path) -> None:
    log.write_text("2026-01-01T00:00:01.000000000Z stdout P prompt> \n")
    assert await read(log) == "prompt> "


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"tailLines": "0"}, ""),
        ({"tailLines": "2"}, "ee\n\n"),
        ({"tailLines": "100"}, "one\ntwo\nthree\n\n"),
        ({"limitBytes": "5"}, "one\nt"),
        ({"stream": "Stderr"}, "two\n"),
        ({"sinceTime": "2026-01-01T00:00:04Z"}, "\n"),
        ({"sinceTime": "2026-01-01T01:00:04+01:00"}, "\n"),
        ({"sinceTime": "2026-01-01T00:00:04.500000001Z"}, "\n"),
        ({"sinceSeconds": "1"}, ""),
        ({"timestamps": "true", "tailLines": "3"}, "\n".join([
            "2026-01-01T00:00:03.000000000Z three", "2026-01-01T00:00:04.500000000Z ", "",
        ])),
    ],
)  # fmt: skip
async def test_options_choose_a_part_of_the_log(log: Path, query: dict[str, str], text: str) -> None:
    assert await read(log, **query) == text


@pytest.mark.parametrize("query", [{"tailLines": "x"}, {"tailLines": "-1"}, {"limitBytes": "0"}, {"sinceTime": "soon"}])
def test_options_that_make_no_sense_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        LogOptions.parse(query)


async def test_the_tail_of_a_long_log_is_found_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(f"2026-01-01T00:00:00.000000000Z stdout F {number:0100d}\n" for number in range(5000)))
    for count in (1, 700, 4999, 5000):
        lines = (await read(path, tailLines=str(count))).splitlines()
        assert [int(line) for line in lines] == list(range(5000 - count, 5000))


async def test_a_follower_stays_over_rotation_and_ends_with_the_container(log: Path) -> None:
    running = [True]
    seen = ""
    stages = iter([_append, _rotate, _append])
    async for piece in read_log(log, LogOptions(follow=True), lambda: running[0]):
        seen += piece.decode()
        stage = next(stages, None)
        if stage is None:
            running[0] = False
        else:
            stage(log)
    assert seen == "one\ntwo\nthree\n\n" + "more\n" * 3


def _append(log: Path) -> None:
    with log.open("a") as file:
        file.write("2026-01-01T00:00:09.000000000Z stdout F more\n")


def _rotate(log: Path) -> None:
    os.replace(log, log.with_name("0.log.1"))
    _append(log)


async def test_following_a_log_that_is_not_there_yet_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    running = [True]

    async def follow() -> str:
        return await read(path, lambda: running[0], follow="true")

    following = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    _append(path)
    running[0] = False
    assert await following in ("more\n", "")


@pytest.mark.parametrize(
    ("status", "previous", "message"),
    [
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, False, "is waiting to start: ContainerCreating"),
        ({"state": {"waiting": {"reason": "ErrImagePull"}}}, False, "is waiting to start: image can't be pulled"),
        ({"state": {"waiting": {"reason": "ImagePullBackOff"}}}, False, "trying and failing to pull image"),
        ({"state": {}}, False, "is waiting to start - no logs yet"),
        ({"state": {"running": {}}}, True, 'previous terminated container "app" in pod "web" not found'),
    ],
)
def test_a_log_that_cannot_be_is_refused_in_a_kubelets_words(
    tmp_path: Path, status: dict, previous: bool, message: str
) -> None:
    pod = FakePods().add_pod(tmp_path)
    pod.containers["app"].status = status
    with pytest.raises(LogError, match=message):
        find_log(pod, pod.containers["app"], previous)


def test_a_crashing_container_shows_its_last_run(tmp_path: Path) -> None:
    pod = FakePods().add_pod(tmp_path)
    crashed = {"terminated": {"containerID": "kit://1"}}
    pod.containers["app"].status = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": crashed}
    pod.containers["app"].attempt = 1
    assert find_log(pod, pod.containers["app"], False) == tmp_path / "1.log"
    assert find_log(pod, pod.containers["app"], True) == tmp_path / "0.log"
