"""Distributed data parallel training as a Kubernetes Job, measured honestly.

    run = train.submit(workers=2, preset="tiny")    # a Run; train.preview(...) and train.preflight(...) come before
    run.wait()                                      # progress, until it is over
    run.plot("throughput")                          # also step_time, heat_map, loss, network
    run.delete()

The verbs are those of the Kubeflow SDK. Everything goes through the Kubernetes API that `KUBECONFIG` names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kitlib.errors import KitError
from kitlib.train import fit as _fit
from kitlib.train import job as _job
from kitlib.train import run as _run
from kitlib.train.api import Api
from kitlib.train.fit import Preflight
from kitlib.train.job import IMAGE, Preview, TrainJob
from kitlib.train.recorded import recorded_run, recorded_study
from kitlib.train.records import MixedRecordsError, cost_per_million_tokens, largest_difference, load
from kitlib.train.report import plot
from kitlib.train.run import Run, TrainingFailed, clean_up, get_run, runs
from kitlib.train.scaling import Study, scaling_study

__all__ = [
    "IMAGE",
    "MixedRecordsError",
    "Preflight",
    "Preview",
    "Run",
    "Study",
    "TrainJob",
    "TrainingFailed",
    "clean_up",
    "cost_per_million_tokens",
    "get_run",
    "largest_difference",
    "load",
    "plot",
    "preflight",
    "preview",
    "recorded_run",
    "recorded_study",
    "runs",
    "scaling_study",
    "submit",
]


def describe(
    workers: int = 2,
    gpus_per_worker: int = 1,
    preset: str = "tiny",
    *,
    name: str = "",
    image: str = IMAGE,
    checkpoints: str = "auto",
    restarts: int = 3,
    script: str | Path | None = None,
    min_workers: int | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    pull_secret: str | None = None,
    node_selector: dict[str, str] | None = None,
    tolerations: list[str] | None = None,
    env: dict[str, str] | None = None,
    **settings: Any,
) -> TrainJob:
    """Describe a run without creating anything; `submit`, `preview` and `preflight` take the same arguments.

    Args:
        workers: Pods, one rank each (one per GPU on a Pod with several).
        gpus_per_worker: GPUs that each Pod asks for; 0: none, train on the CPU.
        preset: `tiny`, `small` or `gpt2-124m`.
        name: Name of the run; default: the preset and a random suffix.
        image: Any image with PyTorch.
        checkpoints: `auto`, `none`, `pvc:CLAIM` or `hostpath:/FOLDER`.
        restarts: How often a worker may fail before the Job gives up.
        script: Your own worker script instead of the kit's `worker.py`.
        min_workers: Go on with so few workers when the cluster holds no more, and with all of them when it does
            again (elastic); the global batch stays.
        cpu: CPU request of a Pod, such as `500m`.
        memory: Memory request and limit of a Pod, such as `1Gi`.
        pull_secret: Secret with the password of a private registry.
        node_selector: Labels that a node must have.
        tolerations: Taints to put up with besides the GPU one, written `KEY[=VALUE][:EFFECT]`.
        env: More environment variables, such as `{"NCCL_SOCKET_IFNAME": "eth0"}`.
        settings: Any field of `Config` in `worker.py`, such as `steps=50` or `batch_size=8`.

    Raises:
        KitError: Something cannot work; the message says what to write instead.
    """
    values = {key: value for key, value in settings.items() if value is not None}
    path = Path(script) if script is not None else None
    job = TrainJob(
        workers, gpus_per_worker, preset, values, name, image, checkpoints, restarts, path, min_workers, cpu, memory,
        pull_secret, node_selector or {}, tolerations or [], env or {},
    )  # fmt: skip
    return _job.prepare(job)


def submit(*arguments: Any, **options: Any) -> Run:
    """Start a run on the cluster and return at once; see `describe` for the arguments.

    Example:
        >>> run = train.submit(workers=2, preset="tiny", steps=60)  # doctest: +SKIP
        >>> run.wait()  # doctest: +SKIP
    """
    return _run.submit(describe(*arguments, **options))


def preview(*arguments: Any, **options: Any) -> Preview:
    """Show the YAML that `submit` would create, with a reason beside the lines; see `describe` for the arguments."""
    job = describe(*arguments, **options)
    try:
        api = Api()
        return Preview(_job.place_checkpoints(job, api.embedded, api.namespace))
    except KitError:  # no cluster: as on the embedded one
        return Preview(_job.place_checkpoints(job, True, "default"))


def preflight(*arguments: Any, **options: Any) -> Preflight:
    """Say whether a run fits now, and what would wait for what; see `describe` for the arguments."""
    return _fit.preflight(describe(*arguments, **options))
