"""Rules for a Pod's spec, in a Pod or in a template.

Stands for `ValidatePodSpec` in `pkg/apis/core/validation`: the rules that learners meet, in its order. Left out:
Windows, and what ephemeral containers may not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kitlib.cluster.apiserver.registry import per_kind
from kitlib.cluster.apiserver.validation.containers import check_containers
from kitlib.cluster.apiserver.validation.fielderrors import (
    Checks,
    FieldErrors,
    UpdateChecks,
    check_labels,
    check_selector,
    dns_label,
    dns_subdomain,
    qualified_name,
)
from kitlib.cluster.apiserver.validation.volumes import check_volumes
from kitlib.cluster.objects import Object

_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
CREATE: Checks = {}
UPDATE: UpdateChecks = {}
_creates, _updates = per_kind(CREATE), per_kind(UPDATE)


@_creates("Pod")
def _pod(found: FieldErrors, pod: Object) -> None:
    check_pod_spec(found, pod["spec"], "spec")


_UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
    "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)


def _fixed_part(spec: Object) -> Object:
    """Return the part of a Pod's spec that may never change."""
    changing = ("activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers")
    fixed = {name: value for name, value in spec.items() if name not in changing}
    for group in ("containers", "initContainers"):
        if group in spec:
            fixed[group] = [{**container, "image": "", "imagePullPolicy": ""} for container in spec[group]]
    return fixed


@_updates("Pod")
def _pod_update(found: FieldErrors, new: Object, old: Object) -> None:
    spec, before = new["spec"], old["spec"]
    counts = [len(each.get("containers") or ()) for each in (spec, before)]
    if counts[0] != counts[1]:
        found.forbidden("spec.containers", "pod updates may not add or remove containers")
        return
    kept = [toleration in (spec.get("tolerations") or ()) for toleration in before.get("tolerations") or ()]
    if not all(kept) or _fixed_part(spec) != _fixed_part(before) or _gates_added(spec, before):
        found.forbidden("spec", f"pod updates may not change fields other than {_UPDATABLE}\n")
    _check_ephemeral(found, spec, before.get("ephemeralContainers") or ())


def _check_ephemeral(found: FieldErrors, spec: Object, before: Sequence[Object]) -> None:
    """Check that ephemeral containers are only ever added, and those that are new."""
    path, now = "spec.ephemeralContainers", {each.get("name"): each for each in spec.get("ephemeralContainers") or ()}
    for old in before:
        if old != now.get(old["name"]):
            done = "changed" if old["name"] in now else "removed"
            found.forbidden(path, f'existing ephemeral containers "{old["name"]}" may not be {done}\n')
    taken = {each["name"] for key in ("initContainers", "containers") for each in spec.get(key) or ()}
    for index, each in enumerate(spec.get("ephemeralContainers") or ()):
        name, target = each.get("name") or "", each.get("targetContainerName")
        found.each(f"{path}[{index}].name", name, dns_label(name))
        if name in taken:
            found.duplicate(f"{path}[{index}].name", name)
        if not each.get("image"):
            found.required(f"{path}[{index}].image")
        if target and target not in taken:
            found.not_found(f"{path}[{index}].targetContainerName", target)
        taken = {*taken, name}


def _gates_added(spec: Object, before: Object) -> bool:
    return any(gate not in (before.get("schedulingGates") or ()) for gate in spec.get("schedulingGates") or ())


def check_pod_spec(found: FieldErrors, spec: Object, path: str, claims: Iterable[str] = ()) -> None:
    """Check a Pod's spec.

    Args:
        found: Where errors go.
        spec: The spec, with its defaults.
        path: Of the spec, such as `spec.template.spec`.
        claims: Names of volumes that a StatefulSet adds to its Pods.
    """
    volumes = check_volumes(found, spec.get("volumes") or (), f"{path}.volumes").union(claims)
    check_containers(found, spec, "containers", path, volumes)
    check_containers(found, spec, "initContainers", path, volumes)
    found.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES)
    found.one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    check_labels(found, spec.get("nodeSelector"), f"{path}.nodeSelector")
    _check_placement(found, spec, path)
    for name in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"):
        if spec.get(name):
            found.each(f"{path}.{name}", spec[name], dns_subdomain(spec[name]))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 0 < deadline < 2**31:
        found.invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    found.non_negative(spec, "terminationGracePeriodSeconds", path=path)
    for name in ("hostname", "subdomain"):
        if spec.get(name):
            found.each(f"{path}.{name}", spec[name], dns_label(spec[name]))
    _check_tolerations(found, spec.get("tolerations") or (), f"{path}.tolerations")


def _check_placement(found: FieldErrors, spec: Object, path: str) -> None:
    """Check affinity and topology spread."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    where = f"{path}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is not None and not required.get("nodeSelectorTerms"):
        found.required(where, "must have at least one node selector term")
    for index, term in enumerate((required or {}).get("nodeSelectorTerms") or ()):
        _check_node_expressions(found, term, f"{where}[{index}]")
    for name in ("podAffinity", "podAntiAffinity"):
        terms = ((spec.get("affinity") or {}).get(name) or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
        for index, term in enumerate(terms or ()):
            place = f"{path}.affinity.{name}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"
            if not term.get("topologyKey"):
                found.required(f"{place}.topologyKey", "can not be empty")
            check_selector(found, term.get("labelSelector"), f"{place}.labelSelector")
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        place = f"{path}.topologySpreadConstraints[{index}]"
        if constraint.get("maxSkew", 0) <= 0:
            found.invalid(f"{place}.maxSkew", constraint.get("maxSkew", 0), "must be greater than zero")
        if not constraint.get("topologyKey"):
            found.required(f"{place}.topologyKey", "can not be empty")
        actions = ("DoNotSchedule", "ScheduleAnyway")
        if constraint.get("whenUnsatisfiable") not in actions:
            found.not_supported(f"{place}.whenUnsatisfiable", constraint.get("whenUnsatisfiable", ""), actions)


def _check_node_expressions(found: FieldErrors, term: Object, path: str) -> None:
    for index, item in enumerate(term.get("matchExpressions") or ()):
        where, operator, values = f"{path}.matchExpressions[{index}]", item.get("operator"), item.get("values") or ()
        if operator in ("In", "NotIn") and not values:
            found.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            found.forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator in ("Gt", "Lt") and len(values) != 1:
            found.required(f"{where}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"):
            found.invalid(f"{where}.operator", operator or "", "not a valid selector operator")
        found.each(f"{where}.key", item.get("key", ""), qualified_name(item.get("key", "")))


def _check_tolerations(found: FieldErrors, tolerations: Sequence[Object], path: str) -> None:
    for index, toleration in enumerate(tolerations):
        where, key, operator = f"{path}[{index}]", toleration.get("key"), toleration.get("operator") or "Equal"
        if key:
            found.each(f"{where}.key", key, qualified_name(key))
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            found.invalid(f"{where}.operator", toleration.get("operator", ""), text)
        if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            found.invalid(f"{where}.effect", toleration.get("effect", ""), text)
        if operator == "Exists" and toleration.get("value"):
            found.invalid(f"{where}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
        elif operator not in ("Equal", "Exists", "Lt", "Gt"):
            found.not_supported(f"{where}.operator", operator, ("Equal", "Exists"))
        if toleration.get("effect") and toleration["effect"] not in _EFFECTS:
            found.not_supported(f"{where}.effect", toleration["effect"], _EFFECTS)
