"""A chapter's hold on a cluster: its namespace, its kubeconfig, the official client's APIs, and the way out.

Made by `kitlib.connect`. It knows the Kubernetes API and nothing else; only `kill_node` and `start_node` are the
embedded cluster's, and they go through the `kit` command.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from kitlib import assigned, kubectl
from kitlib.errors import KitError
from kitlib.home import kit_home
from kitlib.transport import connect_client, message_of, own_namespaces

LABELS = {"app.kubernetes.io/part-of": "kit"}
GPU = "nvidia.com/gpu"
PATIENCE = 120.0
"""Seconds that a namespace may take to disappear."""
SILENCE = 5.0
"""Seconds after which it is worth asking what holds it up."""


class Cluster:
    """The cluster of this notebook.

    Attributes:
        engine: `embedded`, `context` or `in-cluster`.
        context: Name of the context.
        namespace: The chapter's namespace; kubectl uses it by default.
        kubeconfig: The notebook's own kubeconfig.
        version: What the API server says it is, such as `v1.36.2`.
        api: The official client's `ApiClient`, for APIs that have no shortcut here.
        owns_namespace: Whether `clean_up` deletes the whole namespace.
    """

    def __init__(self, engine: str, source: dict[str, Any]) -> None:
        """Prepare the clients; nothing is asked yet."""
        self.engine = engine
        self.context = str(source["current-context"])
        self.namespace = "default"
        self.kubeconfig = Path()
        self.version = ""
        self.owns_namespace = False
        self.resumed = False
        self._source = source
        self._started_in = os.getcwd()
        self._on_clean_up: list[Callable[[], None]] = []
        self._after_clean_up: list[Callable[[], None]] = []
        self._programs: dict[Path, Callable[[], None]] = {}
        with self.errors():
            self.api = connect_client(source)

    @functools.cached_property
    def core(self) -> client.CoreV1Api:
        """The client's API of Pods, Services, Nodes, ConfigMaps, Secrets and Events."""
        return client.CoreV1Api(self.api)

    @functools.cached_property
    def apps(self) -> client.AppsV1Api:
        """The client's API of Deployments and ReplicaSets."""
        return client.AppsV1Api(self.api)

    @functools.cached_property
    def batch(self) -> client.BatchV1Api:
        """The client's API of Jobs."""
        return client.BatchV1Api(self.api)

    @property
    def context_namespace(self) -> str | None:
        """The namespace that the context itself names."""
        named: str | None = self._source["contexts"][0]["context"].get("namespace")
        return named

    @property
    def embedded(self) -> bool:
        """Whether this is the kit's own cluster, where a node may be killed."""
        return self.engine == "embedded"

    @property
    def folder(self) -> Path:
        """A folder for the chapter's files, made on first use and deleted by `clean_up`."""
        path = kit_home() / "files" / self.namespace
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what goes wrong on the way to the API into one sentence with the mend."""
        try:
            yield
        except (ApiException, HTTPError, ConfigException, OSError) as error:
            raise KitError(self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        server = self._source["clusters"][0]["cluster"].get("server", "?")
        here, there = "the set-up cell, or `kit up`, starts it again", "is the cluster still there, and the VPN up?"
        restart = here if self.embedded else there
        if isinstance(error, ApiException) and error.status == 401:
            return (
                f"{server} does not accept the credentials of context {self.context!r} (401); they have probably "
                "expired. Log in to the cluster again, then run this cell again."
            )
        if isinstance(error, ApiException) and error.status == 403:
            return f"Your account in context {self.context!r} lacks a right: {message_of(error)}"
        if isinstance(error, ApiException) and error.status:
            return f"{server} answered {error.status}: {kubectl.with_mend(message_of(error))}"
        if isinstance(error, ConfigException):
            return f"Context {self.context!r} cannot be used: {error}"
        return f"No answer from {server} (context {self.context!r}): {restart}"

    def open_namespace(self, wanted: str, labels: dict[str, str]) -> None:
        """Make the chapter's namespace, or come back to it.

        Raises:
            KitError: It may not be made, or it belongs to somebody else.
        """
        assigned = os.environ.get("KIT_NAMESPACE")
        self.namespace = assigned or wanted
        with self.errors():
            found = self._read_namespace()
            if found is None and not assigned:
                self._create_namespace(labels)
            elif found is None:
                raise KitError(f"KIT_NAMESPACE names {assigned!r}, which context {self.context!r} does not have.")
            else:
                self._adopt_namespace(found, bool(assigned))

    def _read_namespace(self) -> Any:
        """Return the namespace, or None; wait while an earlier one of that name disappears."""
        began = time.monotonic()
        while True:
            try:
                found = self.core.read_namespace(self.namespace, _request_timeout=20)
            except ApiException as error:
                if error.status not in (403, 404):
                    raise
                return None
            if found.metadata.deletion_timestamp is None:
                return found
            waited = time.monotonic() - began
            if waited > (SILENCE if self.embedded else PATIENCE):
                self._say_what_holds_up()
            if waited > PATIENCE:
                raise KitError(f"Namespace {self.namespace} has been terminating for {PATIENCE:g} s: try later.")
            time.sleep(0.2 if waited < SILENCE else 1.0)

    def _say_what_holds_up(self) -> None:
        """Name a silent node with a Pod of the namespace: only its kubelet could say that the Pod has ended.

        Raises:
            KitError: There is one.
        """
        with contextlib.suppress(ApiException):  # an account that may not list nodes learns less
            nodes = self.core.list_node(_request_timeout=20).items
            silent = {node.metadata.name for node in nodes if not _is_ready(node)}
            for pod in self.core.list_namespaced_pod(self.namespace, _request_timeout=20).items:
                if pod.spec.node_name in silent:
                    again = f"switch it on with `!kit node start {pod.spec.node_name}`, then run this cell again"
                    raise KitError(
                        f"Namespace {self.namespace} waits for its Pod {pod.metadata.name} on {pod.spec.node_name}, "
                        f"which is off and cannot say that the Pod has ended: "
                        f"{again if self.embedded else 'try again when the node is back, or gone for good'}."
                    )

    def _create_namespace(self, labels: dict[str, str]) -> None:
        metadata = {"name": self.namespace, "labels": {**LABELS, **labels}}
        try:
            self.core.create_namespace({"metadata": metadata}, _request_timeout=20)
            self.owns_namespace = True
        except ApiException as error:
            if error.status != 403:
                raise
            self._use_the_contexts_namespace(error)

    def _use_the_contexts_namespace(self, error: ApiException) -> None:
        """Stay in the namespace that the context names, if nothing of anybody else's is there.

        Raises:
            KitError: There is none, or it is in use.
        """
        given = self.context_namespace
        mend = "ask whoever runs the cluster for a namespace of your own, and name it with KIT_NAMESPACE"
        if not given:
            raise KitError(f"{self._sentence(error)}. To go on, {mend}.") from error
        self.namespace = given
        self.use()
        if self._made_for_the_course():
            return
        there = [] if assigned.remembered(self.kubeconfig) else assigned.things(self.kubeconfig, given)
        if there:
            raise KitError(
                f"You may not create namespaces, and {given}, the context's own, is in use ({there[0].name}, "
                f"{len(there)} objects). If it is yours alone: KIT_NAMESPACE={given}; what is there stays. "
                f"Otherwise {mend}."
            ) from error

    def _adopt_namespace(self, found: Any, assigned: bool) -> None:
        """Take over a namespace that exists: ours from before, or one that was assigned."""
        ours = (found.metadata.labels or {}).get("app.kubernetes.io/part-of") == "kit"
        if not ours and not assigned:
            delete = f"Delete it (`kubectl delete namespace {self.namespace}`)"
            other = delete if self.embedded else "Choose another name with KIT_LEARNER"
            raise KitError(
                f"Namespace {self.namespace!r} exists and is not the kit's. {other}, or say that it is yours to use "
                f"with KIT_NAMESPACE={self.namespace}."
            )
        self.owns_namespace = ours and not assigned
        self.resumed = True

    def use(self) -> None:
        """Write the notebook's kubeconfig and let `KUBECONFIG` name it."""
        folder = kit_home() / "connect"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.kubeconfig = folder / f"{assigned.safe(self.context)}-{self.namespace}.kubeconfig"
        self._source["contexts"][0]["context"]["namespace"] = self.namespace
        partial = self.kubeconfig.with_suffix(f".{os.getpid()}")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            yaml.safe_dump(self._source, file)
        os.replace(partial, self.kubeconfig)
        os.environ["KUBECONFIG"] = str(self.kubeconfig)
        own_namespaces.add(self.namespace)

    def describe(self) -> str:
        """Return where you are: cluster, version, context, nodes, GPUs and namespace."""
        name = {"embedded": "embedded (Kubernetes in local processes)"}.get(self.engine, self.engine)
        state = "continued" if self.resumed else "new"
        return "\n".join(
            [
                f"Cluster    {name}, {self.version}",
                f"Context    {self.context}",
                *self._describe_nodes(),
                f"Namespace  {self.namespace} ({state if self.owns_namespace else 'assigned to you'})",
                *([] if self.embedded else [f"Clean-up   cluster.clean_up(), or kit clean --context {self.context}"]),
            ]
        )

    def _describe_nodes(self) -> list[str]:
        try:
            nodes = self.core.list_node(_request_timeout=20).items
        except ApiException:
            return ["Nodes      (your account may not list them)"]
        silent = [node.metadata.name for node in nodes if not _is_ready(node)]
        mend = f'; switch on: cluster.start_node("{silent[0]}")' if self.embedded and silent else ""
        return [f"Nodes      {len(nodes) - len(silent)} of {len(nodes)} Ready{mend}", f"GPUs       {gpus(nodes)}"]

    def background(self, *command: str, log: str | Path) -> subprocess.Popen[bytes]:
        """Start a program that ends with `clean_up`, or with the notebook's kernel if that comes first.

        It takes the place of an earlier one with the same log, so that a cell may run twice.

        Args:
            *command: The program and its arguments.
            log: File for what it prints.

        Returns:
            The process; `terminate()` ends it earlier.
        """
        place = Path(log).absolute()
        self._programs.pop(place, lambda: None)()
        with open(place, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kitlib.guard", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        def end() -> None:
            process.terminate()
            process.wait(10)

        self._programs[place] = end
        return process

    def on_clean_up(self, action: Callable[[], None], *, last: bool = False) -> None:
        """Let `clean_up` call `action`, for whatever else the notebook started.

        Args:
            action: What ends it.
            last: Whether it is called after the deletion, not before.
        """
        (self._after_clean_up if last else self._on_clean_up).append(action)

    def take_over(self, earlier: Cluster) -> None:
        """Clean up also what was started before the set-up cell ran again, and go back to where that began."""
        self._started_in = earlier._started_in
        self._programs |= earlier._programs
        self._on_clean_up += earlier._on_clean_up
        self._after_clean_up += earlier._after_clean_up

    def clean_up(self) -> None:
        """Stop what the notebook started in the background and delete what it made on the cluster.

        Safe at any moment and as often as you like; says in one line what it did, or why it could not.
        """
        _call_all(self._on_clean_up)
        _call_all([*self._programs.values(), kubectl.stop_all])
        self._delete_folders()
        try:
            with self.errors():
                done = self._delete_namespace() if self.owns_namespace else self._delete_objects()
            said = f"Cleaned up: {done}; nothing runs in the background."
        except KitError as error:
            said = f"Not cleaned up: {error}"
        _call_all(self._after_clean_up)
        print(said)

    def _delete_folders(self) -> None:
        folder = kit_home() / "files" / self.namespace
        if folder in [Path.cwd(), *Path.cwd().parents]:
            os.chdir(self._started_in)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(kit_home() / "train" / self.namespace, ignore_errors=True)

    def _delete_namespace(self) -> str:
        try:
            self.core.delete_namespace(self.namespace, _request_timeout=20)
        except ApiException as error:
            if error.status not in (404, 409):
                raise
        if self._read_namespace() is not None:
            raise KitError(f"namespace {self.namespace} is back; somebody uses it.")
        return f"namespace {self.namespace} is gone"

    def _delete_objects(self) -> str:
        """Delete what was made here in a namespace that is not ours; everything if it was made for the course."""
        if not self._made_for_the_course():
            count = assigned.remove(self.kubeconfig, self.namespace)
            return f"{count} objects that were made in {self.namespace} are gone"
        kinds = "deployments,statefulsets,daemonsets,jobs,cronjobs,replicasets,pods,services,persistentvolumeclaims"
        for words in (
            [kinds, "--all"],
            ["configmaps", "--field-selector=metadata.name!=kube-root-ca.crt"],
            ["secrets", "--field-selector=type=Opaque"],
        ):
            result = kubectl.run(["delete", *words, f"--namespace={self.namespace}", "--ignore-not-found"])
            if result.code:
                raise KitError(result.stderr.strip())
        return f"everything in {self.namespace} is deleted"

    def _made_for_the_course(self) -> bool:
        """Return whether an instructor made this namespace for the course: then all in it is the learner's."""
        try:
            found = self.core.read_namespace(self.namespace, _request_timeout=20)
        except ApiException as error:
            if error.status not in (403, 404):
                raise
            return False
        return (found.metadata.labels or {}).get("app.kubernetes.io/part-of") == "kit"

    def wait_until(self, what: str, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until `condition()` is true, but not for ever.

        Args:
            what: What is waited for, such as `"every Pod to go"`.
            condition: Asked several times a second.
            seconds: The limit.

        Raises:
            KitError: The time is up, or the cluster does not answer.
        """
        deadline = time.monotonic() + seconds
        with self.errors():
            while not condition():
                if time.monotonic() > deadline:
                    raise KitError(
                        f"Waited {seconds:g} s in vain for {what}. `%kubectl get pods` and `%kubectl get events` "
                        "show what is in the way; then run this cell again."
                    )
                time.sleep(0.2)

    def service_url(self, name: str) -> str:
        """Return an address that leads from here to a Service: its NodePort where that can be reached.

        Elsewhere (many clusters in the cloud, kind) it is a path through `kubectl proxy` in the background, which
        spreads requests over the Service's Pods as well.

        Raises:
            KitError: There is no such Service.
        """
        with self.errors():
            port = self.core.read_namespaced_service(name, self.namespace).spec.ports[0]
            for address in self._node_addresses() if port.node_port else []:
                with contextlib.suppress(OSError), socket.create_connection((address, port.node_port), timeout=2):
                    return f"http://{address}:{port.node_port}"
        door = kubectl.proxy(port=0)
        return f"{door.url}/api/v1/namespaces/{self.namespace}/services/{name}:{port.port}/proxy/"

    def _node_addresses(self) -> list[str]:
        """Return the addresses at which NodePorts may answer: this machine's for the embedded cluster."""
        if self.embedded:
            return ["127.0.0.1"]
        try:
            nodes = self.core.list_node(limit=1, _request_timeout=20).items
        except ApiException as error:
            if error.status != 403:
                raise
            return []
        found = [item for node in nodes for item in node.status.addresses]
        return [item.address for kind in ("ExternalIP", "InternalIP") for item in found if item.type == kind]

    def gpu_count(self) -> int:
        """Return how many GPUs Pods may ask for; where nodes may not be listed, what the namespace's quota grants.

        `KIT_USABLE_GPUS` says it where neither can be seen.
        """
        told = os.environ.get("KIT_USABLE_GPUS", "")
        if told.isdigit():
            return int(told)
        with self.errors():
            try:
                nodes = self.core.list_node(_request_timeout=20).items
                return sum(int((node.status.allocatable or {}).get(GPU, 0)) for node in nodes)
            except ApiException as error:
                if error.status != 403:
                    raise
            granted = self._gpu_quota()
        mend = "" if granted else "; if there are GPUs, say how many you may use with KIT_USABLE_GPUS"
        print(f"Your account may not list nodes; the namespace's quota grants {granted or 'no'} GPUs{mend}.")
        return granted

    def _gpu_quota(self) -> int:
        try:
            quotas = self.core.list_namespaced_resource_quota(self.namespace, _request_timeout=20).items
        except ApiException:
            return 0
        hard = [int((quota.spec.hard or {}).get(f"requests.{GPU}", 0)) for quota in quotas]
        return max(hard, default=0)

    def kill_node(self, name: str) -> None:
        """Power a node of the embedded cluster off, as if its plug were pulled.

        Raises:
            KitError: This is another cluster, or there is no such node.
        """
        self._node("kill", name)

    def start_node(self, name: str) -> None:
        """Switch a node of the embedded cluster on again.

        Raises:
            KitError: This is another cluster, or there is no such node.
        """
        self._node("start", name)

    def _node(self, verb: str, name: str) -> None:
        if not self.embedded:
            raise KitError("Only nodes of the embedded cluster may be switched off from a notebook.")
        words = [sys.executable, "-m", "kitlib", "node", verb, name]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        print(done.stdout, end="")
        if done.returncode:
            raise KitError(done.stderr.strip() or f"kit node {verb} {name} ended with {done.returncode}.")

    def __repr__(self) -> str:
        """Return a short name for the cluster and the namespace."""
        return f"<Cluster {self.context}, namespace {self.namespace}>"


def _call_all(actions: list[Callable[[], None]]) -> None:
    """Call each action once, and go on after one that fails; an interruption leaves the rest for another time."""
    while actions:
        with contextlib.suppress(Exception):
            actions.pop(0)()


def open_cluster(engine: str, source: dict[str, Any], chapter: str, learner: str) -> Cluster:
    """Reach a cluster, open the chapter's namespace in it, and make it the notebook's cluster.

    Args:
        engine: `embedded`, `context` or `in-cluster`.
        source: A kubeconfig with one context.
        chapter: The chapter as a DNS label.
        learner: Whose namespace it is, on a cluster that others share.

    Raises:
        KitError: The cluster does not answer, or refuses.
    """
    cluster = Cluster(engine, source)
    with cluster.errors():
        cluster.version = client.VersionApi(cluster.api).get_code(_request_timeout=20).git_version
    name = (f"kit-{chapter}" if cluster.embedded else f"kit-{chapter}-{learner}")[:63].strip("-")
    if not cluster.embedded:
        where = os.environ.get("KIT_NAMESPACE") or name
        print(f"On {source['clusters'][0]['cluster'].get('server')} everything goes into namespace {where}.")
    cluster.open_namespace(name, {"kit/course": chapter, "kit/user": learner})
    cluster.use()
    if not cluster.owns_namespace:
        assigned.remember(cluster.kubeconfig, cluster.namespace)
    return cluster


def gpus(nodes: list[Any]) -> str:
    """Return in words how many GPUs the nodes offer, and whether they are real."""
    real: dict[str, int] = {}
    simulated = 0
    for node in nodes:
        labels = node.metadata.labels or {}
        count = int((node.status.allocatable or {}).get(GPU, 0))
        if labels.get("kit/gpu") == "simulated":
            simulated += count
        elif count:
            product = labels.get("nvidia.com/gpu.product", "NVIDIA GPU")
            real[product] = real.get(product, 0) + count
    words = [f"{count} x {product}" for product, count in real.items()]
    words += [f"{simulated} simulated (CPU)"] if simulated else []
    return ", ".join(words) or "none"


def _is_ready(node: Any) -> bool:
    return any(item.type == "Ready" and item.status == "True" for item in node.status.conditions or [])
