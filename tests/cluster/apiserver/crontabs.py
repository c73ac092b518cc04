"""The definition of the Kubernetes documentation's custom resource, CronTab, and objects of it."""

from __future__ import annotations

import copy
from typing import Any

GROUP, NAME = "stable.example.com", "crontabs.stable.example.com"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ALL = f"/apis/{GROUP}/v1/crontabs"
CRONTABS = f"/apis/{GROUP}/v1/namespaces/default/crontabs"

STEP = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "run": {"type": "string"}}}
SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["cronSpec"],
    "properties": {
        "cronSpec": {"type": "string", "pattern": r"^(\S+ ){4}\S+$", "description": "When it runs."},
        "image": {"type": "string", "default": "busybox", "enum": ["busybox", "nginx"]},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "port": {"x-kubernetes-int-or-string": True},
        "note": {"type": "string", "nullable": True, "minLength": 2, "maxLength": 5},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "template": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 2},
        "when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "steps": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": STEP,
        },
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "CronTab runs a command at times.",
    "required": ["spec"],
    "properties": {
        "spec": SPEC,
        "status": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}, "ready": STEP},
        },
    },
}
COLUMNS = [
    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "When it runs."},
    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
    {"name": "First", "type": "string", "jsonPath": '.spec.steps[?(@.name=="a")].run', "priority": 1},
]


def version(name: str = "v1", **fields: Any) -> dict[str, Any]:
    """Return a version of the definition."""
    return {
        "name": name,
        "served": True,
        "storage": name == "v1",
        "schema": {"openAPIV3Schema": copy.deepcopy(SCHEMA)},
        **fields,
    }


def definition(*versions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return the definition, by default with one version that has all subresources and columns."""
    names = {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]}
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    scale = {**paths, "labelSelectorPath": ".status.selector"}
    only = version(
        subresources={"status": {}, "scale": scale},
        additionalPrinterColumns=COLUMNS,
        selectableFields=[{"jsonPath": ".spec.image"}],
    )
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [*versions] or [only], **spec},
    }


def crontab(name: str = "nightly", spec: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    """Return a CronTab; its spec gets the one required field."""
    body = {"cronSpec": "0 3 * * *", **(spec or {})}
    return {"apiVersion": f"{GROUP}/v1", "kind": "CronTab", "metadata": {"name": name, **meta}, "spec": body}
