"""Which API server and namespace a run lives in: those of the kubeconfig that `KUBECONFIG` names, as for kubectl."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

from kubernetes import client, config
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from kitlib.errors import KitError
from kitlib.train.mends import mend
from kitlib.transport import GONE, Transport, configuration, message_of

TIMEOUT = (5, 30)
"""Seconds to connect and to wait for an answer."""

PATIENCE = 60.0
"""Seconds that a following run puts up with an API server that is away."""


class Away(KitError):  # noqa: N818
    """The API server does not answer, or only that it cannot at the moment. Waiting may help."""


class Api:
    """The official client's APIs for one cluster and namespace; objects come back as plain dicts.

    Attributes:
        namespace: Namespace of the current context, or the one asked for.
        core: `CoreV1Api`.
        batch: `BatchV1Api`.
    """

    def __init__(self, namespace: str | None = None) -> None:
        """Read the kubeconfig; inside a Pod without one, the service account.

        Raises:
            KitError: There is no cluster to talk to.
        """
        path = os.environ.get("KUBECONFIG")
        try:
            settings = configuration()
            config.load_kube_config(path, client_configuration=settings, persist_config=False)
            self.client = Transport(configuration=settings)
            context = config.list_kube_config_contexts(path)[1]["context"]
        except (config.ConfigException, TypeError) as error:
            raise KitError("No cluster: run `kitlib.connect(...)`, or `kit up` and set KUBECONFIG.") from error
        self.namespace: str = namespace or context.get("namespace") or "default"
        self.core, self.batch = client.CoreV1Api(self.client), client.BatchV1Api(self.client)

    def ask(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        """Call a method of the official client and return the answer as the plain dict that the server sent.

        Raises:
            KitError: The server refuses or does not answer, in one sentence.
            ApiException: The object does not exist (404), exists already or has changed (409).
        """
        try:
            response = call(*arguments, _preload_content=False, _request_timeout=TIMEOUT, **options)
            if response.status >= 400:
                raise ApiException(http_resp=response)
            found: dict[str, Any] = json.loads(response.data)
            return found
        except ApiException as error:
            if error.status in (404, 409):
                raise
            kind = Away if error.status == 429 or error.status >= 500 else KitError
            said = message_of(error)
            raise kind(f"The API server answers {error.status}: {said}. {mend(said)}".strip()) from error
        except (HTTPError, OSError) as error:
            raise Away(f"The API server at {self.client.configuration.host} does not answer. {GONE}") from error

    def patiently(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        """Do as `ask`, and wait while the API server is away (it may restart while a run goes on)."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask(call, *arguments, **options)
            except Away:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def make(self, create: Callable[..., Any], read: Callable[..., Any], manifest: dict[str, Any]) -> dict[str, Any]:
        """Create an object once, however often it takes: an answer that got lost does not make a second one.

        Raises:
            KitError: The server refuses, or does not answer for a minute.
            ApiException: An object of that name was there before (409).
        """
        name, unsure, deadline = manifest["metadata"]["name"], False, time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask(create, self.namespace, manifest)
            except Away:
                unsure = True
                if time.monotonic() > deadline:
                    raise
            except ApiException as error:
                if not (unsure and error.status == 409):
                    raise
                return self.patiently(read, name, self.namespace)
            time.sleep(0.5)

    def gone(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Delete something that may be gone already."""
        with contextlib.suppress(ApiException):
            self.patiently(call, *arguments, **options)

    @property
    def embedded(self) -> bool:
        """Whether this is the kit's own cluster, whose nodes are processes of this machine."""
        return str(self.ask(client.VersionApi(self.client).get_code)["gitVersion"]).endswith("+kit")
