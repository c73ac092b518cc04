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

TIMEOUT = (5, 30)
"""Seconds to connect and to wait for an answer."""

PATIENCE = 60.0
"""Seconds that a following run puts up with an API server that is away."""


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
            self.client = config.new_client_from_config(path)
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
            raise KitError(f"The API server answers {error.status}: {message_of(error)}") from error
        except (HTTPError, OSError) as error:
            raise KitError(f"The API server at {self.client.configuration.host} does not answer.") from error

    def patiently(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        """Do as `ask`, and wait while the API server is away (it may restart while a run goes on)."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask(call, *arguments, **options)
            except KitError as error:
                if "does not answer" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def gone(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Delete something that may be gone already."""
        with contextlib.suppress(ApiException):
            self.ask(call, *arguments, **options)

    @property
    def embedded(self) -> bool:
        """Whether this is the kit's own cluster, whose nodes are processes of this machine."""
        return str(self.ask(client.VersionApi(self.client).get_code)["gitVersion"]).endswith("+kit")


def message_of(error: ApiException) -> str:
    """Return the server's own sentence."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(error.body)["message"])
    return str(error.reason)
