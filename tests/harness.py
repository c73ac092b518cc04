"""What tests ask of an embedded cluster, from a shell's side."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

RECORDED_MINOR = 32
"""The kubectl of the recorded answers."""

KIT = [sys.executable, "-m", "kitlib.cli"]


def kubectls() -> list[str]:
    """Return the kubectl on PATH and those that `KIT_TEST_KUBECTLS` lists, each once."""
    listed = os.environ.get("KIT_TEST_KUBECTLS", "").split(os.pathsep)
    found = [path for path in [shutil.which("kubectl"), *listed] if path and Path(path).exists()]
    return list(dict.fromkeys(found))


def minor_of(kubectl: str) -> int:
    """Return the minor version of a kubectl binary."""
    argv = [kubectl, "version", "--client", "-o", "json"]
    version = subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout
    return int(re.sub(r"\D", "", json.loads(version)["clientVersion"]["minor"]))


@dataclass
class EmbeddedCluster:
    """One KIT_HOME and the commands that work on it.

    Attributes:
        home: The KIT_HOME.
        env: Environment of every command: KIT_HOME, KUBECONFIG, and a HOME of its own.
    """

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def kit(self, *arguments: str, code: int | None = 0, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a `kit` command and assert its exit code (None: any)."""
        return _run([*KIT, *arguments], self.env, code, timeout)

    def kubectl(
        self, *arguments: str, code: int | None = 0, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a `kubectl` command and assert its exit code (None: any); skip the test where there is no kubectl."""
        if shutil.which("kubectl") is None and os.environ.get("CI") != "true":
            pytest.skip("kubectl is not installed: see `kit doctor`")
        return _run(["kubectl", *arguments], self.env, code, timeout, stdin)

    def get(self, *arguments: str) -> dict:
        """Return what `kubectl get ... -o json` prints."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def apply(self, *objects: dict) -> None:
        """Apply objects given as dicts."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", stdin=text)

    def status(self) -> dict:
        """Return `kit status --json`."""
        return json.loads(self.kit("status", "--json").stdout)

    def pid(self, name: str) -> int:
        """Return the process id of one of the cluster's processes, such as `control-plane`."""
        return next(p["pid"] for p in self.status()["processes"] if p["name"] == name)

    def cluster_id(self) -> str:
        """Return the mark that every process of this cluster carries."""
        return json.loads((self.home / "cluster.json").read_text())["cluster"]["cluster_id"]


def _run(
    argv: list[str], env: dict[str, str], code: int | None, timeout: float, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, timeout=timeout)
    shown = f"{' '.join(argv[:8])}\nexit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert code is None or done.returncode == code, shown
    return done


def processes_of(cluster_id: str) -> list[psutil.Process]:
    """Return the living processes that carry a cluster's mark, by the same means as an outsider would."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get("KIT_CLUSTER_ID")
            if mark == cluster_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def with_argument(argument: str) -> list[psutil.Process]:
    """Return the living processes that were started with an argument."""
    return [p for p in psutil.process_iter(["cmdline"]) if argument in (p.info["cmdline"] or ())]


def eventually(what: Callable[[], object], limit: float = 60, every: float = 0.1) -> object:
    """Return the first true value of `what`; fail with its last value or error after `limit` seconds."""
    deadline = time.monotonic() + limit
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = what()
            if last:
                return last
        except (AssertionError, LookupError, OSError, psutil.Error) as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"not within {limit} s; last seen: {last!r}")


def environment(home: Path, user_home: Path) -> dict[str, str]:
    """Return the environment of a shell that knows this KIT_HOME and nothing else of the kit or of Kubernetes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KIT_", "KUBE"))}
    return {**kept, "KIT_HOME": str(home), "KUBECONFIG": str(home / "kubeconfig"), "HOME": str(user_home)}


def heed_signals(end: Callable[[], object]) -> None:
    """Take SIGTERM as Ctrl-C is taken: what is open is closed, and with it every cluster.

    A shell lets what a script starts in the background ignore Ctrl-C. What the tests start must not.

    Args:
        end: Raises what ends this process with exit code 143.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: end())


@contextlib.contextmanager
def throwaway_cluster(kind: str, *up: str) -> Iterator[EmbeddedCluster]:
    """Start a cluster in a KIT_HOME of its own, and remove both, also when this process is told to end.

    A failed assertion keeps the logs beside it.

    Args:
        kind: What it is for, part of the folder's name.
        up: Arguments of `kit up`.
    """
    heed_signals(lambda: sys.exit(143))
    home = Path(tempfile.mkdtemp(prefix=f"kit-{kind}-"))
    cluster = EmbeddedCluster(home, environment(home, home))
    try:
        cluster.kit("up", *up)
        yield cluster
    except AssertionError:
        if (home / "logs").exists():
            shutil.copytree(home / "logs", f"{home}-logs", dirs_exist_ok=True)
        raise
    finally:
        cluster.kit("down", "--purge", code=None)
        shutil.rmtree(home, ignore_errors=True)


def thorough(usual: set[str], more: set[str]) -> set[str]:
    """Return what a test goes through: the usual cases, and with `KIT_TEST_ALL=1` all of them, which takes longer."""
    return usual | more if os.environ.get("KIT_TEST_ALL") else usual
