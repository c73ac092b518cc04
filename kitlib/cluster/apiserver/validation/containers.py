"""Rules for the containers of a Pod: ports, environment, mounts, resources, hooks and probes.

Stands for `validateContainers` in `pkg/apis/core/validation`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from kitlib.cluster import quantity
from kitlib.cluster.apiserver.validation.fielderrors import (
    NEGATIVE,
    PORT_RANGE,
    FieldErrors,
    check_port,
    config_key,
    dns_label,
    env_name,
    port_name,
    qualified_name,
)
from kitlib.cluster.apiserver.validation.volumes import check_local_path
from kitlib.cluster.objects import Object

PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
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


def check_containers(found: FieldErrors, spec: Object, group: str, path: str, volumes: set[str]) -> None:
    """Check the containers, or init containers, of a Pod that has these volumes."""
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
    _check_resources(found, container.get("resources") or {}, f"{path}.resources")


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
            check_local_path(found, mount["subPath"], f"{where}.subPath")


def _is_extended_resource(name: str) -> bool:
    """Whether a device plugin offers the resource, as `nvidia.com/gpu`."""
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
    if _is_extended_resource(name) and amount != amount.to_integral_value():
        found.invalid(path, quantity.canonical(value), "must be an integer")
    return amount


def _check_resources(found: FieldErrors, resources: Object, path: str) -> None:
    """Check requests against limits."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    bounds = {name: _check_resource(found, name, value, f"{path}.limits[{name}]") for name, value in limits.items()}
    for name, value in requests.items():
        amount = _check_resource(found, name, value, f"{path}.requests[{name}]")
        overcommit = not _is_extended_resource(name) and not name.startswith("hugepages-")
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
