"""What the components ask of every object: its key, who controls it, its conditions, whether it is on its way out.

Stands for the helpers of `apimachinery/pkg/apis/meta/v1` and `pkg/api/v1/pod`. An object is the plain JSON of the API.
"""

from __future__ import annotations

from typing import Any, TypeVar

import orjson

Object = dict[str, Any]
"""A Kubernetes object as the API's JSON."""

Key = tuple[str, str]
"""Namespace (empty for a cluster-scoped object) and name."""

Value = TypeVar("Value")

NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of generated names: no vowels, so no words."""


def key_of(obj: Object) -> Key:
    """Return the namespace and name of an object."""
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def deep_copy(value: Value) -> Value:
    """Return a copy of a JSON value that may be changed.

    Raises:
        TypeError: Not a JSON value, such as a text that is not Unicode.
    """
    copy: Value = orjson.loads(orjson.dumps(value))
    return copy


def annotation(obj: Object, name: str) -> str:
    """Return an annotation, empty when it is not there."""
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))


def controller_of(obj: Object) -> Object | None:
    """Return the owner reference of the managing controller, if any."""
    return next((owner for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")), None)


def is_deleting(obj: Object) -> bool:
    """Tell whether somebody has asked for the object's deletion."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def condition(obj: Object, kind: str) -> Object | None:
    """Return the condition of a type from `status.conditions`, if there."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((item for item in conditions if item.get("type") == kind), None)


def condition_true(obj: Object, kind: str) -> bool:
    """Tell whether the condition is there with status True."""
    return (condition(obj, kind) or {}).get("status") == "True"


def is_hollow(node: Object) -> bool:
    """Tell whether a node is one without a process."""
    return (node["metadata"].get("labels") or {}).get("kit/hollow") == "true"


def is_sidecar(container: Object) -> bool:
    """Tell whether an init container goes on running beside the others."""
    return container.get("restartPolicy") == "Always"


def phase(pod: Object) -> str:
    """Return a Pod's phase; a new Pod is Pending."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_finished(pod: Object) -> bool:
    """Tell whether a Pod has Succeeded or Failed."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """Tell whether a Pod is neither finished nor being deleted."""
    return not is_finished(pod) and not is_deleting(pod)


def is_ready(pod: Object) -> bool:
    """Tell whether a Pod's Ready condition is True."""
    return condition_true(pod, "Ready")
