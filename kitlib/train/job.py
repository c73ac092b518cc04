"""The three objects of a run, as the plain dicts that the API takes: ConfigMap, Service, Indexed Job.

No operator, no CRD, no registry: the scripts travel byte for byte in the ConfigMap, the ranks meet through the
Service's environment variables (no DNS), and the Job brings lost Pods back. `preview` prints the YAML with a reason
for each line; nothing here talks to a cluster.
"""

from __future__ import annotations

import ast
import difflib
import getpass
import hashlib
import json
import os
import re
import secrets
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml
from kubernetes.utils.quantity import parse_quantity

from kitlib.errors import KitError
from kitlib.home import kit_home

GPU = "nvidia.com/gpu"
IMAGE = "pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime"
SCRIPTS = Path(__file__).parent
BESIDE = ("launch.py", "settings.py", "measure.py", "checkpoint.py")
"""The files that lie beside the worker script in a Pod."""
PART_OF = {"app.kubernetes.io/part-of": "kit", "app.kubernetes.io/name": "train"}
JOB_NAME, INDEX = "batch.kubernetes.io/job-name", "batch.kubernetes.io/job-completion-index"
TAINT = re.compile(
    r"(?P<key>[A-Za-z0-9][-\w./]*)(=(?P<value>[-\w.]*))?(:(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?"
)
LABEL = r"[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?"
LABEL_KEY = rf"([a-z0-9][-a-z0-9.]{{0,252}}/)?{LABEL}"
OBJECT_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
RESERVED = {"KIT_SERVICE", "KIT_PORT", "KIT_GPUS", "KIT_WORKERS", "POD_IP", "POD_NAME", "NODE_NAME",
            "JOB_COMPLETION_INDEX", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}  # fmt: skip
REAL_GPU = {
    "gpt2-124m": "bfloat16, torch.compile, and a batch for 80 GB of GPU memory (less: batch_size=, grad_accum=)"
}
"""Presets that make no sense without a real GPU, and what they want of it."""
GRACE_SECONDS = 45
"""More than the 30 s that torchrun gives its workers, which is more than a save takes."""

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """What one GPU's worth of a preset asks of a node.

    Attributes:
        cpu: CPU request, such as `500m`.
        memory: Memory request.
        memory_limit: Memory limit.
        shm: Size limit of /dev/shm (counts against the memory limit).
    """

    cpu: str
    memory: str
    memory_limit: str
    shm: str


SIZES = {
    "tiny": Size("250m", "384Mi", "2Gi", "64Mi"),
    "small": Size("500m", "1Gi", "4Gi", "256Mi"),
    "gpt2-124m": Size("4", "16Gi", "48Gi", "4Gi"),
}


@dataclass(frozen=True)
class TrainJob:
    """What a run is made of; `manifests` turns it into objects.

    Attributes:
        workers: Pods, one index each.
        gpus_per_worker: GPUs a Pod asks for; 0 trains on the CPU without claiming a GPU.
        preset: `tiny`, `small` or `gpt2-124m`.
        settings: Flags of `worker.py` that differ from the preset, such as `{"steps": 50}`.
        name: Name of the run and of its objects.
        image: Any image with PyTorch.
        checkpoints: `auto` (a folder of this machine on the embedded cluster, none elsewhere), `none`,
            `pvc:CLAIM`, or `hostpath:/FOLDER`.
        restarts: How often a worker may fail before the Job gives up.
        script: Your own worker script instead of the kit's.
        min_workers: Smallest number of workers to go on with when the cluster cannot hold all.
        cpu: CPU request of a Pod instead of the preset's.
        memory: Memory request of a Pod instead of the preset's.
        pull_secret: Secret with the password of a private registry.
        node_selector: Labels that a node must have, such as `{"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}`.
        tolerations: Taints to put up with besides the GPU one, written `KEY[=VALUE][:EFFECT]`.
        env: More environment variables, such as `{"NCCL_SOCKET_IFNAME": "eth0"}`.
        start: Number of workers to start with, where the cluster does not hold all of them now.
    """

    workers: int = 2
    gpus_per_worker: int = 1
    preset: str = "tiny"
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    image: str = IMAGE
    checkpoints: str = "auto"
    restarts: int = 3
    script: Path | None = None
    min_workers: int | None = None
    cpu: str | None = None
    memory: str | None = None
    pull_secret: str | None = None
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    start: int | None = None

    @property
    def port(self) -> int:
        """Port of rank 0's store: derived from the run's name, so that runs on one machine do not meet."""
        return 20000 + int(hashlib.sha256(self.name.encode()).hexdigest()[:8], 16) % 10000

    @property
    def world_size(self) -> int:
        """Number of ranks on real GPUs: one per GPU."""
        return self.workers * max(1, self.gpus_per_worker)

    @property
    def sequences(self) -> int:
        """Sequences of one step over all workers, per GPU of each: a number of workers must divide it. 0: not known."""
        known = _known(self.worker_script, "settings")
        known |= (_known(self.worker_script, "presets").get(self.preset) or {}) | self.settings
        return self.workers * int(known.get("batch_size", 0)) * int(known.get("grad_accum", 1))

    @property
    def worker_script(self) -> Path:
        """The script that the Pods run."""
        return self.script or SCRIPTS / "worker.py"

    @property
    def checkpoint_folder(self) -> Path | None:
        """The folder of this machine that holds the checkpoints, if it is one."""
        kind, _, path = self.checkpoints.partition(":")
        return Path(path) if kind == "hostpath" else None


def _known(script: Path, kind: str) -> dict[str, Any]:
    """Read the settings (fields of Config) or the presets from a worker script, without running it."""
    for node in ast.parse(script.read_text()).body:
        if kind == "settings" and isinstance(node, ast.ClassDef) and node.name == "Config":
            lines = [line for line in node.body if isinstance(line, ast.AnnAssign) and line.value]
            return {ast.unparse(line.target): ast.literal_eval(line.value) for line in lines if line.value}
        if kind == "presets" and isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "PRESETS":
            assert isinstance(node.value, ast.Dict)
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(key): _literals(value) for key, value in pairs if key}
    return {}


def _literals(node: ast.expr) -> dict[str, Any]:
    """Return the entries of a dict that are written out; `**others` are left out."""
    pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
    return {ast.literal_eval(key): ast.literal_eval(value) for key, value in pairs if key}


def prepare(job: TrainJob) -> TrainJob:
    """Check a run's description and fill in its name.

    Raises:
        KitError: Something cannot work; the message says what to write instead.
    """
    if not job.worker_script.is_file():
        raise KitError(f"There is no script {job.worker_script}: give the path of a Python file.")
    _check_numbers(job)
    presets = _known(job.worker_script, "presets")
    if presets and job.preset not in presets:
        raise KitError(f"Unknown preset {job.preset!r}: choose one of {', '.join(presets)}.")
    _check_settings(job, _known(job.worker_script, "settings"))
    _check_amounts(job)
    _check_place(job)
    if job.checkpoint_folder and not job.checkpoint_folder.is_absolute():
        raise KitError(f"checkpoints is {job.checkpoints!r}: the folder must be a whole path, hostpath:/FOLDER.")
    name = job.name or f"{job.preset}-{secrets.token_hex(3)}"
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", name):
        raise KitError(f"{name!r} cannot name a run: lower-case letters, digits, dashes, a letter first, at most 50.")
    if job.checkpoints.partition(":")[0] not in ("auto", "none", "pvc", "hostpath"):
        raise KitError(f"checkpoints is {job.checkpoints!r}: write auto, none, pvc:CLAIM or hostpath:/FOLDER.")
    return replace(job, name=name)


def _check_numbers(job: TrainJob) -> None:
    smallest = job.workers if job.min_workers is None else job.min_workers
    for name, value, low in (("workers", job.workers, 1), ("gpus_per_worker", job.gpus_per_worker, 0),
                             ("restarts", job.restarts, 0), ("min_workers", smallest, 1)):  # fmt: skip
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise KitError(f"{name} is {value!r}: it must be a whole number of at least {low}.")
    if job.workers > 1000:
        raise KitError(f"workers is {job.workers}: at most 1000.")
    if smallest > job.workers:
        raise KitError(f"min_workers is {smallest}, more than the {job.workers} workers: give at most {job.workers}.")


def _check_settings(job: TrainJob, known: dict[str, Any]) -> None:
    offered = sorted(set(known) - {"preset", "run", "checkpoints", "world"})
    for name, value in job.settings.items() if known else ():
        if name not in offered:
            likely = difflib.get_close_matches(name, [*offered, *(one.name for one in fields(TrainJob))], 1)
            meant = f" (do you mean {likely[0]}?)" if likely else ""
            raise KitError(f"Unknown setting {name!r}{meant}: {job.worker_script.name} knows {', '.join(offered)}.")
        kind = type(known[name])
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or isinstance(value, bool) != (kind is bool):
            raise KitError(f"{name} is {value!r}: it must be of type {kind.__name__}, such as {known[name]!r}.")
        if name in ("steps", "batch_size", "grad_accum", "block_size", "threads", "save_every") and value < 1:
            raise KitError(f"{name} is {value}: it must be at least 1.")
    if job.settings.get("dtype", "float32") not in ("float32", "bfloat16") and known:
        raise KitError(f"dtype is {job.settings['dtype']!r}: write 'float32' or 'bfloat16'.")
    tokens = job.settings.get("batch_size", 1) * job.settings.get("block_size", 1)
    if tokens > 2**22:
        raise KitError(f"A micro-batch of {tokens:,} tokens fits no GPU: use a smaller batch_size and more grad_accum.")


def _check_amounts(job: TrainJob) -> None:
    for name, low, example in (("cpu", "0", "500m"), ("memory", "1Mi", "1Gi")):
        amount = getattr(job, name)
        if amount is not None and not _at_least(low, str(amount)):
            raise KitError(f"{name} is {amount!r}: it must be a quantity of at least {low}, such as {example!r}.")


def _at_least(low: str, amount: str) -> bool:
    if not re.fullmatch(r"[0-9.]+[A-Za-z]*[-+]?[0-9]*", amount, re.ASCII):  # the client reads more than the server does
        return False
    try:
        return bool(parse_quantity(amount) >= parse_quantity(low))
    except ValueError:
        return False


def _check_place(job: TrainJob) -> None:
    if not re.fullmatch(r"\S+", job.image):
        raise KitError(f"image is {job.image!r}: write one such as {IMAGE}.")
    kind, _, claim = job.checkpoints.partition(":")
    for what, name in (("pull_secret", job.pull_secret), ("checkpoints", claim if kind == "pvc" else None)):
        if name is not None and not re.fullmatch(OBJECT_NAME, name):
            raise KitError(f"{what} has {name!r}: a name has lower-case letters, digits, dashes and dots.")
    for taint in job.tolerations:
        if not isinstance(taint, str) or not TAINT.fullmatch(taint):
            raise KitError(f"tolerations has {taint!r}: write KEY, KEY=VALUE or KEY=VALUE:NoSchedule.")
    for name, values in (("node_selector", job.node_selector), ("env", job.env)):
        if not isinstance(values, dict) or not all(isinstance(text, str) for pair in values.items() for text in pair):
            raise KitError(f"{name} is {values!r}: it must be a dict of strings, such as {{'NAME': 'value'}}.")
    for key, value in job.node_selector.items():
        if not re.fullmatch(LABEL_KEY, key) or not re.fullmatch(f"({LABEL})?", value):
            raise KitError(
                f"node_selector has {key}={value}: no label is like that (`kubectl get nodes --show-labels`)."
            )
    fixed = sorted(set(job.env) & RESERVED)
    if fixed:
        raise KitError(f"env sets {fixed[0]}, which the run sets itself: leave it out.")


def place_checkpoints(job: TrainJob, embedded: bool, namespace: str) -> TrainJob:
    """Turn `auto` into a folder of this machine on the embedded cluster, and into `none` elsewhere."""
    if job.checkpoints != "auto":
        return job
    # A suffix of its own: a later run of the same name must not find this one's checkpoints.
    folder = kit_home() / "train" / namespace / f"{job.name}.{secrets.token_hex(3)}"
    return replace(job, checkpoints=f"hostpath:{folder}" if embedded else "none")


def arguments(job: TrainJob) -> list[str]:
    """Return the worker's flags."""
    flags = ["--preset", job.preset, "--run", job.name]
    if job.checkpoints not in ("none", "auto"):
        flags += ["--checkpoints", "/checkpoints"]
    for name, value in job.settings.items():
        flag = name.replace("_", "-")
        flags += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return flags


def labels(job: TrainJob) -> dict[str, str]:
    """Return the labels of everything that belongs to a run."""
    try:
        user = os.environ.get("KIT_LEARNER") or os.environ.get("JUPYTERHUB_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = "learner"
    user = re.sub(r"[^A-Za-z0-9]+", "-", user)[:63].strip("-") or "learner"
    return {**PART_OF, "kit/run": job.name, "kit/user": user}


def manifests(job: TrainJob) -> list[Manifest]:
    """Return the run's objects in the order of their creation: Job (suspended), ConfigMap, Service.

    The Job comes first because it owns the others: deleting it deletes them, and a crash between two of the
    steps leaves a suspended Job that runs nothing.

    Args:
        job: A description that `prepare` has checked.
    """
    return [_job(job), _config_map(job), _service(job)]


def _metadata(job: TrainJob) -> Manifest:
    return {"name": job.name, "labels": labels(job)}


def _config_map(job: TrainJob) -> Manifest:
    scripts = {"worker.py": job.worker_script, **{name: SCRIPTS / name for name in BESIDE}}
    data = {name: path.read_text() for name, path in scripts.items()} | {"workers": str(job.start or job.workers)}
    if sum(len(text.encode()) for text in data.values()) > 1_000_000:
        raise KitError(f"{job.worker_script} is larger than a ConfigMap holds (1 MiB): build an image instead.")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(job), "data": data}


def _service(job: TrainJob) -> Manifest:
    # The two ports differ so that a proxy on rank 0's own machine can listen on the first.
    port = {"name": "rendezvous", "port": job.port - 1 if job.port % 2 else job.port + 1, "targetPort": job.port}
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": _metadata(job),
        "spec": {"type": "ClusterIP", "publishNotReadyAddresses": True,
                 "selector": {JOB_NAME: job.name, INDEX: "0"}, "ports": [port]},
    }  # fmt: skip


def _job(job: TrainJob) -> Manifest:
    described = {"workers": job.workers, "gpus_per_worker": job.gpus_per_worker, "preset": job.preset,
                 "settings": job.settings, "checkpoints": job.checkpoints, "min_workers": job.min_workers,
                 "sequences": job.sequences}  # fmt: skip
    count = job.start or job.workers
    sha256 = hashlib.sha256(job.worker_script.read_bytes()).hexdigest()
    exits = {"containerName": "worker", "operator": "In"}
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {**exits, "values": [64]}},
        {"action": "Ignore", "onExitCodes": {**exits, "values": [143]}},
    ]
    annotations = {"kit/script-sha256": sha256, "kit/train": json.dumps(described)}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {**_metadata(job), "annotations": annotations},
        "spec": {
            "completionMode": "Indexed", "completions": count, "parallelism": count, "suspend": True,
            "backoffLimit": job.restarts * job.workers, "podFailurePolicy": {"rules": rules},
            "ttlSecondsAfterFinished": 86400,
            "template": {"metadata": {"labels": labels(job)}, "spec": _pod(job)},
        },
    }  # fmt: skip


def _pod(job: TrainJob) -> Manifest:
    size = SIZES.get(job.preset, SIZES["small"])
    kind, _, source = job.checkpoints.partition(":")
    volumes: list[Manifest] = [
        {"name": "scripts", "configMap": {"name": job.name}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size.shm}},
    ]
    mounts: list[Manifest] = [{"name": "scripts", "mountPath": "/kit", "readOnly": True},
                              {"name": "shm", "mountPath": "/dev/shm"}]  # fmt: skip
    if kind in ("pvc", "hostpath"):
        claim = {"persistentVolumeClaim": {"claimName": source}}
        folder = {"hostPath": {"path": source, "type": "DirectoryOrCreate"}}
        volumes.append({"name": "checkpoints", **(claim if kind == "pvc" else folder)})
        mounts.append({"name": "checkpoints", "mountPath": "/checkpoints"})
    place = {"imagePullSecrets": [{"name": job.pull_secret}] if job.pull_secret else [],
             "nodeSelector": job.node_selector}  # fmt: skip
    return {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000,
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
                        *(_toleration(taint) for taint in job.tolerations)],
        **{name: value for name, value in place.items() if value},
        "containers": [_container(job, size, mounts)], "volumes": volumes,
    }  # fmt: skip


def _toleration(taint: str) -> Manifest:
    found = TAINT.fullmatch(taint)
    assert found, "prepare has checked it"
    value, effect = found["value"], found["effect"]
    rule = {"operator": "Equal", "value": value} if value is not None else {"operator": "Exists"}
    return {"key": found["key"], **rule, **({"effect": effect} if effect else {})}


def _container(job: TrainJob, size: Size, mounts: list[Manifest]) -> Manifest:
    gpus = {GPU: str(job.gpus_per_worker)} if job.gpus_per_worker else {}
    requests = {"cpu": job.cpu or size.cpu, "memory": job.memory or size.memory}
    threads, known = str(job.settings.get("threads", 1)), _known(job.worker_script, "settings")
    plain = {"KIT_SERVICE": job.name, "KIT_PORT": str(job.port), "KIT_GPUS": str(job.gpus_per_worker),
             "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1",
             "USER": "kit", "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
             **({"KIT_WORKERS": str(job.workers)} if job.min_workers and "world" in known else {}),
             **({"NCCL_DEBUG": "WARN"} if job.gpus_per_worker else {}), **job.env}  # fmt: skip
    fields = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name", "NODE_NAME": "spec.nodeName"}
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    return {
        "name": "worker", "image": job.image, "command": ["python3", "/kit/launch.py"], "args": arguments(job),
        "env": env + [{"name": name, "value": value} for name, value in plain.items()],
        "resources": {"requests": {**requests, **gpus}, "limits": {"memory": job.memory or size.memory_limit, **gpus}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError", "volumeMounts": mounts,
    }  # fmt: skip


NOTES = {
    "kind: Job": "runs Pods until they have succeeded",
    "kit/script-sha256": "proves which code made the numbers",
    "completionMode": "each Pod has an index of its own: it becomes the rank",
    "completions": "one per rank",
    "parallelism": "all at the same time: every rank waits for all the others",
    "suspend": "kit makes the other two objects first, then lets it run",
    "backoffLimit": "restarts x workers: one lost rank ends them all, and each counts",
    "podFailurePolicy": "which failures count, first match wins",
    "onPodConditions": "evicted or preempted: bring it back, do not count it",
    "- 64": "wrong configuration: a retry cannot help",
    "- 143": "told to stop, and has saved: bring it back, do not count it",
    "ttlSecondsAfterFinished": "a day later all of it is deleted",
    "restartPolicy": "the Job makes new Pods; old ones keep their logs",
    "terminationGracePeriodSeconds": "longer than torchrun's 30 s, longer than a save",
    "automountServiceAccountToken": "the workers never talk to the API server",
    "runAsNonRoot": "these six lines pass the strictest Pod Security level",
    "tolerations": "GPU nodes are often tainted so that others stay away",
    "image": "any image with PyTorch",
    "command": "checks the configuration, then becomes worker.py",
    "args": "flags of worker.py",
    "POD_IP": "rank 0 listens here",
    "KIT_SERVICE": "the others read the Service's address from its environment variables",
    "KIT_WORKERS": "the global batch is the one of so many workers, also while there are fewer",
    "OMP_NUM_THREADS": "always explicit: torchrun and python would choose differently",
    "PYTHONUNBUFFERED": "logs arrive while it runs",
    "NCCL_DEBUG": "env={'NCCL_DEBUG': 'INFO'} shows the network it chose, NCCL_SOCKET_IFNAME chooses another",
    "imagePullSecrets": "the password of a private registry",
    "nodeSelector": "only nodes with these labels",
    GPU: "whole GPUs only; request and limit must be equal",
    "terminationMessagePolicy": "kubectl describe shows the last lines of a failure",
    "sizeLimit": "counts against the memory limit",
    "mountPath: /dev/shm": "a container's own is 64 MB; NCCL needs more",
    "mountPath: /checkpoints": "rank 0 saves here; a new Pod goes on from it",
    "hostPath": "a folder of the node: right on one machine, use a PVC elsewhere",
    "kind: ConfigMap": "the scripts, byte for byte, never through a shell",
    "workers": "read by launch.py; an elastic run changes it",
    "kind: Service": "a stable address for rank 0",
    "publishNotReadyAddresses": "rank 0 must be found before it is ready",
    "selector": "the Pod with index 0",
    "targetPort": "where rank 0's store listens",
}
"""Why a line of the manifests is there; a line is found by how it begins."""


class Preview:
    """A run's manifests as YAML, a reason beside each line that needs one."""

    def __init__(self, job: TrainJob) -> None:
        """Make the text for a description that `prepare` has checked."""
        self.job = job
        self.manifests = manifests(job)

    def __str__(self) -> str:
        """Return the YAML; the scripts are named by size and hash instead of printed."""
        return "---\n".join(_explain(_shorten(one)) for one in self.manifests)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        style = "font-size:12px;line-height:1.35;white-space:pre;overflow:auto;max-height:44em"
        soft = "color:var(--jp-ui-font-color2, #57606a);font-style:italic"
        lines = []
        for line in str(self).splitlines():
            code, mark, note = line.partition("  # ")
            grey = f'<span style="{soft}">{mark}{html.escape(note)}</span>' if mark else ""
            lines.append(html.escape(code) + grey)
        return f'<pre style="{style}">{chr(10).join(lines)}</pre>'


def _shorten(manifest: Manifest) -> Manifest:
    if manifest["kind"] != "ConfigMap":
        return manifest
    data = {
        name: f"({text.count(chr(10))} lines, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"
        if name.endswith(".py")
        else text
        for name, text in manifest["data"].items()
    }
    return {**manifest, "data": data}


def _explain(manifest: Manifest) -> str:
    unused, lines = dict(NOTES), []
    for line in yaml.safe_dump(manifest, sort_keys=False, width=100).splitlines():
        text = line.strip().removeprefix("- name: ").removeprefix("- ") if "- name: " in line else line.strip()
        found = next((one for one in unused if text == one or text.startswith((f"{one}:", f"- {one}:"))), None)
        lines.append(f"{line:<50}  # {unused.pop(found)}" if found else line)
    return "\n".join(lines) + "\n"
