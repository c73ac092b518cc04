"""Writes and watches ConfigMaps while the API server comes and goes, and knows what it acknowledged."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from harness import EmbeddedCluster
from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

LABEL = "chaos"
TIMEOUT = (3, 10)
State = tuple[str | None, str | None]
"""Value and revision of a ConfigMap; its absence has no value."""


def connect(cluster: EmbeddedCluster) -> client.CoreV1Api:
    """Return a client that tries nothing twice: what is not answered is not acknowledged."""
    configuration = client.Configuration()
    config.load_kube_config(cluster.env["KUBECONFIG"], client_configuration=configuration)
    configuration.retries = False
    return client.CoreV1Api(client.ApiClient(configuration))


class Writer:
    """Creates, changes and deletes ConfigMaps in a thread.

    Args:
        cluster: Where.
        seed: Of its choices.

    Attributes:
        revisions: Of every acknowledged write but deletions, in order.
        acknowledged: How many writes were acknowledged.
        unanswered: How many writes were not answered; they may or may not have happened.
    """

    def __init__(self, cluster: EmbeddedCluster, seed: int) -> None:
        """Prepare; `start` begins."""
        self.revisions: list[int] = []
        self.acknowledged = self.unanswered = 0
        self._cluster = cluster
        self._random = random.Random(seed)
        self._states: dict[str, State] = {}
        self._open: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin to write."""
        self._api = connect(self._cluster)
        self._thread.start()

    def stop(self) -> None:
        """Stop writing."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        try:
            while not self._stopped.wait(0.02):
                number += 1
                self._write(number)
        except BaseException as error:
            self._error = error

    def _write(self, number: int) -> None:
        """Write once; a name whose write was not answered is left alone from then on."""
        living = [name for name, (value, _) in self._states.items() if value is not None and name not in self._open]
        verb = self._random.choice(["create", "create", "replace", "delete"]) if len(living) > 5 else "create"
        name = f"note-{number}" if verb == "create" else self._random.choice(living)
        try:
            self._states[name] = self._request(verb, name, str(number))
        except (HTTPError, OSError):
            self._open.add(name)
            self.unanswered += 1
            return
        self.acknowledged += 1
        if verb != "delete":  # the answer to a deletion tells no revision
            self.revisions.append(int(str(self._states[name][1])))

    def _request(self, verb: str, name: str, value: str) -> State:
        options: dict[str, Any] = {"_request_timeout": TIMEOUT}
        if verb == "delete":
            self._api.delete_namespaced_config_map(name, "default", **options)
            return None, None
        body = {"metadata": {"name": name, "labels": {"test": LABEL}}, "data": {"value": value}}
        if verb == "create":
            answer = self._api.create_namespaced_config_map("default", body, **options)
        else:
            answer = self._api.replace_namespaced_config_map(name, "default", body, **options)
        return value, answer.metadata.resource_version

    def verify(self) -> None:
        """Compare what is there with what was acknowledged.

        Raises:
            AssertionError: An acknowledged write is lost, undone, or got no revision of its own.
        """
        assert self._error is None, f"the writer met {self._error!r}"
        items = self._api.list_namespaced_config_map("default", label_selector=f"test={LABEL}").items
        found = {item.metadata.name: (item.data["value"], item.metadata.resource_version) for item in items}
        for name, (value, revision) in self._states.items():
            if name not in self._open:
                wanted = None if value is None else (value, revision)
                assert found.get(name) == wanted, f"{name} is {found.get(name)}, acknowledged was {wanted}"
        assert not found.keys() - self._states.keys() - self._open
        assert self.revisions == sorted(set(self.revisions)), "a later write got an earlier revision"


class Watcher:
    """Watches the same ConfigMaps in a thread, each time from the last revision that it saw.

    Args:
        cluster: Where.

    Attributes:
        began: How many watches it took.
    """

    def __init__(self, cluster: EmbeddedCluster) -> None:
        """Prepare; `start` begins."""
        self.began = 0
        self._cluster = cluster
        self._seen: list[int] = []
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._api = connect(self._cluster)
        self._last = self._api.list_namespaced_config_map("default").metadata.resource_version
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while self._error is None:
            self.began += 1
            try:
                self._watch()
            except (HTTPError, OSError):
                time.sleep(0.05)
            except BaseException as error:
                self._error = error

    def _watch(self) -> None:
        """Follow one watch to its end."""
        options = {"label_selector": f"test={LABEL}", "_request_timeout": (3, 60)}
        stream = watch.Watch()
        for event in stream.stream(
            self._api.list_namespaced_config_map, "default", resource_version=self._last, **options
        ):
            self._last = event["object"].metadata.resource_version
            self._seen.append(int(self._last))

    def verify(self, revisions: list[int]) -> None:
        """Compare what the watch saw with the acknowledged revisions.

        Raises:
            AssertionError: It missed a write, or saw one twice or out of order.
        """
        deadline = time.monotonic() + 30
        while self._seen[-1:] < revisions[-1:] and self._error is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self._error is None, f"the watch met {self._error!r}"
        assert self._seen == sorted(set(self._seen)), "the watch saw a write twice or out of order"
        missed = set(revisions) - set(self._seen)
        assert not missed, f"the watch missed the acknowledged revisions {sorted(missed)[:10]}"
