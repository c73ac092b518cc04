"""The annotation `kit/port-map`: ports of a Pod or Service that really listen on another one.

Stands for nothing in Kubernetes: it exists where an address or a low port cannot be bound.
"""

from __future__ import annotations

from typing import Any

import orjson

PORT_MAP = "kit/port-map"


def port_map(obj: dict[str, Any]) -> dict[str, int]:
    """Return an object's mapped ports; what is no map of ports, anybody may have written, counts as none."""
    try:
        found = orjson.loads((obj["metadata"].get("annotations") or {}).get(PORT_MAP) or "{}")
        mapped = {str(port): int(number) for port, number in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return {port: number for port, number in mapped.items() if 0 < number < 1 << 16}
