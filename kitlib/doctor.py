"""Preflight: can this machine, and this cluster, run the kit? Each finding names its mend."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from kitlib import kubectl_program
from kitlib.cluster import local
from kitlib.cluster.bootstrap import ClusterError, count_real_gpus
from kitlib.cluster.config import REAL_TIMES, Settings
from kitlib.connect import choice
from kitlib.home import kit_home


@dataclass
class Finding:
    """One line of the preflight.

    Attributes:
        level: `ok`, `warn` or `fail`.
        subject: What was looked at.
        text: What was found and, unless ok, the mend.
    """

    level: str
    subject: str
    text: str


def check_all(context: str | None = None) -> list[Finding]:
    """Return the findings about this machine and about the cluster that is meant.

    Args:
        context: A context of your kubeconfig, instead of `KIT_CLUSTER`.

    Raises:
        KitError: `KIT_CLUSTER` cannot be understood.
    """
    embedded = choice(context)[0] == "embedded"
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _kubectl, _memory, _disk]
    if embedded:
        checks += [_gpus, _addresses, _isolation, _embedded]
    findings = [finding for check in checks for finding in check()]
    return findings if embedded else findings + list(_other(context))


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    good = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding("ok" if good else "fail", "Python", version if good else f"{version}: the kit needs 3.10 to 3.13")


def _kubectl() -> Iterator[Finding]:
    path = kubectl_program.installed()
    if path is None:
        yield Finding(
            "warn", "kubectl", f"not found, and the notebooks' shell cells need it. {kubectl_program.HOW_TO_GET_IT}"
        )
        return
    try:
        command = [path, "version", "--client", "-o", "json"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("fail", "kubectl", f"{path} does not run ({error}): install it anew")
        return
    version = answer.stdout.partition('"gitVersion": "')[2].partition('"')[0]
    if version:
        yield Finding("ok", "kubectl", f"{version} at {path}")
    else:
        said = (answer.stderr.strip() or "it said nothing").splitlines()[-1]
        yield Finding("fail", "kubectl", f"{path} does not tell its version ({said}): install it anew")


def _memory() -> Iterator[Finding]:
    free = psutil.virtual_memory().available / 2**30
    if free >= 1.5:
        yield Finding("ok", "memory", f"{free:.1f} GiB free")
    else:
        text = f"{free:.1f} GiB free; the last chapter wants 1.5: close other programs or kernels"
        yield Finding("warn", "memory", text)


def _disk() -> Iterator[Finding]:
    home = kit_home()
    folder = next(parent for parent in (home, *home.parents) if parent.exists())
    if not os.access(folder, os.W_OK):
        yield Finding("fail", "KIT_HOME", f"{home} can't be written: mend its rights or set KIT_HOME to another folder")
        return
    free = shutil.disk_usage(folder).free / 2**30
    level = "ok" if free >= 0.5 else "fail"
    mend = "" if level == "ok" else ": free 0.5 GiB, or set KIT_HOME to a larger disk"
    yield Finding(level, "KIT_HOME", f"{home}, {free:.1f} GiB free{mend}")


def _gpus() -> Iterator[Finding]:
    real = count_real_gpus()
    text = f"{real} NVIDIA GPU" if real else "none found: simulated GPUs (CPU cores) are used, and labelled so"
    yield Finding("ok", "GPU", text)


def _addresses() -> Iterator[Finding]:
    with socket.socket() as sock:
        try:
            sock.bind(("127.66.0.1", 0))
        except OSError:
            yield Finding("ok", "addresses", "only 127.0.0.1 can be bound: Pods share it, their ports are mapped")
            return
    yield Finding("ok", "addresses", "every Pod gets an address of its own in 127.0.0.0/8")


def _isolation() -> Iterator[Finding]:
    from kitlib.cluster.kubelet import isolation

    words = {
        "namespaces": "namespaces: a container has its volumes at their paths and its own host name",
        "plain": "plain: paths of volumes are rewritten in command, arguments and environment",
    }
    yield Finding("ok", "isolation", words[isolation.mode("auto")])


def _embedded() -> Iterator[Finding]:
    try:
        state = local.status()
    except ClusterError as error:
        yield Finding("fail", "cluster", str(error))
        return
    if state["engine"] is None:
        yield Finding("ok", "cluster", "not running; `kit up` starts it")
        return
    silent = [node["name"] for node in state["nodes"] if not node["ready"]]
    mend = f"; not Ready: {', '.join(silent)}: `kit node start NAME` brings a node back" if silent else ""
    yield Finding("warn" if silent else "ok", "cluster", f"{state['version']} at {state['server']}{mend}")


def differences() -> list[tuple[str, str, str]]:
    """Return where the embedded cluster differs from a real one: (what, real cluster, embedded cluster)."""
    real, lab = REAL_TIMES, Settings()
    return [
        (
            "containers",
            "isolated by namespaces and control groups",
            "processes of yours; own files if the kernel allows",
        ),
        ("images", "pulled from a registry", "programs of the kit that stand for a few images; others are not found"),
        ("Pod addresses", "a network of their own", "127.B.x.y on this machine, reachable from your shell"),
        ("DNS", "CoreDNS", "none; Service environment variables, and /etc/hosts where the kernel allows"),
        ("access", "RBAC decides", "whoever holds the kubeconfig may do everything; RBAC objects are stored only"),
        (
            "sign-in",
            "client certificates, tokens, plugins",
            "a token; without one, 401 (a real cluster's anonymous user gets 403); "
            "certificates can be asked for and approved, but none is issued",
        ),
        (
            "kube-system",
            "Pods of the control plane and of add-ons",
            "none: the components are processes, see `kit status`",
        ),
        (
            "a silent node is NotReady after",
            f"{real.node_monitor_grace_period:.0f} s (--node-monitor-grace-period)",
            f"{lab.node_monitor_grace_period:.0f} s",
        ),
        (
            "its Pods are evicted after",
            f"{real.default_unreachable_toleration_seconds} s (--default-unreachable-toleration-seconds)",
            f"{lab.default_unreachable_toleration_seconds} s",
        ),
        (
            "a Job replaces a failed Pod after",
            f"{real.job_pod_failure_backoff:.0f} s",
            f"{lab.job_pod_failure_backoff:.0f} s",
        ),
        ("storage", "a StorageClass makes volumes", "class `standard` makes folders in KIT_HOME; sizes are not held"),
        ("Ingress, NetworkPolicy", "a controller or the network acts on them", "stored only"),
        ("autoscaling", "HorizontalPodAutoscalers act on metrics", "`kubectl top` works; an autoscaler says it can't"),
        (
            "resources of a running Pod",
            "changed in place (`--subresource resize`)",
            "no such subresource: make a new Pod",
        ),
        (
            "custom resources",
            "CEL rules and conversion webhooks are evaluated",
            "served, but `x-kubernetes-validations` are ignored and versions convert by name alone",
        ),
        ("admission webhooks and policies", "called", "stored only"),
        ("ephemeral containers", "see the target's processes with `--target`", "see the machine's processes"),
        ("service account", "each Pod has one, and its token", "a Pod has one if it names one; no token is mounted"),
        ("Services", "a rule of the kernel each", "a socket per address and port: at most 4096, then an event says so"),
        ("GPUs", "a device plugin counts them", "NVML counts them; without one, CPU cores, labelled simulated"),
    ]


def _other(context: str | None) -> Iterator[Finding]:
    from kitlib.preflight import check_context

    for level, subject, text in check_context(context):
        yield Finding(level, subject, text)
