"""The container runtime on its own: processes, logs, and the lifeline that nothing survives."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kitlib.cluster.kubelet import cri_log
from kitlib.cluster.kubelet.pod_manager import ContainerNotRunning, ExecFailed
from kitlib.cluster.kubelet.runtime_client import RuntimeClient, RuntimeFailure

from .conftest import GENEROUS, RuntimeProcess, until


class Runtime:
    """A runtime process and a client of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process = RuntimeProcess(home)
        self.exits: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def connect(self) -> list[dict[str, Any]]:
        self.client = RuntimeClient(self.home / "nodes" / "node-1", self.exits.put_nowait)
        return await self.client.connect()

    async def start(self, name: str, command: str, **options: Any) -> dict[str, Any]:
        spec = {"id": name, "labels": {}, "argv": ["sh", "-c", command], "env": {"PATH": os.environ["PATH"]}}
        spec.update({"cwd": "/", "log": str(self.home / f"{name}.log"), **options})
        return await self.client.call("start", container=spec)

    async def exit(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.exits.get(), GENEROUS)

    def log(self, name: str) -> list[str]:
        return [line.split(" ", 1)[1] for line in (self.home / f"{name}.log").read_text().splitlines()]


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    made = Runtime(tmp_path)
    await made.connect()
    yield made
    await made.client.close()
    if made.process.process.poll() is None:
        assert made.process.power_off() == []


async def test_output_is_logged_by_line_and_stream_and_the_rest_as_a_partial_line(runtime: Runtime) -> None:
    await runtime.start("a", "echo one; echo two >&2; printf three")
    await runtime.exit()
    assert sorted(runtime.log("a")) == ["stderr F two", "stdout F one", "stdout P three"]


async def test_an_exit_is_pushed_with_code_signal_and_times(runtime: Runtime) -> None:
    await runtime.start("a", "exit 3")
    record = await runtime.exit()
    assert (record["id"], record["running"], record["exit_code"], record["signal"]) == ("a", False, 3, 0)
    assert record["started_at"] < record["finished_at"]
    await runtime.start("b", "kill -TERM $$")
    record = await runtime.exit()
    assert (record["exit_code"], record["signal"]) == (143, 15)


async def test_records_outlive_their_client(runtime: Runtime) -> None:
    await runtime.start("a", "exit 4")
    await runtime.exit()
    await runtime.start("b", "sleep 1000")
    await runtime.client.close()
    records = {record["id"]: record for record in await runtime.connect()}
    assert records["a"]["exit_code"] == 4
    assert records["b"]["running"]


async def test_a_command_that_does_not_exist_is_refused_in_runcs_words(runtime: Runtime) -> None:
    with pytest.raises(RuntimeFailure, match=r'exec: "nosuch": executable file not found in \$PATH'):
        await runtime.start("a", "", argv=["nosuch"])
    with pytest.raises(RuntimeFailure, match="stat /no/such: no such file or directory"):
        await runtime.start("b", "", argv=["/no/such"])
    with pytest.raises(RuntimeFailure, match=r'chdir to cwd \("/nowhere"\)'):
        await runtime.start("c", "true", cwd="/nowhere")


async def test_a_cut_lifeline_kills_every_tree_at_once(runtime: Runtime) -> None:
    await runtime.start("a", "trap '' TERM HUP; setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000")
    process = psutil.Process(runtime.process.process.pid)

    async def grown() -> bool:
        return len(process.children(recursive=True)) >= 4

    await until(grown)
    assert runtime.process.power_off() == []


async def test_kill_reaches_processes_that_left_the_session(runtime: Runtime) -> None:
    await runtime.start("a", "setsid sleep 1000 & sleep 1000")
    process = psutil.Process(runtime.process.process.pid)

    async def grown() -> bool:
        return len(process.children(recursive=True)) >= 3

    await until(grown)
    await runtime.client.call("kill", id="a")
    assert (await runtime.exit())["exit_code"] == 137

    async def nothing_left() -> bool:
        return not process.children()

    await until(nothing_left)


async def test_containers_die_with_a_runtime_that_is_killed(runtime: Runtime) -> None:
    record = await runtime.start("a", "exec sleep 1000")
    container = psutil.Process(record["pid"])
    runtime.process.process.kill()
    await asyncio.to_thread(container.wait, GENEROUS)


async def test_a_full_log_is_rotated_once(runtime: Runtime) -> None:
    await runtime.start("a", f"head -c {3 * cri_log.MAX_SIZE} /dev/zero | tr '\\0' x | fold -w 1000")
    await runtime.exit()
    for name in ("a.log", "a.log.1"):
        assert 0 < (runtime.home / name).stat().st_size <= cri_log.MAX_SIZE
    assert not (runtime.home / "a.log.2").exists()


async def test_exec_tells_output_and_exit_code(runtime: Runtime) -> None:
    await runtime.start("a", "sleep 1000", env={"PATH": os.environ["PATH"], "A": "b"})
    process = await runtime.client.exec("a", ["sh", "-c", "cat; echo $A >&2; exit 6"], {}, stdin=True, tty=False)
    process.stdin.write(b"in")
    process.stdin.close()
    assert (await process.stdout.read(), await process.stderr.read(), await process.wait()) == (b"in", b"b\n", 6)
    process.kill()


async def test_exec_with_a_terminal_has_its_size(runtime: Runtime) -> None:
    await runtime.start("a", "sleep 1000")
    process = await runtime.client.exec("a", ["sh", "-c", "read go; stty size"], {}, stdin=True, tty=True)
    process.resize(33, 77)
    process.stdin.write(b"go\n")
    assert (await process.stdout.read()).split()[-2:] == [b"33", b"77"]
    assert await process.wait() == 0
    process.kill()


async def test_an_execd_process_ends_when_its_client_goes(runtime: Runtime) -> None:
    record = await runtime.start("a", "sleep 1000")
    process = await runtime.client.exec("a", ["sh", "-c", "echo $$; exec sleep 1000"], {}, stdin=False, tty=False)
    child = psutil.Process(int(await process.stdout.readline()))
    process.kill()
    await asyncio.to_thread(child.wait, GENEROUS)
    assert psutil.pid_exists(record["pid"])


async def test_exec_needs_a_running_container_and_a_command_that_exists(runtime: Runtime) -> None:
    await runtime.start("a", "sleep 1000")
    with pytest.raises(ExecFailed, match="executable file not found"):
        await runtime.client.exec("a", ["nosuch"], {}, stdin=False, tty=False)
    with pytest.raises(ContainerNotRunning):
        await runtime.client.exec("nobody", ["true"], {}, stdin=False, tty=False)


async def test_a_container_with_a_terminal_can_be_attached_to(runtime: Runtime) -> None:
    sized = "until [ \"$(stty size)\" = '11 22' ]; do sleep 0.02; done"  # size and input come by ways of their own
    await runtime.start("a", f"{sized}; read x; stty size; echo got $x", tty=True, stdin=True)
    process = await runtime.client.attach("a", stdin=True, tty=True)
    process.resize(11, 22)
    process.stdin.write(b"this\n")
    output = await asyncio.wait_for(process.stdout.read(), GENEROUS)
    assert b"11 22" in output and b"got this" in output
    assert await process.wait() == 0
    process.kill()


async def test_stats_count_the_whole_tree(runtime: Runtime) -> None:
    await runtime.start("a", "sleep 1000 & sleep 1000")

    async def counted() -> bool:
        used = await runtime.client.call("stats")
        return used["a"][1] > 0

    await until(counted)


async def test_a_container_that_does_not_read_its_stdin_holds_nobody_else_up(runtime: Runtime) -> None:
    await runtime.start("deaf", "exec sleep 1000", stdin=True)
    process = await runtime.client.attach("deaf", stdin=True, tty=False)
    assert process.stdin is not None
    process.stdin.write(b"x" * 400_000)
    for number in range(5):
        await asyncio.wait_for(runtime.start(f"other-{number}", "true"), GENEROUS)
    process.kill()


async def test_input_arrives_whole_however_slowly_it_is_read(runtime: Runtime) -> None:
    await runtime.start("slow", "sleep 0.3; wc -c", stdin=True, stdin_once=True)
    process = await runtime.client.attach("slow", stdin=True, tty=False)
    assert process.stdin is not None
    process.stdin.write(b"x" * 1_000_000)
    process.stdin.close()
    assert (await asyncio.wait_for(process.stdout.read(), GENEROUS)).split() == [b"1000000"]
    process.kill()


async def test_a_request_that_is_given_up_leaves_the_others_their_answers(runtime: Runtime) -> None:
    for _ in range(3):
        given_up = asyncio.ensure_future(runtime.client.call("stats"))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await asyncio.wait_for(runtime.client.call("stats"), GENEROUS) == {}
    await runtime.start("a", "exit 5")
    assert (await runtime.exit())["exit_code"] == 5


@pytest.mark.parametrize("tty", [False, True])
async def test_a_session_that_is_given_up_while_it_starts_leaves_nothing_open(runtime: Runtime, tty: bool) -> None:
    await runtime.start("a", "exec sleep 1000", stdin=True)
    before = len(os.listdir("/proc/self/fd"))
    for steps in range(20):
        job = runtime.client.exec("a", ["cat"], {}, stdin=True, tty=tty)
        starting = asyncio.ensure_future(job)
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        done = (await asyncio.gather(starting, return_exceptions=True))[0]
        if not isinstance(done, BaseException):
            done.kill()

    async def closed() -> bool:
        gc.collect()
        return len(os.listdir("/proc/self/fd")) <= before

    await until(closed)


async def test_a_new_client_gets_the_records_of_hundreds_of_containers(runtime: Runtime) -> None:
    for number in range(250):
        await runtime.start(f"container-{number}", "true", labels={"pod": "x" * 300})
    await runtime.client.close()
    assert len(await asyncio.wait_for(runtime.connect(), GENEROUS)) == 250


def test_a_full_disk_costs_a_container_lines_of_its_log_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = cri_log.LogWriter(str(tmp_path / "a.log"))
    log.write("stdout", b"one\n")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", _no_space)
        log.write("stdout", b"two\n")
    log.write("stdout", b"three\n")
    log.release()
    assert [line.split()[-1] for line in (tmp_path / "a.log").read_text().splitlines()] == ["one", "three"]


def _no_space(fd: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")
