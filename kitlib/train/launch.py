"""Start the worker in a Pod of an Indexed Job: check the configuration, find rank 0, become the worker.

With one process per Pod this process becomes the worker itself, which calls `meet` to find the other ranks. torchrun
(150 MB and 2 s per Pod) comes in only where a Pod has several GPUs. It runs in this process, because its own program
turns every exit code of a worker into 1, while the Job's `podFailurePolicy` must see 64 ("wrong configuration, do not
retry") and 143 ("told to stop, and has saved").

What it reads: `JOB_COMPLETION_INDEX` (set by the Job controller), `KIT_SERVICE` (name of the Service in front of
rank 0), `KIT_PORT` (where rank 0 listens), `POD_IP`, `KIT_GPUS` (GPUs per Pod), `KIT_WORKERS` (Pods that an elastic run
was meant for), and the file `workers` beside this one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).absolute().parent
NOTICE = 30.0
"""Seconds after which a rank says for whom it waits."""

ALONE = 20.0
"""Seconds that a rank of a run whose last checkpoint is there waits for the others."""


def wrong(message: str) -> NoReturn:
    """Say what is wrong with the configuration and end with 64, which the Job does not retry."""
    print(f"launch.py: {message}", file=sys.stderr, flush=True)
    sys.exit(64)


def number(name: str, text: str | None) -> int:
    """Return a setting that must be a whole number, 0 or more."""
    if text is None or not text.strip().isdigit():
        wrong(f"{name} must be a whole number, it is {text!r}")
    return int(text)


def wait_for(host: str, port: int, limit: float = 300.0) -> None:
    """Wait until rank 0 answers. A proxy without a Pod behind it accepts and hangs up, a store stays silent."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=2) as connection:
                connection.settimeout(0.5)
                if connection.recv(1):
                    return
        except TimeoutError:
            return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"launch.py: rank 0 did not answer at {host}:{port} within {limit:.0f} s")


def meet(rank: int, world: int, limit: float, last: Path | None = None) -> Any:
    """Return the store in which all ranks of this attempt have met (called by the worker); None: PyTorch makes one.

    Rank 0 serves it on its Pod's address, the others reach it by the Service. A rank that comes back may find the
    store of the attempt that just broke; that store has already counted the rank, so the rank waits for the next one.
    A rank whose machine died in the very end finds `last`, the checkpoint of the last step, but nobody else any more:
    then there is nothing to do, and it ends with 0.

    Raises:
        TimeoutError: A rank has not come within `limit` seconds.
    """
    import torch.distributed as dist
    from measure import record

    if "KIT_LISTEN" not in os.environ:  # not the only rank of a Pod
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29511")
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    begin, absent = time.monotonic(), [0]
    deadline, said = begin + limit, False
    options: dict[str, Any] = {"wait_for_workers": False}
    if rank == 0:
        listener = socket.create_server((os.environ["KIT_LISTEN"], port), backlog=1024, reuse_port=False)
        options["master_listen_fd"] = listener.detach()

    def waited() -> bool:
        nonlocal said
        if absent and not said and time.monotonic() - begin > NOTICE:
            record("late", absent=absent, seconds=NOTICE)
            said = True
        if last and last.exists() and time.monotonic() - begin > min(ALONE, limit):
            print(f"launch.py: {last} is there and not all ranks come any more: the run is complete", flush=True)
            os._exit(0)
        return time.monotonic() > deadline

    while not waited():
        absent = [0]
        with contextlib.suppress(dist.DistError, RuntimeError):  # rank 0 is not there yet, or has gone again
            store = dist.TCPStore(host, port, world, rank == 0, timedelta(seconds=5), **options)
            absent = []
            came = store.add(f"joined/{rank}", 1)
            while came == 1 and not waited():
                absent = [other for other in absent or range(world) if not store.check([f"joined/{other}"])]
                if not absent:
                    return store
                time.sleep(0.05)
        time.sleep(0.1)
    late = ", ".join(map(str, absent)) or f"0 (its store still holds an earlier rank {rank})"
    raise TimeoutError(f"rank {late} did not come to {host}:{port} within {limit:.0f} s; its log shows what it does")


def torchrun(flags: list[str]) -> NoReturn:
    """Start and watch the ranks of this Pod; end with 64 if one did, with 143 if all were told to stop, else with 1."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    code = 0
    try:
        run(flags)
    except ChildFailedError as error:
        print(error, file=sys.stderr, flush=True)
        codes = {failure.exitcode for failure in error.failures.values()}
        code = 64 if 64 in codes else 143 if codes == {143} else 1
    except SignalException as error:  # torchrun has told its ranks, and waited for them
        code = 128 + int(error.sigval)
    sys.stdout.flush()
    os._exit(code)


def main() -> None:
    """Read the Pod's environment and become the worker."""
    index = number("JOB_COMPLETION_INDEX", os.environ.get("JOB_COMPLETION_INDEX"))
    pods = number("the file workers", (HERE / "workers").read_text() if (HERE / "workers").exists() else None)
    gpus = number("KIT_GPUS", os.environ.get("KIT_GPUS", "0"))
    port, service = number("KIT_PORT", os.environ.get("KIT_PORT")), os.environ.get("KIT_SERVICE", "")
    pod_ip = os.environ.get("POD_IP") or wrong("POD_IP is not set: the manifest takes it from status.podIP")
    if not index < pods:
        wrong(f"this is Pod {index} of a run with {pods} workers: completions and the file workers do not agree")
    if importlib.util.find_spec("torch") is None:
        wrong(f"{sys.executable} has no torch: use an image with PyTorch, such as the default one")

    # The Service's address comes from its environment variables, so no DNS is needed; DNS is the second choice.
    prefix = service.upper().replace("-", "_")
    host = os.environ.get(f"{prefix}_SERVICE_HOST", service)
    service_port = number(f"{prefix}_SERVICE_PORT", os.environ.get(f"{prefix}_SERVICE_PORT", str(port)))
    address, at = (pod_ip, port) if index == 0 else (host, service_port)
    environment = {}
    if pod_ip.startswith("127."):  # Pods of one machine: gloo and NCCL stay on the loopback device
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        environment = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    if gpus == 0:  # none was asked for: leave alone those that the node may show
        environment["CUDA_VISIBLE_DEVICES"] = ""

    worker = [str(HERE / "worker.py"), *sys.argv[1:]]
    several = gpus > 1 and "KIT_SIMULATED_GPU" not in os.environ
    if "KIT_WORKERS" in os.environ:  # an elastic run keeps its global batch
        worker += ["--world", str(number("KIT_WORKERS", os.environ["KIT_WORKERS"]) * (gpus if several else 1))]
    sys.stdout.flush()
    if several:
        os.environ.update(environment)
        if index > 0:
            wait_for(address, at)
        torchrun([f"--nnodes={pods}", f"--nproc-per-node={gpus}", f"--node-rank={index}",
                  f"--master-addr={address}", f"--master-port={at}", *worker])  # fmt: skip
    environment |= {"RANK": str(index), "WORLD_SIZE": str(pods), "LOCAL_RANK": "0", "KIT_LISTEN": pod_ip,
                    "MASTER_ADDR": address, "MASTER_PORT": str(at)}  # fmt: skip
    os.execve(sys.executable, [sys.executable, *worker], {**os.environ, **environment})


if __name__ == "__main__":
    main()
