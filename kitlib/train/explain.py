"""Why a run waits or fails, in words: from its Pods, their Events, and what the nodes still have."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from kitlib.errors import KitError
from kitlib.train import elastic
from kitlib.train.api import Api
from kitlib.train.fit import read_nodes
from kitlib.train.job import GPU
from kitlib.train.logs import rank_of
from kitlib.train.mends import mend
from kitlib.train.records import Record, of_kind

EXITS = {
    64: "the configuration is wrong (64)",
    137: "it was killed (137): by a node that was lost, for using too much memory, or by hand",
    143: "it was told to stop and has saved (143)",
    255: "its machine went down, and nobody knows how it ended (255)",
}

GAVE_UP = ("Timed out waiting", "collective operation timeout", " did not come to ")
"""What a rank prints last that has waited for another one for too long: gloo's, NCCL's and `launch.py`'s words."""

NOTICE = 3.0
"""Seconds in which a rank notices that another one has gone."""

PATIENCE = 15.0
"""Seconds after which a Pod that its kubelet has not noticed is worth a word."""

Pod = dict[str, Any]


class Explanation(str):
    """Lines of text that show themselves as lines, also as the last value of a cell."""

    def __repr__(self) -> str:
        """Return the text itself."""
        return str(self)


def waiting(pods: list[Pod], api: Api) -> list[str]:
    """Say for every Pod that does not run why it waits, and name the nodes that do not answer."""
    pending = sorted((pod for pod in pods if pod["status"].get("phase") == "Pending"), key=rank_of)
    unscheduled = [pod for pod in pending if not pod["spec"].get("nodeName")]
    lines = [_not_scheduled(unscheduled, api)] if unscheduled and all(_refusal(pod) for pod in unscheduled) else []
    for pod in pending:
        if pod["spec"].get("nodeName") and _age(pod) > PATIENCE and not pod["status"].get("containerStatuses"):
            lines.append(f"Rank {rank_of(pod)} is placed on {pod['spec']['nodeName']}, whose kubelet does not answer")
        for status in pod["status"].get("containerStatuses", []):
            found = status.get("state", {}).get("waiting", {})
            if found.get("reason") == "ContainerCreating" and _age(pod) > PATIENCE:
                lines += _not_started(pod, api)
            if found.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
                said = f"{found['reason']}: {found.get('message', '')}"
                lines.append(f"Rank {rank_of(pod)} ({name} on {node}): {said}{_advice(said)}")
    return lines + [_silent(pod) for pod in pods if elastic.lost(pod)]


def _silent(pod: Pod) -> str:
    node = pod["spec"]["nodeName"]
    advice = f"Bring the node back (`kit node start {node}` on the embedded cluster), and the run goes on."
    return f"Rank {rank_of(pod)} is on {node}, which does not answer. {advice}"


def _not_started(pod: Pod, api: Api) -> list[str]:
    """Say what its kubelet complains about: a volume that is not there, a sandbox that cannot be made."""
    selector = f"involvedObject.uid={pod['metadata']['uid']},type=Warning"
    found = api.patiently(api.core.list_namespaced_event, api.namespace, field_selector=selector)["items"]
    said = [f"{one.get('reason')}: {one.get('message', '')}" for one in found][-1:]
    return [f"Rank {rank_of(pod)} cannot start on {pod['spec'].get('nodeName')}: {one}{_advice(one)}" for one in said]


def not_made(name: str, workers: int, pods: list[Pod], api: Api) -> list[str]:
    """Say why the Job controller could not make a run's Pods: a quota, a LimitRange, the Pod Security level."""
    if len(pods) >= workers:
        return []
    selector = f"involvedObject.kind=Job,involvedObject.name={name},reason=FailedCreate"
    found = api.patiently(api.core.list_namespaced_event, api.namespace, field_selector=selector)["items"]
    said = {str(event.get("message", "")).partition("is forbidden: ")[2] or event.get("message", "") for event in found}
    missing = workers - len(pods)
    return [f"{missing} of {workers} workers were refused: {text}{_advice(text)}" for text in sorted(said)]


def _advice(text: str) -> str:
    found, stop = mend(text), "" if text.rstrip().endswith((".", ")")) else "."
    return f"{stop} {found}" if found else ""


def _age(pod: Pod) -> float:
    return _seconds_since(pod["metadata"]["creationTimestamp"])


def _seconds_since(moment: str) -> float:
    return (datetime.now(timezone.utc) - datetime.fromisoformat(moment.replace("Z", "+00:00"))).total_seconds()


def _refusal(pod: Pod) -> str:
    """Return why the scheduler found no node, in its own words."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message", ""))
    return ""


def _not_scheduled(pods: list[Pod], api: Api) -> str:
    ranks = ", ".join(str(rank_of(pod)) for pod in pods)
    who = f"Rank{'s' if len(pods) > 1 else ''} {ranks} wait{'' if len(pods) > 1 else 's'}"
    wanted = int(pods[0]["spec"]["containers"][0].get("resources", {}).get("requests", {}).get(GPU, 0))
    said = f"(the scheduler: {_refusal(pods[0])})"
    if not wanted or "Insufficient " + GPU not in said:
        return f"{who}: no node fits {said}{_advice(said)}"
    try:
        nodes, holders = read_nodes(api), gpu_holders(api)
    except KitError:
        return f"{who} for a GPU {said}"
    total = int(sum(node.allocatable.get(GPU, 0) for node in nodes if not node.why_not))
    in_use = ", ".join(f"{name} holds {count}" for name, count in sorted(holders.items())[:6]) or "none is in use"
    each = f"{wanted} GPU{'s' if wanted > 1 else ''}" + (" each" if len(pods) > 1 else "")
    return f"{who} for {each}; the cluster has {total}: {in_use} {said}"


def gpu_holders(api: Api) -> dict[str, int]:
    """Return which Pods hold how many GPUs."""
    holders = {}
    for pod in api.ask(api.core.list_pod_for_all_namespaces)["items"]:
        count = sum(int(one.get("resources", {}).get("requests", {}).get(GPU, 0)) for one in pod["spec"]["containers"])
        if count and pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            holders[pod["metadata"]["name"]] = count
    return holders


def ended(pod: Pod) -> dict[str, Any] | None:
    """Return how a Pod's container ended: exitCode, reason, message; None while it runs."""
    for status in pod["status"].get("containerStatuses", []):
        found: dict[str, Any] | None = status.get("state", {}).get("terminated")
        if found:
            return found
    return None


def failure(pod: Pod, lines: list[str]) -> str:
    """Say how a rank failed, with the last lines that it printed."""
    found = ended(pod) or {}
    code = found.get("exitCode")
    reason = pod["status"].get("reason") or found.get("reason") or ""
    why = "OOMKilled: it used more memory than its limit" if reason == "OOMKilled" else EXITS.get(code or 0, "")
    if any(line.startswith("Timeout (") for line in lines[-60:]):
        why = "it hung, and ended itself; below is where, the innermost call first"
        lines = lines[[line.startswith("Timeout (") for line in lines].index(True) :][:12]
    why = why or pod["status"].get("message") or f"exit code {code}"
    where = pod["spec"].get("nodeName", "no node")
    tail = _tail(lines, 12)
    advice = mend(why + tail) or ("Mend what its last lines name, and submit it again." if "Error: " in tail else "")
    return f"Rank {rank_of(pod)} failed on {where}: {why.rstrip('.')}. {advice}".rstrip() + tail


def _tail(lines: list[str], count: int) -> str:
    """Return the last lines that say something: no C++ frames, no carets below a call, no empty lines."""
    telling = [line for line in lines if line.strip(" ^~") and not line.startswith("frame #")]
    return "".join(f"\n    {line}" for line in telling[-count:])


def hung(pods: list[Pod], lines: dict[str, list[str]]) -> list[str]:
    """Name the ranks for which others have waited in vain: they still run, and do nothing.

    Args:
        pods: The run's Pods.
        lines: The log of each, by the Pod's uid.
    """
    gave_up = []
    for pod in pods:
        at = (ended(pod) or {}).get("finishedAt")
        text = "\n".join(lines.get(pod["metadata"]["uid"], [])[-40:])
        if at and any(sign in text for sign in GAVE_UP) and _seconds_since(at) > NOTICE:
            gave_up.append((at, rank_of(pod)))
    found = []
    for pod in pods:
        created, name, rank = pod["metadata"]["creationTimestamp"], pod["metadata"]["name"], rank_of(pod)
        others = sorted({other for at, other in gave_up if created < at and other != rank})
        if others and _answers(pod):
            tail = _tail(lines.get(pod["metadata"]["uid"], []), 6)
            waited = f"rank {', '.join(map(str, others))} waited for it in vain"
            end = f"`kubectl delete pod {name}` makes the Job replace it now"
            found.append(f"Rank {rank} on {pod['spec'].get('nodeName')} hangs: {waited}. {end}.{tail}")
    return found


def late(pods: list[Pod], records: list[Record], lines: dict[str, list[str]]) -> list[str]:
    """Name the ranks that run and that the others still wait for at the start.

    Args:
        pods: The run's Pods.
        records: The run's records so far; a header after a `late` one says that all have come.
        lines: The log of each, by the Pod's uid.
    """
    met = max((one["time"] for one in of_kind(records, "header")), default=0.0)
    absent = {rank: one for one in of_kind(records, "late") if one["time"] > met for rank in one["absent"]}
    found = []
    for pod in pods:
        rank, name = rank_of(pod), pod["metadata"]["name"]
        if rank in absent and _answers(pod) and _age(pod) > absent[rank]["seconds"]:
            tail = _tail(lines.get(pod["metadata"]["uid"], []), 6)
            found.append(
                f"Rank {rank} on {pod['spec'].get('nodeName')} has not come to the others for "
                f"{absent[rank]['seconds']:.0f} s. `kubectl delete pod {name}` makes the Job replace it.{tail}"
            )
    return found


def _answers(pod: Pod) -> bool:
    """Say whether a Pod runs and is neither on its way out nor on a node that is off."""
    leaves = "deletionTimestamp" in pod["metadata"]
    return bool(pod["status"].get("phase") == "Running" and not leaves and not elastic.lost(pod))


def is_root_cause(pod: Pod, lines: list[str]) -> bool:
    """Say whether a rank failed by itself, not because another one had gone.

    A traceback without its last line (the Pod was deleted while its log was read) counts as a consequence.
    """
    text = "\n".join(lines[-40:]).rstrip()
    if any(line.startswith("Timeout (") for line in lines[-60:]):
        return True
    if "Traceback" in text and text.splitlines()[-1].startswith(" "):
        return False
    lost_peer = any(sign in text for sign in ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL",
                                              "Broken pipe", "DistBackendError", "rank 0 did not"))  # fmt: skip
    return not lost_peer and (ended(pod) or {}).get("exitCode") != 143
