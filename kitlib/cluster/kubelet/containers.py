"""From a container's spec to what the runtime starts: command, environment, working folder, mounts.

Stands for `generateContainerConfig` of the kubelet's runtime manager and for the OCI spec that containerd writes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitlib.cluster import quantity
from kitlib.cluster.config import NodeConfig
from kitlib.cluster.images import Image
from kitlib.cluster.kubelet import env, volumes
from kitlib.cluster.objects import Object

TERMINATION_LOG = "/dev/termination-log"
KIT_VARIABLES = "/run/kit.env"
MESSAGE_LIMIT = 4096


@dataclass
class Surroundings:
    """What all containers of a Pod share.

    Attributes:
        config: The node.
        pod: The Pod, with its addresses in `status`.
        folder: The Pod's folder on the node.
        ip: The Pod's address.
        port_map: Ports that are mapped.
        volumes: Where each volume is.
        services: Service variables.
        hosts: Extra lines of /etc/hosts: names of Services and Pods.
        lookup: Finds ConfigMaps and Secrets.
        isolation: `namespaces` or `plain`.
    """

    config: NodeConfig
    pod: Object
    folder: Path
    ip: str
    lookup: env.Lookup
    isolation: str
    port_map: Mapping[int, int] = field(default_factory=dict)
    volumes: Mapping[str, Path] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    hosts: Sequence[str] = ()

    @property
    def hostname(self) -> str:
        """The Pod's host name."""
        spec = self.pod["spec"]
        if spec.get("hostNetwork"):
            return self.config.name
        return str(spec.get("hostname") or self.pod["metadata"]["name"])[:63].rstrip("-.")

    def container_folder(self, name: str) -> Path:
        """Return the folder of one container."""
        return self.folder / "containers" / name

    def log_dir(self, name: str) -> Path:
        """Return the folder of one container's logs."""
        return self.folder / "logs" / name

    def message_file(self, name: str) -> Path:
        """Return the file where a container leaves its termination message."""
        return self.container_folder(name) / "termination-log"


def start_request(around: Surroundings, container: Object, image: Image, attempt: int) -> Object:
    """Return the runtime's specification of a container's next run, its folders made.

    Args:
        around: What the Pod's containers share.
        container: The container's spec.
        image: What stands for its image.
        attempt: Number of the run, from 0.

    Raises:
        ConfigError: The environment names something that does not exist, or the image may not run as it would.
        MountFailed: A mount is impossible.
    """
    _verify_user(around.pod, container)
    folder = _prepare_folders(around, container, image)
    surroundings, own = environment(around, container, image)
    values = {**surroundings, **own}
    mounts = volumes.mounts(container, around.volumes, values)
    mounts += _image_files(folder, image, [target for _, target, _ in mounts])
    argv = [*_command(container, image, values)]
    message = str(around.message_file(container["name"]))
    mounts.append((message, container.get("terminationMessagePath") or TERMINATION_LOG, False))
    rewritten = mounts if around.isolation == "plain" else []
    if rewritten:
        values["KIT_MOUNTS"] = json.dumps({target: source for source, target, _ in mounts})
    argv = [rewrite(word, rewritten) for word in argv]
    values.update({name: rewrite(value, rewritten) for name, value in own.items()})
    home = values["HOME"] if around.isolation == "plain" else "/"
    cwd = rewrite(container.get("workingDir") or "", rewritten) or home
    request = {
        "argv": argv,
        "env": values,
        "cwd": cwd,
        "log": str(around.log_dir(container["name"]) / f"{attempt}.log"),
        "stdin": bool(container.get("stdin")),
        "stdin_once": bool(container.get("stdinOnce")),
        "tty": bool(container.get("tty")),
        "memory_limit": memory_limit(container),
    }
    if around.isolation == "namespaces":
        request["isolate"] = _isolation(around, container, mounts) | {"cwd": cwd}
        request["hidden"] = _hide(folder, {name: value for name, value in values.items() if name not in own})
    return request


def _verify_user(pod: Object, container: Object) -> None:
    """Hold `runAsNonRoot`, as far as it can be: every image's user is root."""
    context = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
    if not context.get("runAsNonRoot") or context.get("runAsUser"):
        return
    known = "container has runAsNonRoot and image will run as root"
    why = "container's runAsUser breaks non-root policy" if "runAsUser" in context else known
    meta = pod["metadata"]
    which = f'(pod: "{meta["name"]}_{meta["namespace"]}({meta["uid"]})", container: {container["name"]})'
    raise env.ConfigError(f"{why} {which}")


def _hide(folder: Path, values: Mapping[str, str]) -> list[str]:
    """Write the kit's own variables where its stand-ins find them; return their names, which `exec` need not show."""
    mine = {name: value for name, value in values.items() if name == "POD_IP" or name.startswith("KIT_")}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in mine.items() if name != "KIT_CLUSTER_ID"]
    (folder / "root" / "run").mkdir(exist_ok=True)
    (folder / "root" / KIT_VARIABLES.lstrip("/")).write_text("".join(lines))
    return [*mine, "KIT_CONTAINER_ID"]


def _prepare_folders(around: Surroundings, container: Object, image: Image) -> Path:
    name = container["name"]
    folder = around.container_folder(name)
    around.log_dir(name).mkdir(parents=True, exist_ok=True)
    for path in (folder / "root", folder / "tmp"):
        shutil.rmtree(path, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    if image.root.is_dir():
        shutil.copytree(image.root, folder / "root")
    else:
        (folder / "root").mkdir()
    around.message_file(name).write_bytes(b"")
    return folder


def _image_files(folder: Path, image: Image, mounted: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Give a run its own copies of the image's folders and files, except where a volume covers them."""
    shutil.rmtree(folder / "image", ignore_errors=True)
    found = []
    for target, name in image.files.items():
        if not any(f"{target}/".startswith(f"{path.rstrip('/')}/") for path in mounted):
            copy = folder / "image" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (image.folder / name).is_dir() else shutil.copy)(image.folder / name, copy)
            found.append((str(copy), target, False))
    return found


def environment(around: Surroundings, container: Object, image: Image) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment of a container: what surrounds it, and what its own spec asks for.

    Raises:
        ConfigError: A ConfigMap, Secret or key does not exist.
    """
    folder = around.container_folder(container["name"])
    values = env.base(str(image.folder / "bin") if (image.folder / "bin").is_dir() else "")
    values.update(image.env)
    values["HOSTNAME"] = around.hostname
    values["HOME"] = "/root"
    if around.isolation == "plain":
        values["HOME"], values["TMPDIR"] = str(folder / "root"), str(folder / "tmp")
    if container.get("tty"):
        values["TERM"] = "xterm"
    values["POD_IP"] = around.ip
    values["KIT_CLUSTER_ID"] = around.config.cluster.cluster_id
    values.update({f"KIT_PORT_{port}": str(local) for port, local in around.port_map.items()})
    values.update(around.services)
    return values, env.declared(container, around.pod, values, around.lookup)


def _command(container: Object, image: Image, values: Mapping[str, str]) -> list[str]:
    command = [env.expand(word, values) for word in container.get("command") or []]
    args = [env.expand(word, values) for word in container.get("args") or []]
    if command:
        return command + args
    return [*image.entrypoint, *(args or image.cmd)]


def rewrite(text: str, mounts: Sequence[tuple[str, str, bool]]) -> str:
    """Replace paths below a `mountPath` by where the volume is on the node, the longest first.

    Args:
        text: A command line word or a value.
        mounts: Source, `mountPath`, read-only.
    """
    targets = {target: source for source, target, _ in mounts if target != "/"}
    if not targets or "/" not in text:
        return text
    paths = "|".join(re.escape(target) for target in sorted(targets, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda match: targets[match[1]], text)


def memory_limit(container: Object) -> int:
    """Return the memory limit in bytes; 0 means none."""
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    return int(quantity.parse(limit)) if limit else 0


def _isolation(around: Surroundings, container: Object, mounts: Sequence[tuple[str, str, bool]]) -> Object:
    etc, folder = around.folder / "etc", around.container_folder(container["name"])
    etc.mkdir(exist_ok=True)
    (etc / "hostname").write_text(around.hostname + "\n")
    (etc / "hosts").write_text(hosts_file(around))
    binds = [[str(etc / name), f"/etc/{name}", False] for name in ("hostname", "hosts") if Path("/etc", name).exists()]
    return {
        "hostname": around.hostname,
        "root": str(folder / "root"),
        "binds": [*binds, *map(list, mounts)],
        "keep": env.needed_paths(),
        "read_only": bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem")),
    }


def refresh_hosts(around: Surroundings) -> None:
    """Bring the Pod's /etc/hosts up to date, in place: containers have this very file mounted."""
    path = around.folder / "etc" / "hosts"
    text = hosts_file(around)
    if path.exists() and path.read_text() != text:
        path.write_text(text)


def hosts_file(around: Surroundings) -> str:
    """Return the Pod's /etc/hosts; here localhost is the Pod's own address."""
    spec = around.pod["spec"]
    lines = ["# Kubernetes-managed hosts file.", f"{around.ip}\tlocalhost", "::1\tip6-localhost ip6-loopback"]
    names = around.hostname
    if spec.get("subdomain"):
        names = f"{names}.{spec['subdomain']}.{around.pod['metadata']['namespace']}.svc.cluster.local {names}"
    lines.append(f"{around.ip}\t{names}")
    lines += [f"{alias['ip']}\t{' '.join(alias['hostnames'])}" for alias in spec.get("hostAliases") or []]
    return "\n".join([*lines, *around.hosts]) + "\n"


def termination_message(around: Surroundings, container: Object, attempt: int, failed: bool) -> str:
    """Return what a container left as its last words, at most 4096 bytes."""
    message = around.message_file(container["name"])
    text = message.read_bytes()[:MESSAGE_LIMIT] if message.exists() else b""
    fallback = container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
    if not text and failed and fallback:
        text = _log_tail(around.log_dir(container["name"]) / f"{attempt}.log")
    return text.decode(errors="replace")


def _log_tail(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * MESSAGE_LIMIT))
        lines = file.read().splitlines()[-80:]
    return b"".join(line.split(b" ", 3)[-1] + b"\n" for line in lines)[-2048:]
