"""Rules for a Pod's spec, in a Pod or in a template.

Stands for `ValidatePodSpec` in `pkg/apis/core/validation`: the rules that learners meet, in its order. Left out:
Windows, ephemeral containers' bans, the finer rules of rarely used volumes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from kitlib.cluster import quantity
from kitlib.cluster.apiserver.registry import per_kind
from kitlib.cluster.apiserver.validation.fielderrors import (
    NEGATIVE,
    PORT_RANGE,
    Checks,
    FieldErrors,
    UpdateChecks,
    check_labels,
    check_port,
    check_selector,
    config_key,
    dns_label,
    dns_subdomain,
    env_name,
    port_name,
    qualified_name,
)
from kitlib.cluster.objects import Object

PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_STANDARD_RESOURCES = ("cpu", "ephemeral-storage", "memory")
_FIELD_PATHS = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_ENV_FIELD_PATHS = _FIELD_PATHS[2:]


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
    volumes = _check_volumes(found, spec.get("volumes") or (), f"{path}.volumes").union(claims)
    _check_containers(found, spec, "containers", path, volumes)
    _check_containers(found, spec, "initContainers", path, volumes)
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


def _check_volumes(found: FieldErrors, volumes: Sequence[Object], path: str) -> set[str]:
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        sources = [key for key in volume if key != "name"]
        if not sources:
            found.required(where, "must specify a volume type")
        for extra in sources[1:]:
            found.forbidden(f"{where}.{extra}", "may not specify more than 1 volume type")
        _check_volume_source(found, volume, where)
        found.named(f"{where}.name", name, dns_label)
        found.unique(f"{where}.name", name, names)
    return names


_VOLUME_REFERENCES = (
    ("configMap", "name"),
    ("secret", "secretName"),
    ("persistentVolumeClaim", "claimName"),
    ("hostPath", "path"),
)


def _check_volume_source(found: FieldErrors, volume: Object, path: str) -> None:
    for source, name in _VOLUME_REFERENCES:
        if source in volume:
            found.all_there(volume[source], name, path=f"{path}.{source}")
        _check_items(found, volume, source, path)
    _check_downward(found, volume, path)
    for index, part in enumerate((volume.get("projected") or {}).get("sources") or ()):
        where = f"{path}.projected.sources[{index}]"
        for source in ("configMap", "secret"):
            _check_items(found, part, source, where)
        _check_downward(found, part, where)
        if "serviceAccountToken" in part:
            _check_file(found, part["serviceAccountToken"], f"{where}.serviceAccountToken")
    limit = (volume.get("emptyDir") or {}).get("sizeLimit")
    if limit is not None and quantity.parse(limit) < 0:
        found.forbidden(f"{path}.emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity")
    mode = next(
        (volume[name]["defaultMode"] for name in ("configMap", "secret") if "defaultMode" in volume.get(name, {})), 0
    )
    if not 0 <= mode <= 0o777:
        source = "configMap" if "configMap" in volume else "secret"
        text = "must be a number between 0 and 0777 (octal), both inclusive"
        found.invalid(f"{path}.{source}.defaultMode", mode, text)


def _check_items(found: FieldErrors, volume: Object, source: str, path: str) -> None:
    for index, item in enumerate((volume.get(source) or {}).get("items") or ()):
        where = f"{path}.{source}.items[{index}]"
        found.all_there(item, "key", path=where)
        _check_file(found, item, where)


def _check_downward(found: FieldErrors, volume: Object, path: str) -> None:
    for index, item in enumerate((volume.get("downwardAPI") or {}).get("items") or ()):
        _check_file(found, item, f"{path}.downwardAPI.items[{index}]")


def _check_file(found: FieldErrors, item: Object, path: str) -> None:
    """Check where in its volume a file goes: nowhere else."""
    if not item.get("path"):
        found.required(f"{path}.path")
    else:
        _check_local_path(found, item["path"], f"{path}.path")
        if item["path"].startswith("..") and not item["path"].startswith("../"):
            found.invalid(f"{path}.path", item["path"], "must not start with '..'")


def _check_local_path(found: FieldErrors, value: str, path: str) -> None:
    if value.startswith("/"):
        found.invalid(path, value, "must be a relative path")
    elif ".." in value.split("/"):
        found.invalid(path, value, "must not contain '..'")


def _check_containers(found: FieldErrors, spec: Object, group: str, path: str, volumes: set[str]) -> None:
    containers, base = spec.get(group) or (), f"{path}.{group}"
    if not containers and group == "containers":
        found.required(base)
    others = spec.get("containers") or () if group == "initContainers" else ()
    names = {container.get("name") for container in others}
    for index, container in enumerate(containers):
        where = f"{base}[{index}]"
        _check_container(found, container, where, volumes)
        found.unique(f"{where}.name", container.get("name"), names)
        _check_life(found, container, where)
    _check_host_ports(found, containers, base)


def _check_container(found: FieldErrors, container: Object, path: str, volumes: set[str]) -> None:
    name, image = container.get("name", ""), container.get("image", "")
    found.named(f"{path}.name", name, dns_label)
    if not image:
        found.required(f"{path}.image")
    elif image != image.strip():
        found.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    policy = container.get("terminationMessagePolicy")
    found.one_of(f"{path}.terminationMessagePolicy", policy, ("FallbackToLogsOnError", "File"))
    _check_ports(found, container.get("ports") or (), f"{path}.ports")
    _check_env(found, container, path)
    _check_mounts(found, container.get("volumeMounts") or (), f"{path}.volumeMounts", volumes)
    if image:
        found.one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES)
    check_resources(found, container.get("resources") or {}, f"{path}.resources")


def _check_ports(found: FieldErrors, ports: Sequence[Object], path: str) -> None:
    names: set[str] = set()
    for index, port in enumerate(ports):
        where, name, number = f"{path}[{index}]", port.get("name"), port.get("containerPort", 0)
        if name:
            problems = list(port_name(name))
            found.each(f"{where}.name", name, problems)
            if not problems and name in names:
                found.duplicate(f"{where}.name", name)
            names.add(name)
        if number == 0:
            found.required(f"{where}.containerPort")
        elif not 0 < number < 65536:
            found.invalid(f"{where}.containerPort", number, PORT_RANGE)
        if port.get("hostPort") and not 0 < port["hostPort"] < 65536:
            found.invalid(f"{where}.hostPort", port["hostPort"], PORT_RANGE)
        found.one_of(f"{where}.protocol", port.get("protocol"), PROTOCOLS)


def _check_host_ports(found: FieldErrors, containers: Sequence[Object], path: str) -> None:
    taken: set[tuple[Any, ...]] = set()
    for index, container in enumerate(containers):
        for position, port in enumerate(container.get("ports") or ()):
            key = (port.get("protocol"), port.get("hostIP"), port.get("hostPort"))
            if port.get("hostPort"):
                shown = f"{key[0]}/{key[1] or ''}/{key[2]}"
                found.unique(f"{path}[{index}].ports[{position}].hostPort", key, taken, shown)


def _check_env(found: FieldErrors, container: Object, path: str) -> None:
    for index, variable in enumerate(container.get("env") or ()):
        where = f"{path}.env[{index}]"
        found.named(f"{where}.name", variable.get("name"), env_name)
        if "valueFrom" in variable:
            _check_env_source(found, variable, f"{where}.valueFrom")
    for index, source in enumerate(container.get("envFrom") or ()):
        where = f"{path}.envFrom[{index}]"
        chosen = [name for name in ("configMapRef", "secretRef") if name in source]
        if not chosen:
            found.invalid(where, "", "must specify one of: `configMapRef` or `secretRef`")
        else:
            found.all_there(source[chosen[0]], "name", path=f"{where}.{chosen[0]}")


_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def _check_env_source(found: FieldErrors, variable: Object, path: str) -> None:
    source = variable["valueFrom"]
    chosen = [name for name in _ENV_SOURCES if name in source]
    if not chosen:
        found.invalid(path, "", f"must specify one of: {' or '.join(f'`{name}`' for name in _ENV_SOURCES)}")
    elif variable.get("value"):
        found.invalid(path, "", "may not be specified when `value` is not empty")
    elif len(chosen) > 1:
        found.invalid(path, "", "may not have more than one field specified at a time")
    if "fieldRef" in source:
        _check_field_path(
            found, source["fieldRef"].get("fieldPath", ""), f"{path}.fieldRef.fieldPath", _ENV_FIELD_PATHS
        )
    for name in ("configMapKeyRef", "secretKeyRef"):
        if name in source:
            found.all_there(source[name], "name", path=f"{path}.{name}")
            found.named(f"{path}.{name}.key", source[name].get("key"), config_key)
    if "resourceFieldRef" in source:
        found.all_there(source["resourceFieldRef"], "resource", path=f"{path}.resourceFieldRef")


def _check_field_path(found: FieldErrors, value: str, path: str, supported: Sequence[str]) -> None:
    subscript = re.fullmatch(r"(metadata\.(?:labels|annotations))\['(.+)'\]", value)
    if not value:
        found.required(path)
    elif subscript:
        found.each(path, value, qualified_name(subscript[2].lower()))
    elif value not in _FIELD_PATHS:
        found.invalid(path, value, f"error converting fieldPath: field label not supported: {value}")
    elif value not in supported:
        found.not_supported(path, value, supported)


def _check_mounts(found: FieldErrors, mounts: Sequence[Object], path: str, volumes: set[str]) -> None:
    places: set[str] = set()
    for index, mount in enumerate(mounts):
        where, name, place = f"{path}[{index}]", mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            found.required(f"{where}.name")
        elif name not in volumes:
            found.not_found(f"{where}.name", name)
        if not place:
            found.required(f"{where}.mountPath")
        elif place in places:
            found.invalid(f"{where}.mountPath", place, "must be unique")
        places.add(place)
        if mount.get("subPath"):
            _check_local_path(found, mount["subPath"], f"{where}.subPath")


def is_extended_resource(name: str) -> bool:
    """Whether a resource is one that a device plugin offers, such as `nvidia.com/gpu`."""
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def _check_resource(found: FieldErrors, name: str, value: Any, path: str) -> Decimal:
    problems = list(qualified_name(name))
    found.each(path, name, problems)
    if not problems and "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
        found.invalid(path, name, "must be a standard resource type or fully qualified")
        found.invalid(path, name, "must be a standard resource for containers")
    amount = quantity.parse(value)
    if amount < 0:
        found.invalid(path, quantity.canonical(value), NEGATIVE)
    if is_extended_resource(name) and amount != amount.to_integral_value():
        found.invalid(path, quantity.canonical(value), "must be an integer")
    return amount


def check_resources(found: FieldErrors, resources: Object, path: str) -> None:
    """Check a container's requests against its limits."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    bounds = {name: _check_resource(found, name, value, f"{path}.limits[{name}]") for name, value in limits.items()}
    for name, value in requests.items():
        amount = _check_resource(found, name, value, f"{path}.requests[{name}]")
        overcommit = not is_extended_resource(name) and not name.startswith("hugepages-")
        if name in bounds and amount != bounds[name] and not overcommit:
            found.invalid(f"{path}.requests", value, f"must be equal to {name} limit of {limits[name]}")
        elif name in bounds and amount > bounds[name]:
            found.invalid(f"{path}.requests", value, f"must be less than or equal to {name} limit of {limits[name]}")
        elif name not in bounds and not overcommit:
            found.required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def _check_life(found: FieldErrors, container: Object, path: str) -> None:
    """Check lifecycle hooks and probes."""
    for name in ("postStart", "preStop"):
        hook = (container.get("lifecycle") or {}).get(name)
        if hook is not None:
            _check_handler(found, hook, f"{path}.lifecycle.{name}", ("exec", "httpGet", "tcpSocket", "sleep"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe, where = container.get(name), f"{path}.{name}"
        if probe is None:
            continue
        _check_handler(found, probe, where, ("exec", "httpGet", "tcpSocket", "grpc"))
        fields = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
        found.non_negative(probe, *fields, path=where)
        if name != "readinessProbe" and probe.get("successThreshold") != 1:
            found.invalid(f"{where}.successThreshold", probe.get("successThreshold", 0), "must be 1")


def _check_handler(found: FieldErrors, handler: Object, path: str, kinds: Sequence[str]) -> None:
    chosen = [kind for kind in kinds if kind in handler]
    if not chosen:
        found.required(path, "must specify a handler type")
    for extra in chosen[1:]:
        found.forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    for kind in chosen[:1]:
        action, where = handler[kind], f"{path}.{kind}"
        if kind == "exec":
            found.all_there(action, "command", path=where)
        if kind in ("httpGet", "tcpSocket", "grpc"):
            check_port(found, action.get("port"), f"{where}.port")
        if kind == "httpGet":
            found.one_of(f"{where}.scheme", action.get("scheme"), ("HTTP", "HTTPS"))


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
