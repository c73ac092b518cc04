"""The live cluster map: nodes as boxes, Pods as tiles, drawn from Kubernetes watches.

A widget for JupyterLab, Notebook 7 and VS Code. It reads nothing but the API that the kubeconfig names, and
changes nothing but what its buttons say: delete a Pod, power a node of the embedded cluster off and on.
Without a front end `print(map.text())` says the same.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython import get_ipython
from kubernetes import client
from urllib3.exceptions import HTTPError

from kitlib.connect import current
from kitlib.errors import KitError
from kitlib.views import access, records
from kitlib.views.scene import scene, text
from kitlib.views.watch import NO_ANSWER, START, Follower, words

NodeAction = Callable[[str, str], None]
"""Called with a verb (`kill` or `start`) and a node's name; raises to say why it cannot."""

STATIC = Path(__file__).parent / "static"
SYNC_SECONDS = 15.0
QUIET_SECONDS = 0.12
"""Changes are gathered this long before they are drawn: a rollout is a burst of them."""

STOPPED = "this map no longer follows the cluster: run its cell again"

DONE = {"kill": "done; nobody tells the cluster, which learns of it by the silence in some seconds", "start": "done"}
"""What there is to say after a button of a node: one that was powered off is called Ready for a while."""

Json = dict[str, Any]


class ClusterMap(anywidget.AnyWidget):  # type: ignore[misc]
    """A picture of the cluster that follows it until its cell runs again, the clean-up, or the kernel's end.

    Attributes:
        scene: What is drawn at the moment, as plain data.
        services: Whether Services and their links to Pods are drawn.
    """

    _esm = (STATIC / "map.js").read_text(encoding="utf-8")
    _css = (STATIC / "map.css").read_text(encoding="utf-8")
    scene = traitlets.Dict().tag(sync=True)
    services = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self, api: Any, namespace: str, *, services: bool = False, node_action: NodeAction | None = None
    ) -> None:
        """Follow the cluster; see `cluster_map` for the arguments."""
        super().__init__(services=services)
        self._api, self._namespace = api, namespace
        self._node_action = node_action
        self._notice, self._stopped = "", ""
        self._dirty, self._closed = threading.Event(), threading.Event()
        self._followers: dict[str, Follower] = {}
        self._follow_all(services)
        self.on_msg(_on_message)
        self.observe(_on_services, "services")
        self._wait_for_first_lists()
        self._show(self._scene())
        threading.Thread(target=self._draw, name="cluster-map", daemon=True).start()

    def text(self) -> str:
        """Return the map as plain text."""
        return text(self._scene())

    def stop(self) -> None:
        """Stop following the cluster; the last picture stays and says so."""
        if not self._closed.is_set():
            self._stopped = STOPPED
            self._end()
            self._show(self._scene())

    def close(self) -> None:
        """Stop following the cluster and take the picture away."""
        self._end()
        super().close()

    def _end(self) -> None:
        self._closed.set()
        self._dirty.set()
        for follower in list(self._followers.values()):
            follower.stop()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle:
            bundle[0]["text/plain"] = self.text()
        return bundle

    def _follow_all(self, services: bool) -> None:
        core, discovery = client.CoreV1Api(self._api), client.DiscoveryV1Api(self._api)
        wanted = {
            "nodes": (core.list_node, records.node_record),
            "pods": (self._scoped(core, "pod"), records.pod_record),
            "events": (self._scoped(core, "event"), records.event_record),
        }
        if services:
            wanted["services"] = (self._scoped(core, "service"), records.service_record)
            wanted["endpointslices"] = (self._scoped(discovery, "endpoint_slice"), records.slice_record)
        for name, (call, record) in wanted.items():
            if name not in self._followers:
                self._followers[name] = Follower(name, call, record, self._dirty.set)
                self._followers[name].start()

    def _scoped(self, api: Any, kind: str) -> Callable[..., Any]:
        if self._namespace == "*":
            everywhere: Callable[..., Any] = getattr(api, f"list_{kind}_for_all_namespaces")
            return everywhere
        return partial(getattr(api, f"list_namespaced_{kind}"), self._namespace)

    def _wait_for_first_lists(self) -> None:
        deadline = time.monotonic() + SYNC_SECONDS
        for follower in list(self._followers.values()):
            while not follower.synced.wait(0.05) and time.monotonic() < deadline:
                if follower.problem:
                    self.close()
                    raise KitError(f"{follower.problem} at {self._api.configuration.host}. {START}")

    def _scene(self) -> Json:
        def known(name: str) -> list[Any]:
            return self._followers[name].values() if name in self._followers else []

        drawn = scene(known("nodes"), known("pods"), known("services"), known("endpointslices"), known("events"))
        problems = dict.fromkeys(follower.problem for follower in self._followers.values() if follower.problem)
        place = "every namespace" if self._namespace == "*" else f"namespace {self._namespace}"
        return {
            **drawn,
            "title": f"cluster map, {place}",
            "problems": [
                f"{problem}; this is what was known last" if problem == NO_ANSWER else problem
                for problem in [*problems, *filter(None, [self._stopped])]
            ],
            "stale": NO_ANSWER in problems or bool(self._stopped),
            "notice": self._notice,
            "canActOnNodes": self._node_action is not None and not self._stopped,
            "manyNamespaces": self._namespace == "*",
        }

    def _draw(self) -> None:
        """Draw what changed, at most a few times a second, until the map is closed."""
        while True:
            self._dirty.wait()
            if self._closed.is_set():
                return
            self._dirty.clear()
            began = time.monotonic()
            self._show(self._scene())
            self._closed.wait(max(QUIET_SECONDS, 10 * (time.monotonic() - began)))

    def _show(self, drawn: Json) -> None:
        if drawn != self.scene:
            self.scene = drawn
        # ipykernel 7.4 sends answers to the shell that spoke last, here the one that may be busy with a cell;
        # without this mark they keep the subshell that the front end chose, and buttons work all the time.
        if self.comm is not None:
            self.comm.__dict__.pop("_reply_subshell_id", None)

    def _act(self, content: Json) -> None:
        """Do what a button asks for, in a thread of its own."""
        try:
            if content["do"] == "delete":
                core = client.CoreV1Api(self._api)
                core.delete_namespaced_pod(content["name"], content["namespace"])
                self._notice = f'pod "{content["name"]}" deleted'
            elif self._node_action is not None:
                self._notice = f"kit node {content['do']} {content['name']} ..."
                self._dirty.set()
                self._node_action(content["do"], content["name"])
                self._notice = f"kit node {content['do']} {content['name']}: {DONE[content['do']]}"
        except Exception as error:  # whatever a caller's action raises is shown, not lost in a thread
            self._notice = f"{content['do']} {content['name']}: {words(error)}"
        self._dirty.set()


def _on_message(widget: ClusterMap, content: Json, _: Any) -> None:
    if content.get("do") in ("delete", "kill", "start") and content.get("name") and not widget._stopped:
        threading.Thread(target=widget._act, args=(content,), daemon=True).start()


def _on_services(change: Json) -> None:
    widget: ClusterMap = change["owner"]
    if widget._stopped:
        return
    if change["new"]:
        widget._follow_all(services=True)
        return
    for name in ("services", "endpointslices"):
        follower = widget._followers.pop(name, None)
        if follower:
            follower.stop()
    widget._dirty.set()


def kit_node(verb: str, name: str) -> None:
    """Run `kit node VERB NAME` of the embedded cluster.

    Raises:
        RuntimeError: The command failed; its last line says why.
    """
    command = [sys.executable, "-m", "kitlib", "node", verb, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit code {done.returncode}")


def cluster_map(
    namespace: str | None = None,
    *,
    services: bool = False,
    node_action: NodeAction | None = None,
    api_client: Any = None,
) -> ClusterMap:
    """Draw the cluster and keep the drawing up to date.

    Args:
        namespace: Whose Pods to show: a name, `"*"` for every namespace, or None for the namespace of the
            current context (as kubectl does).
        services: Whether to begin with Services and their links to Pods drawn.
        node_action: What the nodes' buttons call with `("kill" | "start", node name)`. By default the
            embedded cluster's own `kit node`; other clusters have no such buttons.
        api_client: A `kubernetes.client.ApiClient`; by default one for the current kubeconfig.

    Returns:
        The widget, already filled; show it by ending a cell with it, or `print(map.text())`.

    Raises:
        KitError: The API server does not answer.
        kubernetes.config.ConfigException: There is no kubeconfig.
    """
    api = api_client or access.api_client()
    try:
        embedded = access.is_embedded(api)
    except (HTTPError, OSError) as error:
        raise KitError(f"The API server {api.configuration.host} does not answer. {START}") from error
    action = node_action or (kit_node if embedded else None)
    where = namespace or access.current_namespace()
    widget = ClusterMap(api, where, services=services, node_action=action)
    _stop_those_before(widget)
    with contextlib.suppress(KitError):  # a map without `kitlib.connect` ends with the kernel
        current().on_clean_up(widget.stop, last=True)
    return widget


_of_cells: dict[str, tuple[str, list[ClusterMap]]] = {}
"""The maps that each cell made when it ran last, and which run that was."""


def _stop_those_before(widget: ClusterMap) -> None:
    """Stop the maps that this cell made when it ran before: nobody sees them any more, and each is some watches."""
    shell = get_ipython()
    parent = getattr(shell, "parent_header", None) or {}
    cell, run = parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id", "")
    if not cell:
        return
    earlier, maps = _of_cells.get(cell, (run, []))
    if earlier != run:
        for old in maps:
            old.stop()
        maps = []
    _of_cells[cell] = run, [*maps, widget]
