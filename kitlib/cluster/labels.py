"""Label selectors of API objects.

Stands for `metav1.LabelSelectorAsSelector`: the selector that Deployments, ReplicaSets, Jobs and affinity terms carry,
not the `-l` text of a list request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str] | None) -> bool:
    """Tell whether a `LabelSelector` selects an object with these labels.

    Args:
        selector: `{"matchLabels": ..., "matchExpressions": ...}`; None selects nothing, `{}` everything.
        labels: The object's labels.
    """
    if selector is None:
        return False
    labels = labels or {}
    pairs, expressions = selector.get("matchLabels"), selector.get("matchExpressions")
    if pairs and not pairs.items() <= labels.items():
        return False
    return not expressions or all(requirement_met(item, labels) for item in expressions)


def requirement_met(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether labels meet one `matchExpressions` item; node selectors also know `Gt` and `Lt`."""
    key, operator = requirement["key"], requirement["operator"]
    values = requirement.get("values") or ()
    value = labels.get(key)
    if operator == "In":
        return bool(value in values)
    if operator == "NotIn":
        return bool(value not in values)
    if operator in ("Exists", "DoesNotExist"):
        return bool((key in labels) == (operator == "Exists"))
    return value is not None and _compare(operator, value, values)


def _compare(operator: str, value: str, values: Sequence[str]) -> bool:
    try:
        left, right = int(value), int(values[0])
    except (ValueError, IndexError):
        return False
    return bool(left > right if operator == "Gt" else left < right)
