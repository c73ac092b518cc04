"""The environment of a container: `env`, `envFrom`, Service variables, and the little that a process needs.

Stands for the kubelet's `makeEnvironmentVariables` and `pkg/kubelet/envvars`. Nothing of the user's own environment
passes into a container but what its programs need to run (see `base`).
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import site
import sys
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

from kitlib.cluster import images, quantity
from kitlib.cluster.objects import Object
from kitlib.cluster.portmap import port_map

Lookup = Callable[[str, str], Object | None]
"""Finds a ConfigMap or Secret of the Pod's namespace: called with `configmaps` or `secrets` and a name."""

_PASSED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "NIX_LD")
CONTAINER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH that container runtimes give an image that names none."""

_REFERENCE = re.compile(r"\$(\$|\(([^()$]*)\)|)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class ConfigError(Exception):
    """The container's configuration cannot be met (`CreateContainerConfigError`)."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(VAR)` by its value; `$$` is a dollar sign, an unknown variable stays as written."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return env.get(match[2], match[0]) if match[2] is not None else "$"

    return _REFERENCE.sub(replace, text)


def base(image_bin: str = "") -> dict[str, str]:
    """Return what any program needs: PATH with the stand-ins first, library paths."""
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    tools = CONTAINER_PATH if shutil.which("ls", path=CONTAINER_PATH) else os.environ.get("PATH", os.defpath)
    folders = [str(images.BIN), image_bin, os.path.dirname(sys.executable), tools]
    env["PATH"] = ":".join(folder for folder in folders if folder)
    env["KIT_PYTHON"] = sys.executable
    if site.ENABLE_USER_SITE:
        env["PYTHONUSERBASE"] = site.getuserbase()
    return env


def needed_paths() -> list[str]:
    """Return the paths of the machine that programs started with `base` read: the interpreter and its libraries."""
    kit, interpreter = Path(images.__file__).parents[2], Path(sys.executable).resolve().parents[1]
    packages = [path for path in sys.path if path.endswith("-packages")]
    named = [path for name in _PASSED for path in os.environ.get(name, "").split(os.pathsep)]
    paths = [sys.prefix, sys.base_prefix, str(interpreter), str(kit), *packages, *named]
    paths.append(os.path.realpath("/etc/resolv.conf"))
    return [path for path in dict.fromkeys(paths) if path.startswith("/") and path != "/" and os.path.exists(path)]


def service_variables(services: Iterable[Object], namespace: str, host: str = "") -> dict[str, str]:
    """Return the variables of the Services of a namespace and of `default/kubernetes`, as Docker links had them.

    Args:
        services: Services of all namespaces.
        namespace: The Pod's namespace, or empty for none.
        host: The one address that all Services share in `single` loopback mode; else empty.
    """
    env: dict[str, str] = {}
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        kubernetes = (metadata["namespace"], metadata["name"]) == ("default", "kubernetes")
        ip = spec.get("clusterIP") or "None"
        if ip != "None" and (kubernetes or metadata["namespace"] == namespace):
            name = metadata["name"].upper().replace("-", "_")
            env.update(_variables_of(name, host or ip, spec.get("ports") or [], port_map(service)))
    return env


def _variables_of(name: str, ip: str, ports: list[Object], mapped: Mapping[str, int]) -> dict[str, str]:
    if not ports:
        return {f"{name}_SERVICE_HOST": ip}
    numbers = [str(mapped.get(str(port["port"]), port["port"])) for port in ports]
    protocols = [port.get("protocol", "TCP") for port in ports]
    env = {f"{name}_SERVICE_HOST": ip, f"{name}_SERVICE_PORT": numbers[0]}
    for port, number in zip(ports, numbers):  # noqa: B905
        if port.get("name"):
            env[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = number
    env[f"{name}_PORT"] = f"{protocols[0].lower()}://{ip}:{numbers[0]}"
    for port, number, protocol in zip(ports, numbers, protocols):  # noqa: B905
        prefix = f"{name}_PORT_{port['port']}_{protocol}"
        env[prefix] = f"{protocol.lower()}://{ip}:{number}"
        env[f"{prefix}_PROTO"] = protocol.lower()
        env[f"{prefix}_PORT"] = number
        env[f"{prefix}_ADDR"] = ip
    return env


def declared(container: Object, pod: Object, surroundings: Mapping[str, str], lookup: Lookup) -> dict[str, str]:
    """Return the variables that a container's spec asks for.

    Args:
        container: The container's spec.
        pod: The Pod, with the status fields that `fieldRef` may name.
        surroundings: Service variables and others that `$(VAR)` may name.
        lookup: Finds ConfigMaps and Secrets.

    Raises:
        ConfigError: A ConfigMap, Secret or key that is not optional does not exist.
    """
    env: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        env.update(_from_object(source, pod, lookup))
    for item in container.get("env") or []:
        if "valueFrom" in item:
            value = _value_from(item["valueFrom"], container, pod, lookup)
            if value is not None:
                env[item["name"]] = value
        else:
            env[item["name"]] = expand(item.get("value") or "", {**surroundings, **env})
    return env


def _from_object(source: Object, pod: Object, lookup: Lookup) -> dict[str, str]:
    resource, kind = ("configmaps", "configMapRef") if "configMapRef" in source else ("secrets", "secretRef")
    reference = source[kind]
    obj = lookup(resource, reference["name"])
    if obj is None:
        _check_optional(reference, not_found(resource, reference["name"]))
        return {}
    prefix = source.get("prefix") or ""
    return {prefix + key: data.decode(errors="replace") for key, data in contents(obj).items()}


def not_found(resource: str, name: str) -> str:
    """Return the kubelet's words for a ConfigMap or Secret that does not exist."""
    return f'{resource[:-1]} "{name}" not found'


def _check_optional(reference: Object, message: str) -> None:
    if not reference.get("optional"):
        raise ConfigError(message)


def contents(obj: Object) -> dict[str, bytes]:
    """Return the files of a ConfigMap or Secret."""
    decode = base64.b64decode if obj.get("kind") == "Secret" else str.encode
    data = {key: decode(value) for key, value in (obj.get("data") or {}).items()}
    data.update({key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()})
    return data


def _value_from(source: Object, container: Object, pod: Object, lookup: Lookup) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_value(pod, source["resourceFieldRef"], container)
    resource, kind = ("configmaps", "configMapKeyRef") if "configMapKeyRef" in source else ("secrets", "secretKeyRef")
    reference = source[kind]
    obj = lookup(resource, reference["name"])
    if obj is None:
        _check_optional(reference, not_found(resource, reference["name"]))
        return None
    data = contents(obj)
    if reference["key"] in data:
        return data[reference["key"]].decode(errors="replace")
    word = "ConfigMap" if resource == "configmaps" else "Secret"
    where = f"{pod['metadata']['namespace']}/{reference['name']}"
    _check_optional(reference, f"couldn't find key {reference['key']} in {word} {where}")
    return None


def field_value(pod: Object, path: str) -> str:
    """Return a field of the Pod as the downward API gives it."""
    match = _SUBSCRIPT.fullmatch(path)
    if match:
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        values = pod["metadata"].get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{_quoted(value)}"' for key, value in sorted(values.items()))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if path in ("status.podIPs", "status.hostIPs"):
        return ",".join(item["ip"] for item in value or [])
    if path == "spec.serviceAccountName":
        return str(value or "default")
    return "" if value is None else str(value)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Object, reference: Object, container: Object | None = None) -> str:
    """Return a limit or request of a container; without a limit the node's allocatable counts as one."""
    name = reference.get("containerName")
    if name:
        spec = pod["spec"]
        container = next(c for c in [*spec["containers"], *spec.get("initContainers", [])] if c["name"] == name)
    kind, _, resource = reference["resource"].partition(".")
    resources = (container or {}).get("resources") or {}
    value = (resources.get(kind) or {}).get(resource)
    if value is None:
        value = "0" if kind == "requests" else pod.get("kit_allocatable", {}).get(resource, "0")
    divisor = quantity.parse(reference.get("divisor") or "1") or Decimal(1)
    return str((quantity.parse(value) / divisor).to_integral_value(ROUND_CEILING))
