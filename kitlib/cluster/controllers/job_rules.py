"""The rules of a Job, without any API: which Pods count, when the Job has failed or succeeded, who is replaced when.

Stands for the pure parts of `pkg/controller/job`: `indexed_job_utils.go`, `pod_failure_policy.go`,
`success_policy.go` and `backoff_utils.go`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kitlib.cluster.clock import parse_time
from kitlib.cluster.objects import Object, condition, is_active, is_deleting, phase

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
MAX_BACKOFF = 600.0

Verdict = tuple[str, str]
"""Reason and message of a Job's end."""


@dataclass(frozen=True)
class Tally:
    """What the Pods of a Job add up to.

    Attributes:
        active: Pods that are neither finished nor being deleted.
        terminating: Pods being deleted that have not finished yet.
        new_succeeded: Finished Pods that the status does not know yet.
        new_failed: Failed ones that it does not know, those that the policy ignores left out.
        ignored: Failed ones that the policy ignores.
        succeeded: All successes, counted, uncounted and new.
        failed: All failures, likewise.
        completed: Indexes with a success.
        failed_indexes: Indexes that are given up.
        fail_job: Message of a `FailJob` rule that a Pod met, or empty.
    """

    active: list[Object]
    terminating: list[Object]
    new_succeeded: list[Object]
    new_failed: list[Object]
    ignored: list[Object]
    succeeded: int
    failed: int
    completed: set[int]
    failed_indexes: set[int]
    fail_job: str


def is_indexed(job: Object) -> bool:
    """Tell whether each Pod of the Job has a completion index of its own."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def index_of(pod: Object) -> int:
    """Return the Pod's completion index, -1 when it has none."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdigit() else -1


def is_tracked(pod: Object) -> bool:
    """Tell whether the Pod still waits to be counted."""
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def replaces_only_failed(job: Object) -> bool:
    """Tell whether a Pod being deleted counts only once it has finished."""
    if job["spec"].get("podFailurePolicy"):
        return True
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def has_failed(job: Object, pod: Object) -> bool:
    """Tell whether the Pod counts as failed: Failed, or deleted before it could succeed."""
    if phase(pod) == "Failed":
        return True
    if not is_deleting(pod) or phase(pod) == "Succeeded":
        return False
    return not replaces_only_failed(job) or not pod["spec"].get("nodeName")


def tally(job: Object, pods: list[Object]) -> Tally:
    """Count the Pods of a Job."""
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    known = {*(uncounted.get("succeeded") or ()), *(uncounted.get("failed") or ())}
    new = [pod for pod in pods if is_tracked(pod) and pod["metadata"]["uid"] not in known]
    new_succeeded = [pod for pod in new if phase(pod) == "Succeeded"]
    failures = [(pod, match_policy(job, pod)) for pod in new if has_failed(job, pod)]
    new_failed = [pod for pod, (action, _) in failures if action != "Ignore"]
    completed = parse_indexes(status.get("completedIndexes", ""))
    if is_indexed(job):
        completed |= {index_of(pod) for pod in new_succeeded if 0 <= index_of(pod) < job["spec"]["completions"]}
        succeeded = len(completed)
    else:
        succeeded = status.get("succeeded", 0) + len(uncounted.get("succeeded") or ()) + len(new_succeeded)
    return Tally(
        active=[pod for pod in pods if is_active(pod)],
        terminating=[pod for pod in pods if is_deleting(pod) and phase(pod) not in ("Succeeded", "Failed")],
        new_succeeded=new_succeeded,
        new_failed=new_failed,
        ignored=[pod for pod, (action, _) in failures if action == "Ignore"],
        succeeded=succeeded,
        failed=status.get("failed", 0) + len(uncounted.get("failed") or ()) + len(new_failed),
        completed=completed,
        failed_indexes=_failed_indexes(job, pods, completed),
        fail_job=next((message for _, (action, message) in failures if action == "FailJob"), ""),
    )


def _failed_indexes(job: Object, pods: list[Object], completed: set[int]) -> set[int]:
    """Return the indexes given up: more failures than `backoffLimitPerIndex`, or a `FailIndex` rule."""
    limit = job["spec"].get("backoffLimitPerIndex")
    if limit is None:
        return set()
    given_up = parse_indexes((job.get("status") or {}).get("failedIndexes", ""))
    failures: dict[int, int] = {}
    for pod in pods:
        action = match_policy(job, pod)[0] if has_failed(job, pod) else "Ignore"
        if action != "Ignore":
            failures[index_of(pod)] = failures.get(index_of(pod), 0) + (limit + 1 if action == "FailIndex" else 1)
    return given_up | {index for index, number in failures.items() if number > limit} - completed


def match_policy(job: Object, pod: Object) -> tuple[str, str]:
    """Return the action of the first `podFailurePolicy` rule that the failed Pod meets, and its message.

    Returns:
        `Count` and an empty message when no rule applies; else `Ignore`, `FailIndex`, `FailJob` or `Count`.
    """
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        met = _meets_exit_code(rule, pod) if rule.get("onExitCodes") else _meets_condition(rule, pod)
        if met:
            return rule["action"], f"{met} matching {rule['action']} rule at index {number}"
    return "Count", ""


def _meets_exit_code(rule: Object, pod: Object) -> str:
    wanted = rule["onExitCodes"]
    status = pod.get("status") or {}
    for item in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        code = ((item.get("state") or {}).get("terminated") or {}).get("exitCode", 0)
        if code == 0 or wanted.get("containerName") not in (None, item["name"]):
            continue
        if (code in wanted["values"]) == (wanted["operator"] == "In"):
            return f"Container {item['name']} for pod {_full_name(pod)} failed with exit code {code}"
    return ""


def _meets_condition(rule: Object, pod: Object) -> str:
    for pattern in rule.get("onPodConditions") or ():
        found = condition(pod, pattern["type"])
        if found is not None and found["status"] == pattern.get("status", "True"):
            return f"Pod {_full_name(pod)} has condition {pattern['type']}"
    return ""


def _full_name(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def failure(job: Object, counts: Tally, now: float) -> Verdict | None:
    """Return why the Job has failed, None when it has not."""
    spec = job["spec"]
    if counts.fail_job:
        return "PodFailurePolicy", counts.fail_job
    if counts.failed > spec.get("backoffLimit", 6) or _too_many_restarts(job, counts):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    left = deadline_left(job, now)
    if left is not None and left <= 0:
        return "DeadlineExceeded", "Job was active longer than specified deadline"
    given_up, limit = len(counts.failed_indexes), spec.get("maxFailedIndexes")
    if limit is not None and given_up > limit:
        return "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
    if given_up and given_up + len(counts.completed) >= spec["completions"]:
        return "FailedIndexes", "Job has failed indexes"
    return None


def _too_many_restarts(job: Object, counts: Tally) -> bool:
    """With restartPolicy OnFailure the restarts of containers count, for no Pod ever fails."""
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = 0
    for pod in counts.active:
        status = pod.get("status") or {}
        for item in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            restarts += item.get("restartCount", 0)
    limit = job["spec"].get("backoffLimit", 6)
    return restarts > 0 if limit == 0 else restarts >= limit


def success(job: Object, counts: Tally) -> Verdict | None:
    """Return why the Job has succeeded, None when it has not."""
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        wanted = rule.get("succeededIndexes")
        done = counts.completed & parse_indexes(wanted) if wanted else counts.completed
        needed = rule.get("succeededCount") or len(parse_indexes(wanted or ""))
        if needed and len(done) >= needed:
            return "SuccessPolicy", f"Matched rules at index {number}"
    completions = job["spec"].get("completions")
    reached = counts.succeeded > 0 and not counts.active if completions is None else counts.succeeded >= completions
    return ("CompletionsReached", "Reached expected number of succeeded pods") if reached else None


def deadline_left(job: Object, now: float) -> float | None:
    """Return seconds until `activeDeadlineSeconds` are over, None when there is no deadline or no start."""
    limit = job["spec"].get("activeDeadlineSeconds")
    start = (job.get("status") or {}).get("startTime")
    if limit is None or not start or job["spec"].get("suspend"):
        return None
    return parse_time(start) + float(limit) - now


def wanted_active(job: Object, counts: Tally) -> int:
    """Return how many Pods should be active now."""
    parallelism, completions = job["spec"].get("parallelism", 1), job["spec"].get("completions")
    if completions is None:
        return min(parallelism, len(counts.active)) if counts.succeeded else int(parallelism)
    return max(0, min(int(parallelism), int(completions) - counts.succeeded - len(counts.failed_indexes)))


def missing_indexes(job: Object, counts: Tally) -> list[int]:
    """Return the indexes that need a Pod, lowest first."""
    taken = {index_of(pod) for pod in counts.active} | counts.completed | counts.failed_indexes
    if replaces_only_failed(job):
        taken |= {index_of(pod) for pod in counts.terminating}
    return [index for index in range(job["spec"].get("completions") or 0) if index not in taken]


def surplus_pods(job: Object, counts: Tally, keep: int) -> list[Object]:
    """Return the active Pods to remove: second ones of an index, then those that have come least far."""
    seen: set[int] = set()
    doubles: list[Object] = []
    rest: list[Object] = []
    for pod in sorted(counts.active, key=lambda pod: pod["metadata"]["creationTimestamp"]):
        index = index_of(pod)
        bad = is_indexed(job) and (index in seen or index in counts.completed or index >= job["spec"]["completions"])
        (doubles if bad else rest).append(pod)
        seen.add(index)
    number = max(len(counts.active) - keep, len(doubles))
    rest.sort(key=lambda pod: (phase(pod) == "Running", -parse_time(pod["metadata"]["creationTimestamp"])))
    return [*doubles, *rest][:number]


def backoff_left(pods: Iterable[Object], base: float, now: float, job: Object) -> float:
    """Return seconds to wait before a failed Pod is replaced: `base`, doubled per failure since the last success.

    Args:
        pods: Pods of the Job, or of one index when `backoffLimitPerIndex` is set.
        base: Delay after the first failure.
        now: Seconds since the epoch.
        job: The Job.
    """
    ends = sorted((finish_time(pod), phase(pod)) for pod in pods if phase(pod) == "Succeeded" or has_failed(job, pod))
    failures = 0
    for _, how in ends:
        failures = 0 if how == "Succeeded" else failures + 1
    if not failures:
        return 0.0
    delay: float = min(base * 2 ** min(failures - 1, 30), MAX_BACKOFF)
    return ends[-1][0] + delay - now


def finish_time(pod: Object) -> float:
    """Return when the Pod finished: its last container's end, else its deletion, else its last transition."""
    status = pod.get("status") or {}
    states = [item.get("state") or {} for item in status.get("containerStatuses") or ()]
    ends = [state["terminated"]["finishedAt"] for state in states if (state.get("terminated") or {}).get("finishedAt")]
    if ends and len(ends) == len(states):
        return max(map(parse_time, ends))
    if is_deleting(pod):
        grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
        return parse_time(pod["metadata"]["deletionTimestamp"]) - grace
    changes = [item["lastTransitionTime"] for item in status.get("conditions") or () if item.get("lastTransitionTime")]
    return parse_time(max(changes, default=pod["metadata"]["creationTimestamp"]))


def parse_indexes(text: str) -> set[int]:
    """Return the indexes in a text such as `0,2-4`."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: set[int]) -> str:
    """Return a text such as `0,1,3-5`: runs of three or more are shortened."""
    parts: list[str] = []
    run: list[int] = []
    for index in [*sorted(indexes), None]:
        if run and (index is None or index != run[-1] + 1):
            parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(number) for number in run]
            run = []
        if index is not None:
            run.append(index)
    return ",".join(parts)


def index_patch(job: Object, pod: Object, index: int) -> Object:
    """Return the Pod with what makes it number `index`: name, host name, label, annotation and environment."""
    base = f"{job['metadata']['name']}-{index}"
    metadata, spec = pod["metadata"], pod["spec"]
    metadata["generateName"] = f"{base}-"
    metadata["annotations"] = {**metadata.get("annotations", {}), INDEX: str(index)}
    metadata["labels"][INDEX] = str(index)
    spec["hostname"] = base[:63]
    reference = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    variable: dict[str, Any] = {"name": "JOB_COMPLETION_INDEX", "valueFrom": reference}
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        names = {item["name"] for item in container.get("env") or ()}
        if "JOB_COMPLETION_INDEX" not in names:
            container["env"] = [*(container.get("env") or ()), variable]
    return pod
