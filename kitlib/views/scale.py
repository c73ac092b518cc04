"""How many replicas a workload wants and how many are ready, recorded from a watch."""

from __future__ import annotations

import time
from functools import partial
from types import TracebackType
from typing import Any

from kubernetes import client

from kitlib.errors import KitError
from kitlib.views import access
from kitlib.views.watch import START, Follower


class ScaleLog:
    """Record wanted and ready replicas of a Deployment while the `with` block runs.

    Example:
        with views.ScaleLog("kubernetes-bootcamp") as log:
            ...                       # kubectl scale, kubectl wait
        views.scale_timeline(log.samples)

    Attributes:
        samples: Triples of seconds since the block began, wanted replicas, ready replicas.
    """

    def __init__(self, deployment: str, namespace: str | None = None, *, api_client: Any = None) -> None:
        """Say what to follow.

        Args:
            deployment: Name of a Deployment; it may not exist yet.
            namespace: Its namespace; by default that of the current context.
            api_client: A `kubernetes.client.ApiClient`; by default one for the current kubeconfig.
        """
        api = client.AppsV1Api(api_client or access.api_client())
        self._host = api.api_client.configuration.host
        call = partial(
            api.list_namespaced_deployment, namespace or access.current_namespace(),
            field_selector=f"metadata.name={deployment}",
        )  # fmt: skip
        self.samples: list[tuple[float, int, int]] = []
        self._began = time.monotonic()
        self._follower = Follower("deployments", call, _replicas, self._sample)

    def __enter__(self) -> ScaleLog:
        """Begin to record.

        Raises:
            KitError: The Deployment cannot be read, or the API server does not answer.
        """
        self._began = time.monotonic()
        self._follower.start()
        while not self._follower.synced.wait(0.05) and not self._follower.problem:
            pass
        if self._follower.problem:
            self._follower.stop()
            raise KitError(f"{self._follower.problem} at {self._host}. {START}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the last state and stop."""
        self._sample()
        self._follower.stop()

    def _sample(self) -> None:
        wanted, ready = next(iter(self._follower.values()), (0, 0))
        self.samples.append((time.monotonic() - self._began, wanted, ready))


def _replicas(deployment: dict[str, Any]) -> tuple[int, int]:
    spec, status = deployment["spec"], deployment.get("status") or {}
    wanted = spec.get("replicas")
    return 1 if wanted is None else int(wanted), int(status.get("readyReplicas") or 0)
