"""Rules for the kinds that make Pods: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob.

Stands for `pkg/apis/apps/validation` and `pkg/apis/batch/validation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kitlib.cluster.apiserver.registry import per_kind
from kitlib.cluster.apiserver.validation.fielderrors import (
    IMMUTABLE,
    Checks,
    FieldErrors,
    UpdateChecks,
    check_annotations,
    check_labels,
    check_selector,
    dns_label,
    not_above_all,
    percent_or_int,
)
from kitlib.cluster.apiserver.validation.pod import check_pod_spec
from kitlib.cluster.cron import Schedule
from kitlib.cluster.labels import matches
from kitlib.cluster.objects import Object

CREATE: Checks = {}
UPDATE: UpdateChecks = {}
_creates, _updates = per_kind(CREATE), per_kind(UPDATE)


def check_template(found: FieldErrors, template: Object, path: str, claims: Iterable[str] = ()) -> None:
    """Check a Pod template."""
    meta = template.get("metadata") or {}
    check_labels(found, meta.get("labels"), f"{path}.metadata.labels")
    check_annotations(found, meta.get("annotations"), f"{path}.metadata.annotations")
    check_pod_spec(found, template.get("spec") or {}, f"{path}.spec", claims)


def _check_selected_template(found: FieldErrors, kind: str, spec: Object) -> None:
    """Check selector and template, and that the one finds the other."""
    selector = spec.get("selector")
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None:
        found.required("spec.selector")
    else:
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            found.invalid("spec.selector", selector, f"empty selector is invalid for {kind}")
        else:
            _check_match(found, selector, labels)
    claims = [(claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()]
    check_template(found, template, "spec.template", claims)
    restart = (template.get("spec") or {}).get("restartPolicy")
    if restart != "Always":
        found.not_supported("spec.template.spec.restartPolicy", restart, ("Always",))
    if "activeDeadlineSeconds" in (template.get("spec") or {}):
        owner = "ReplicaSet" if kind == "deployment" else {"statefulset": "StatefulSet", "daemonset": "DaemonSet"}[kind]
        text = f"activeDeadlineSeconds in {owner} is not Supported"
        found.forbidden("spec.template.spec.activeDeadlineSeconds", text)


def _check_match(found: FieldErrors, selector: Object, labels: Object) -> None:
    problems = FieldErrors()
    check_selector(problems, selector, "spec.selector")
    if not problems and not matches(selector, labels):
        problems.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    found += problems


def _check_rolling_update(found: FieldErrors, rolling: Object, path: str) -> None:
    unavailable = percent_or_int(found, rolling.get("maxUnavailable"), f"{path}.maxUnavailable")
    surge = percent_or_int(found, rolling.get("maxSurge"), f"{path}.maxSurge")
    if unavailable == 0 and surge == 0:
        text = "may not be 0 when `maxSurge` is 0"
        found.invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), text)
    not_above_all(found, rolling.get("maxUnavailable"), f"{path}.maxUnavailable")


@_creates("Deployment")
def _deployment(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    found.non_negative(spec, "replicas", path="spec")
    _check_selected_template(found, "deployment", spec)
    strategy = spec.get("strategy") or {}
    kind = strategy.get("type")
    if kind == "Recreate" and "rollingUpdate" in strategy:
        text = "may not be specified when strategy `type` is 'Recreate'"
        found.forbidden("spec.strategy.rollingUpdate", text)
    elif kind == "RollingUpdate":
        _check_rolling_update(found, strategy.get("rollingUpdate") or {}, "spec.strategy.rollingUpdate")
    elif kind != "Recreate":
        found.not_supported("spec.strategy.type", kind or "", ("Recreate", "RollingUpdate"))
    found.non_negative(spec, "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds", path="spec")
    if (spec.get("progressDeadlineSeconds") or 1) <= (spec.get("minReadySeconds") or 0):
        text = "must be greater than minReadySeconds"
        found.invalid("spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], text)


@_creates("ReplicaSet")
def _replica_set(found: FieldErrors, obj: Object) -> None:
    found.non_negative(obj["spec"], "replicas", "minReadySeconds", path="spec")
    _check_selected_template(found, "deployment", obj["spec"])


@_creates("ReplicationController")
def _replication_controller(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    found.non_negative(spec, "minReadySeconds", "replicas", path="spec")
    if not spec.get("selector"):
        found.required("spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("selector") or {}).items()):
        found.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    check_template(found, spec.get("template") or {}, "spec.template")


@_creates("StatefulSet")
def _stateful_set(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    found.one_of("spec.podManagementPolicy", spec.get("podManagementPolicy"), ("OrderedReady", "Parallel"))
    kind = (spec.get("updateStrategy") or {}).get("type")
    found.one_of("spec.updateStrategy", kind, ("RollingUpdate", "OnDelete"))
    found.non_negative(spec, "replicas", "minReadySeconds", path="spec")
    _check_selected_template(found, "statefulset", spec)


@_creates("DaemonSet")
def _daemon_set(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    _check_selected_template(found, "daemonset", spec)
    found.non_negative(spec, "minReadySeconds", "revisionHistoryLimit", path="spec")
    kind = (spec.get("updateStrategy") or {}).get("type")
    found.one_of("spec.updateStrategy.type", kind, ("RollingUpdate", "OnDelete"))


_MODES = ("NonIndexed", "Indexed")
_POLICY_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def check_job_spec(found: FieldErrors, spec: Object, path: str = "spec") -> None:
    """Check a Job's spec, in a Job or in a CronJob."""
    names = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
    found.non_negative(spec, *names, path=path)
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in _MODES:
        found.not_supported(f"{path}.completionMode", mode, _MODES)
    if mode == "Indexed":
        _check_indexed(found, spec, path)
    elif "backoffLimitPerIndex" in spec:
        text = "may be set only when the completion mode is Indexed"
        found.invalid(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], text)
    template = spec.get("template") or {}
    check_template(found, template, f"{path}.template")
    restart, where = (template.get("spec") or {}).get("restartPolicy"), f"{path}.template.spec.restartPolicy"
    if restart == "Always":
        found.required(where, 'valid values: "OnFailure", "Never"')
    elif restart not in ("OnFailure", "Never"):
        found.not_supported(where, restart or "", ("OnFailure", "Never"))
    elif "podFailurePolicy" in spec and restart != "Never":
        found.invalid(where, restart, 'only "Never" is supported when podFailurePolicy is specified')
    for index, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        _check_failure_rule(found, rule, f"{path}.podFailurePolicy.rules[{index}]")


def _check_indexed(found: FieldErrors, spec: Object, path: str) -> None:
    completions, parallelism = spec.get("completions"), spec.get("parallelism")
    if completions is None:
        found.required(f"{path}.completions", "when completion mode is Indexed")
    if parallelism is not None and parallelism > 100000:
        text = "must be less than or equal to 100000 when completion mode is Indexed"
        found.invalid(f"{path}.parallelism", parallelism, text)


def _check_failure_rule(found: FieldErrors, rule: Object, path: str) -> None:
    found.one_of(f"{path}.action", rule.get("action"), _POLICY_ACTIONS)
    codes = rule.get("onExitCodes")
    if codes is not None:
        found.one_of(f"{path}.onExitCodes.operator", codes.get("operator"), ("In", "NotIn"))
        values, where = codes.get("values") or [], f"{path}.onExitCodes.values"
        if not values:
            found.invalid(where, values, "at least one value is required")
        for index, value in enumerate(values):
            if codes.get("operator") == "In" and value == 0:
                found.invalid(f"{where}[{index}]", 0, "must not be 0 for the In operator")
            if value in values[:index]:
                found.duplicate(f"{where}[{index}]", value)
    elif not rule.get("onPodConditions"):
        found.invalid(path, rule, "specifying one of OnExitCodes and OnPodConditions is required")


@_creates("Job")
def _job(found: FieldErrors, obj: Object) -> None:
    spec = obj["spec"]
    check_job_spec(found, spec)
    selector = spec.get("selector")
    if selector is None:
        found.required("spec.selector")
        return
    _check_match(found, selector, ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {})
    if spec.get("completionMode") == "Indexed" and spec.get("completions"):
        host = f"{obj['metadata'].get('name', '')}-{spec['completions'] - 1}"
        for text in dns_label(host):
            text = f"will not able to create pod with invalid DNS hostname {host}: {text}"
            found.invalid("metadata.name", obj["metadata"].get("name", ""), text)


def _schedule_problems(schedule: str) -> Iterator[str]:
    try:
        if not re.fullmatch(r"@every \S+", schedule):
            Schedule(schedule)
    except ValueError as error:
        yield str(error)


@_creates("CronJob")
def _cron_job(found: FieldErrors, obj: Object) -> None:
    spec, name = obj["spec"], obj["metadata"].get("name", "")
    if len(name) > 52:
        found.invalid("metadata.name", name, "must be no more than 52 characters")
    found.named("spec.schedule", spec.get("schedule"), _schedule_problems)
    found.non_negative(spec, "startingDeadlineSeconds", path="spec")
    found.one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace"))
    found.non_negative(spec, "successfulJobsHistoryLimit", "failedJobsHistoryLimit", path="spec")
    check_job_spec(found, (spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")


def _immutable(found: FieldErrors, new: Object, old: Object, *names: str) -> None:
    for name in names:
        if new.get(name) != old.get(name):
            found.invalid(f"spec.{name}", new.get(name), IMMUTABLE)


@_updates("Deployment", "ReplicaSet", "DaemonSet")
def _selector_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Refuse another selector (Deployment, ReplicaSet, DaemonSet)."""
    _immutable(found, new["spec"], old["spec"], "selector")


_SET_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


@_updates("StatefulSet")
def _stateful_set_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Refuse changes of a StatefulSet that its Pods could not follow."""
    fixed = {*new["spec"], *old["spec"]} - set(_SET_MUTABLE)
    if any(new["spec"].get(name) != old["spec"].get(name) for name in fixed):
        *first, last = (f"'{name}'" for name in _SET_MUTABLE)
        text = f"updates to statefulset spec for fields other than {', '.join(first)} and {last} are forbidden"
        found.forbidden("spec", text)


_SCHEDULING = ("nodeSelector", "affinity", "tolerations", "schedulingGates")


def _comparable(template: Object, suspended: bool) -> Object:
    if not suspended:
        return template
    spec = {name: value for name, value in (template.get("spec") or {}).items() if name not in _SCHEDULING}
    return {"spec": spec}


@_updates("Job")
def _job_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Refuse changes of a Job that has begun."""
    spec, before = new["spec"], old["spec"]
    if spec.get("completionMode") != "Indexed":
        _immutable(found, spec, before, "completions")
    elif spec.get("completions") not in (before.get("completions"), spec.get("parallelism")):
        text = "can only be modified in tandem with spec.parallelism"
        found.invalid("spec.completions", spec.get("completions"), text)
    _immutable(found, spec, before, "selector")
    not_started = bool(before.get("suspend")) and not (old.get("status") or {}).get("startTime")
    templates = [each.get("template") or {} for each in (spec, before)]
    if _comparable(templates[0], not_started) != _comparable(templates[1], not_started):
        found.invalid("spec.template", templates[0], IMMUTABLE)
    _immutable(
        found, spec, before, "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"
    )
