"""What objects count for in a ResourceQuota.

Stands for the evaluators of `pkg/quota/v1`, which admission and the quota controller share. Left out: scopes, storage.
"""

from __future__ import annotations

from decimal import Decimal

from kitlib.cluster import quantity
from kitlib.cluster.objects import Object


def usage(resource: str, obj: Object) -> dict[str, Decimal]:
    """Return what an object counts for, such as `{"pods": 1, "requests.cpu": 0.5, "count/pods": 1}`.

    Args:
        resource: Such as `pods` or `deployments.apps`.
        obj: The object.
    """
    used = {f"count/{resource}": Decimal(1)}
    if "." not in resource:
        used[resource] = Decimal(1)
    if resource == "pods":
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return {"count/pods": Decimal(1)}
        for container in obj["spec"].get("containers") or ():
            _add_container(used, container.get("resources") or {})
    return used


def _add_container(used: dict[str, Decimal], resources: Object) -> None:
    for group in ("requests", "limits"):
        for name, value in (resources.get(group) or {}).items():
            keys = [f"{group}.{name}", name] if group == "requests" else [f"{group}.{name}"]
            for key in keys:
                used[key] = used.get(key, Decimal(0)) + quantity.parse(value)


def text(value: Decimal) -> str:
    """Return an amount as quotas show it."""
    binary = value >= 1024 and value % 1024 == 0
    return quantity.to_string(value, "binary" if binary else "decimal")
