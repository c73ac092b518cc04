"""Ranks as plain processes, started as a Pod starts them: by `launch.py`, with the environment of an Indexed Job."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import kitlib.train
from kitlib.train import records
from kitlib.train.job import BESIDE

SCRIPTS = Path(kitlib.train.__file__).parent
SMALL = ["--n-layer", "2", "--n-embd", "64", "--block-size", "32", "--batch-size", "4", "--grad-accum", "1",
         "--data-bytes", "300000"]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Ranks:
    """What the Pods of one run see: a folder with the scripts, an address each, one log per rank."""

    def __init__(self, folder: Path, world: int, *flags: str, **more: str) -> None:
        self.folder, self.flags, self.port, self.more = folder, [*SMALL, *flags], free_port(), more
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("worker.py", *BESIDE):
            shutil.copy(SCRIPTS / name, folder / name)
        self.resize(world)
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def resize(self, world: int) -> None:
        self.world = world
        (self.folder / "workers").write_text(str(world))

    def environment(self, rank: int) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("KIT_")}
        return {**plain, "JOB_COMPLETION_INDEX": str(rank), "KIT_SERVICE": "ranks", "RANKS_SERVICE_HOST": "127.0.0.1",
                "RANKS_SERVICE_PORT": str(self.port), "KIT_PORT": str(self.port), "POD_IP": "127.0.0.1",
                "OMP_NUM_THREADS": "1", **self.more}  # fmt: skip

    def log_of(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.log"

    def start(self, *ranks: int) -> Ranks:
        for rank in ranks or range(self.world):
            with self.log_of(rank).open("ab") as log:
                self.running[rank] = subprocess.Popen(
                    [sys.executable, str(self.folder / "launch.py"), *self.flags],
                    env=self.environment(rank), stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
                )  # fmt: skip
        return self

    def wait(self, limit: float = 120) -> list[int]:
        return [self.running[rank].wait(limit) for rank in sorted(self.running)]

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def text(self, rank: int) -> str:
        return self.log_of(rank).read_text()

    def records(self) -> list[records.Record]:
        logs = sorted(self.folder.glob("rank-*.log"))
        return records.parse(line for log in logs for line in log.read_text().splitlines())

    def until(self, true: Callable[[], object], limit: float = 120) -> None:
        deadline = time.monotonic() + limit
        while not true():
            assert time.monotonic() < deadline, "".join(self.text(rank)[-2000:] for rank in self.running)
            time.sleep(0.02)

    def until_step(self, step: int) -> None:
        self.until(lambda: max(records.loss_curve(self.records()), default=0) >= step)
