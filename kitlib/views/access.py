"""Which API server and namespace a picture is about: those of the current kubeconfig, as for kubectl."""

from __future__ import annotations

import os
from typing import Any

from kubernetes import client, config


def api_client() -> Any:
    """Return a client for the cluster that `KUBECONFIG` names.

    Raises:
        kubernetes.config.ConfigException: There is no kubeconfig.
    """
    return config.new_client_from_config(os.environ.get("KUBECONFIG"))


def current_namespace() -> str:
    """Return the namespace of the current context, `default` if it names none."""
    try:
        _, active = config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
    except config.ConfigException:
        return "default"
    return str(active["context"].get("namespace") or "default")


def is_embedded(api: Any) -> bool:
    """Return whether the API server is the kit's own embedded one; one that hides its version is not."""
    try:
        return str(client.VersionApi(api).get_code(_request_timeout=10).git_version).endswith("+kit")
    except client.ApiException:
        return False
