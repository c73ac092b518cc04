"""Chapter 10 fits into what mybinder.org gives: 2 GiB, one CPU, no rights, no network, plain isolation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest
from harness import environment, processes_of

MIB = 1 << 20
LIMIT = 2048 * MIB
LAB = 160 * MIB
"""Kept free for the JupyterLab server of a JupyterHub user, which this test does not start."""

SCRIPT = """
{python} -m kitlib.cli run 10 --fast --out "$HOME/out"
code=$?
{python} -m kitlib.cli down --purge
exit $code
"""


class Meter(threading.Thread):
    """Follows the memory of a command and of the cluster that it starts, shared pages counted once."""

    def __init__(self, command: psutil.Process, kit_home: Path) -> None:
        super().__init__(daemon=True)
        self.peak, self.shares = 0, dict[str, int]()
        self._command, self._kit_home = command, kit_home
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.5):
            shares = {f"{process.pid} {name}": pss for process, name, pss in self._measured()}
            if sum(shares.values()) > self.peak:
                self.peak, self.shares = sum(shares.values()), shares

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _measured(self) -> list[tuple[psutil.Process, str, int]]:
        found = []
        for process in self._processes():
            try:
                found.append((process, " ".join(process.cmdline())[-70:], process.memory_full_info().pss))
            except psutil.Error:
                continue
        return found

    def _processes(self) -> set[psutil.Process]:
        try:
            family = {self._command, *self._command.children(recursive=True)}
            text = (self._kit_home / "cluster.json").read_text()
            return family | set(processes_of(json.loads(text)["cluster"]["cluster_id"]))
        except psutil.Error:
            return set()
        except (OSError, ValueError):
            return family


@pytest.mark.timeout(1200)
def test_chapter_10_runs_within_binders_limits() -> None:
    with tempfile.TemporaryDirectory(prefix="kit-binder-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        (home / "tmp").mkdir(parents=True)
        os.chmod(folder, 0o755)
        own = {"KIT_ISOLATION": "plain", "OMP_NUM_THREADS": "1", "TMPDIR": str(home / "tmp")}
        env = {**environment(home / "kit", home), **own}
        script = SCRIPT.format(python=sys.executable)
        with (Path(folder) / "log").open("w+") as log:
            command = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("limits.py"), "bash", "-c", script],
                env=env, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            meter = Meter(psutil.Process(command.pid), home / "kit")
            meter.start()
            code = command.wait(1100)
            meter.stop()
            log.seek(0)
            said = log.read()
        print(said[-3000:], f"peak {meter.peak / MIB:.0f} MiB: {json.dumps(meter.shares, indent=1)}")
        assert code == 0, said[-4000:]
        assert meter.peak + LAB <= LIMIT, {name: f"{pss / MIB:.0f} MiB" for name, pss in meter.shares.items()}
