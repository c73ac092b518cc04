"""Will it fit? The scheduler's arithmetic over what is free now, in words, before anything is created."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from kitlib.errors import KitError
from kitlib.train.api import Api
from kitlib.train.job import GPU, REAL_GPU, TrainJob, manifests

Amounts = dict[str, float]


def quantity(text: str) -> float:
    """Return a Kubernetes quantity as a number: `250m` is 0.25, `1Gi` is 1073741824."""
    return float(parse_quantity(text))


@dataclass
class Node:
    """What a node offers and what is still free on it.

    Attributes:
        name: Its name.
        allocatable: What Pods may request in all.
        free: What no Pod has requested.
        simulated: Whether its GPUs are CPU cores.
        why_not: Why no worker may go there, or empty.
    """

    name: str
    allocatable: Amounts
    free: Amounts
    simulated: bool = False
    why_not: str = ""


@dataclass
class Preflight:
    """Whether a run fits now, and the reason in words.

    Attributes:
        workers: Workers asked for.
        start: How many of them can start now.
        possible: How many could start on an empty cluster.
        simulated: Whether the GPUs are CPU cores.
        lines: The explanation.
    """

    workers: int
    start: int = 0
    possible: int = 0
    simulated: bool = False
    lines: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether all workers can start now."""
        return self.start >= self.workers

    def __str__(self) -> str:
        """Return the explanation."""
        return "\n".join(self.lines)

    __repr__ = __str__


def preflight(job: TrainJob, api: Api | None = None) -> Preflight:
    """Say how many workers of a run can start now, and what the others would wait for.

    It does the arithmetic of the scheduler (requests against what is free, node by node); taints other than the
    GPU one and unreachable nodes are counted out. The scheduler decides, this only predicts.

    Args:
        job: A checked description.
        api: The cluster; default: the one that `KUBECONFIG` names.
    """
    api = api or Api()
    pod = manifests(job)[0]["spec"]["template"]["spec"]
    wanted = {name: quantity(amount) for name, amount in pod["containers"][0]["resources"]["requests"].items()}
    try:
        nodes = read_nodes(api)
    except KitError as error:
        return Preflight(job.workers, job.workers, job.workers, lines=[f"Cannot look at the nodes: {error}"])
    usable = [node for node in nodes if not node.why_not]
    if job.preset in REAL_GPU and not any(node.allocatable.get(GPU) and not node.simulated for node in usable):
        return Preflight(job.workers, simulated=True, lines=_needs_a_gpu(job, wanted))
    result = Preflight(job.workers)
    result.start = sum(_places(wanted, node.free) for node in usable)
    result.possible = sum(_places(wanted, node.allocatable) for node in usable)
    result.simulated = any(node.simulated for node in usable)
    result.lines = _explain(job, result, usable, [node for node in nodes if node.why_not])
    if result.possible < job.workers:
        mend = _short(wanted, usable) or f"Ask for fewer workers{_mend(job, usable)}."
        result.lines.append(f"Even an empty cluster holds only {result.possible}. {mend}")
    return result


def _needs_a_gpu(job: TrainJob, wanted: Amounts) -> list[str]:
    return [
        f"Preset {job.preset} is made for real GPUs: {REAL_GPU[job.preset]}. Each worker also asks for "
        f"{wanted['cpu']:g} CPU cores and {wanted['memory'] / 2**30:g} GiB of memory.",
        "There is no real GPU here: take the preset tiny or small, or a machine or a cluster with GPUs "
        "(docs/real-clusters.md has the commands).",
    ]


def _short(wanted: Amounts, nodes: list[Node]) -> str:
    """Name what not even the largest node has enough of, GPUs apart."""
    units = {"cpu": (1, "CPU cores"), "memory": (2**30, "GiB of memory")}
    lines = []
    for name, (unit, words) in units.items():
        most = max((node.allocatable.get(name, 0.0) for node in nodes), default=0.0)
        if wanted.get(name, 0.0) > most:
            lines.append(f"A worker asks for {wanted[name] / unit:g} {words}, a node has at most {most / unit:.3g}: "
                         f"give less with {name}=.")  # fmt: skip
    return " ".join(lines)


def _places(wanted: Amounts, offered: Amounts) -> int:
    """Return how many Pods with these requests one node holds."""
    return int(min((offered.get(name, 0.0) + 1e-9) // amount for name, amount in wanted.items() if amount))


def places(pod: dict[str, Any], api: Api) -> int:
    """Return how many more Pods like this one the cluster holds now; 0 when it does not let us look.

    Args:
        pod: The spec of a Pod.
        api: The cluster.
    """
    wanted = {name: quantity(amount) for name, amount in pod["containers"][0]["resources"]["requests"].items()}
    try:
        return sum(_places(wanted, node.free) for node in read_nodes(api) if not node.why_not)
    except KitError:
        return 0


def read_nodes(api: Api) -> list[Node]:
    """Return the nodes with what is free on each."""
    used: dict[str, Amounts] = {}
    pods = api.ask(api.core.list_pod_for_all_namespaces)["items"]
    for pod in pods:
        if pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            amounts = used.setdefault(pod["spec"]["nodeName"], {})
            amounts["pods"] = amounts.get("pods", 0.0) + 1
            for container in pod["spec"]["containers"]:
                for name, amount in container.get("resources", {}).get("requests", {}).items():
                    amounts[name] = amounts.get(name, 0.0) + quantity(amount)
    return [_node(item, used.get(item["metadata"]["name"], {})) for item in api.ask(api.core.list_node)["items"]]


def _node(item: dict[str, Any], used: Amounts) -> Node:
    allocatable = {name: quantity(amount) for name, amount in item["status"].get("allocatable", {}).items()}
    labels, spec = item["metadata"].get("labels", {}), item.get("spec", {})
    taints = [one["key"] for one in spec.get("taints", []) if one["effect"] != "PreferNoSchedule" and one["key"] != GPU]
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in item["status"].get("conditions", []))
    why_not = "it is not Ready" if not ready else f"it is tainted {', '.join(taints)}" if taints else ""
    if labels.get("kit/hollow") == "true":
        why_not = "it is hollow: nothing runs there"
    free = {name: amount - used.get(name, 0.0) for name, amount in allocatable.items()}
    return Node(item["metadata"]["name"], allocatable, free, labels.get("kit/gpu") == "simulated", why_not)


def _explain(job: TrainJob, result: Preflight, usable: list[Node], excluded: list[Node]) -> list[str]:
    kind = "simulated GPUs (CPU)" if result.simulated else "GPUs"
    total = int(sum(node.allocatable.get(GPU, 0) for node in usable))
    free = int(sum(node.free.get(GPU, 0) for node in usable))
    wish = f"{job.workers} worker{'s' if job.workers > 1 else ''}"
    nodes = f"{len(usable)} node{'s' if len(usable) != 1 else ''}"
    if job.gpus_per_worker:
        wish += f" with {job.gpus_per_worker} GPU{'s' if job.gpus_per_worker > 1 else ''} each"
        lines = [f"Asks for {wish}. The cluster has {total} {kind} on {nodes}, {free} of them free."]
    else:
        lines = [f"Asks for {wish} without a GPU. The cluster has {nodes}."]
    lines += [f"Node {node.name} does not count: {node.why_not}." for node in excluded[:5]]
    if result.fits:
        return [*lines, "It fits: all workers start at once."]
    lines.append(f"{result.start} of {job.workers} can start now; the others stay Pending, and these wait for them.")
    if result.possible >= job.workers:
        lines.append("It fits once the Pods that hold the rest have ended (`kubectl get pods --all-namespaces`).")
    return lines


def _mend(job: TrainJob, nodes: list[Node]) -> str:
    total = sum(node.allocatable.get(GPU, 0) for node in nodes)
    if not job.gpus_per_worker:
        return ", or for less CPU or memory"
    if total < job.workers * job.gpus_per_worker:
        return ", for gpus_per_worker=0 (CPU, no GPU claimed), or start the cluster with more (`kit up --gpus N`)"
    return ", or for fewer GPUs per worker: no node has enough"
