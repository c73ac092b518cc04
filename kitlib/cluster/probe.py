"""A few questions to the API server, asked with the standard library alone so that `kit up` starts fast."""

from __future__ import annotations

import http.client
import json
import math
import ssl
import time
from typing import Any

from kitlib.cluster.clock import parse_time
from kitlib.cluster.config import ClusterConfig


def node_readiness(config: ClusterConfig) -> dict[str, bool]:
    """Return, for each Node object, whether its Ready condition is True; empty when the API does not answer."""
    try:
        connection = _connect(config, 5)
        try:
            response = _get(connection, config, "/api/v1/nodes")
            return {node["metadata"]["name"]: _is_ready(node) for node in json.load(response)["items"]}
        finally:
            connection.close()
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return {}


def nodes_ready(config: ClusterConfig, count: int, limit: float, since: float) -> bool:
    """Follow the watch of nodes until `count` are Ready.

    Args:
        config: The cluster.
        count: How many nodes.
        limit: Seconds to wait at most.
        since: Time at which the cluster was started: what a node of an earlier start has said does not count.

    Returns:
        Whether they became Ready in time.
    """
    deadline = time.monotonic() + limit
    ready: dict[str, bool] = {}
    while time.monotonic() < deadline:
        try:
            connection = _connect(config, max(1.0, deadline - time.monotonic()))
            response = _get(connection, config, "/api/v1/nodes?watch=true")
            for line in response:
                node = json.loads(line)["object"]
                ready[node["metadata"]["name"]] = _is_ready(node, since)
                if sum(ready.values()) >= count:
                    connection.close()
                    return True
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            time.sleep(0.1)
    return False


def _is_ready(node: dict[str, Any], since: float = 0) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" and _heard(c) >= int(since) for c in conditions)


def _heard(condition: dict[str, Any]) -> float:
    """Return when a node last said so; a hollow one says nothing and is always there."""
    return parse_time(condition["lastHeartbeatTime"]) if condition.get("lastHeartbeatTime") else math.inf


def _connect(config: ClusterConfig, timeout: float) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(config.ca_file))
    return http.client.HTTPSConnection(config.host, config.port, timeout=timeout, context=context)


def _get(connection: http.client.HTTPSConnection, config: ClusterConfig, path: str) -> http.client.HTTPResponse:
    tokens = json.loads((config.pki / "tokens.json").read_text())
    token = next(token for token, entry in tokens.items() if entry["user"] == "kubernetes-admin")
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    if response.status != 200:
        raise OSError(f"HTTP {response.status}")
    return response
