"""The live cluster map: nodes as boxes, Pods as tiles, drawn from Kubernetes watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget

NodeAction = Callable[[str, str], None]
"""Called with a verb (`kill` or `start`) and a node's name."""


class ClusterMap(anywidget.AnyWidget):  # type: ignore[misc]
    """A picture of the cluster that follows it until the kernel ends or `close()` is called."""

    def text(self) -> str:
        """Return the map as plain text."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop following the cluster and take the picture away."""
        raise NotImplementedError


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
        ConnectionError: The API server does not answer.
    """
    raise NotImplementedError
