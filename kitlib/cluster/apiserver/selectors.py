"""Label selectors and field selectors: which objects a list or a watch means.

Stands for k8s.io/apimachinery's `labels` and `fields` packages and the field label conversions of each kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from kitlib.cluster.apiserver.errors import bad_request
from kitlib.cluster.apiserver.validation.fielderrors import label_value, qualified_name
from kitlib.cluster.objects import Object

Predicate = Callable[[Object], bool]
Requirement = tuple[str, str, frozenset[str]]
"""Key, operator (`in`, `notin`, `exists`, `!`, `gt`, `lt`), values."""

_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_WORDS = re.compile(r"==|!=|[=!<>(),]|[^\s=!<>(),]+")
_PUNCTUATION = ("=", "==", "!=", "!", "<", ">", "(", ")", ",")
_PREFIX = "unable to parse requirement: "
_SIMPLE = re.compile(r"([^\s=!<>()]+)\s*(?:(==|=|!=|>|<)\s*([^\s=!<>()]*))?")

_POD = "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork"
_INVOLVED = "kind namespace name uid apiVersion resourceVersion fieldPath"
FIELDS: dict[str, tuple[str, ...]] = {
    "pods": tuple(f"{_POD} status.phase status.podIP status.nominatedNodeName".split()),
    "events": (
        *(f"involvedObject.{name}" for name in _INVOLVED.split()),
        *"reason reportingComponent source type".split(),
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicationcontrollers": ("status.replicas",),
    "replicasets.apps": ("status.replicas",),
    "jobs.batch": ("status.successful",),
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "resourceslices.resource.k8s.io": ("spec.nodeName", "spec.driver"),
}
"""Fields that a field selector may name, beside `metadata.name` and `metadata.namespace`."""

_DEFAULTS = dict.fromkeys(("spec.unschedulable", "spec.hostNetwork"), "false")
_DEFAULTS |= dict.fromkeys(("status.replicas", "status.successful"), "0")
_PATHS = {"status.successful": "status.succeeded", "source": "source.component"}


def split(selector: str) -> list[str]:
    """Split a selector at the commas outside of parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(selector):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(selector[start:index])
            start = index + 1
    return [part.strip() for part in (*parts, selector[start:])]


def _requirement(part: str) -> Requirement:
    match = _SET.fullmatch(part)
    if match:
        values = frozenset(value.strip() for value in match[3].split(","))
        return _checked(match[1], match[2], values)
    if part.startswith("!"):
        return _checked(part[1:].strip(), "!", frozenset())
    match = _SIMPLE.fullmatch(part)
    if not match:
        raise ValueError(_complaint(part))
    operator = {None: "exists", "=": "in", "==": "in", "!=": "notin", ">": "gt", "<": "lt"}[match[2]]
    return _checked(match[1], operator, frozenset() if match[2] is None else frozenset([match[3]]))


def _complaint(part: str) -> str:
    """Return what the parser of Kubernetes says about a part that is no requirement."""
    words = [*_WORDS.findall(part), "", ""]
    if not part:
        return "found '', expected: identifier after ','"
    if words[0] in _PUNCTUATION:
        return f"found '{words[0]}', expected: !, identifier, or 'end of string'"
    if words[1] in ("in", "notin"):
        wanted = f"found '{words[2]}' expected: '('" if words[2] != "(" else "found '', expected: ',' or ')'"
        return f"{_PREFIX}{wanted}"
    if words[1] not in _PUNCTUATION or words[1] in "()":
        return f"{_PREFIX}found '{words[1]}', expected: in, notin, =, ==, !=, gt, lt"
    if words[2] in _PUNCTUATION:
        return f"{_PREFIX}found '{words[2]}', expected: identifier"
    return f"found '{words[3]}', expected: ',' or 'end of string'"


def _checked(key: str, operator: str, values: frozenset[str]) -> Requirement:
    for why in qualified_name(key):
        raise ValueError(f'{_PREFIX}key: Invalid value: "{key}": {why}')
    for value in values:
        for why in label_value(value):
            raise ValueError(f'{_PREFIX}values[0][{key}]: Invalid value: "{value}": {why}')
        if operator in ("gt", "lt") and not re.fullmatch(r"-?\d{1,18}", value):
            why = "for 'Gt', 'Lt' operators, the value must be an integer"
            raise ValueError(f'{_PREFIX}values[0]: Invalid value: "{value}": {why}')
    return key, operator, values


def _holds(labels: dict[str, str], requirement: Requirement) -> bool:
    key, operator, values = requirement
    value = labels.get(key)
    if operator == "in":
        return value is not None and value in values
    if operator == "notin":
        return value is None or value not in values
    if operator in ("exists", "!"):
        return (value is not None) == (operator == "exists")
    if value is None or not re.fullmatch(r"-?\d{1,18}", value):
        return False
    bound = int(next(iter(values)))
    return int(value) > bound if operator == "gt" else int(value) < bound


@lru_cache(maxsize=512)
def label_requirements(selector: str) -> tuple[Requirement, ...]:
    """Parse a label selector such as `app=web,tier in (a,b),!canary`.

    Raises:
        ApiError: 400, the selector cannot be parsed.
    """
    try:
        return tuple(_requirement(part) for part in split(selector)) if selector.strip() else ()
    except ValueError as error:
        raise bad_request(str(error)) from error


def selector_text(selector: Object | None) -> str:
    """Return a `LabelSelector` object in the form of a query parameter, as `/scale` and `kubectl get` show it."""
    selector = selector or {}
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        key, values = each.get("key", ""), ",".join(sorted(each.get("values") or ()))
        forms = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "DoesNotExist": f"!{key}"}
        parts.append((key, forms.get(each.get("operator", ""), key)))
    return ",".join(text for _, text in sorted(parts))


@lru_cache(maxsize=512)
def field_requirements(resource: str, selector: str, more: tuple[str, ...] = ()) -> tuple[tuple[str, bool, str], ...]:
    """Parse a field selector into `(field, equal, value)`; `more` are fields that a definition makes selectable.

    Raises:
        ApiError: 400, it cannot be parsed or names a field that the kind does not offer.
    """
    found = []
    for part in (each for each in selector.split(",") if each.strip()):
        match = re.fullmatch(r"\s*([^=!\s]+)\s*(!=|==|=)(.*)", part)
        if not match:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        field, operator, value = match.groups()
        field = field.replace("regarding.", "involvedObject.") if resource == "events" else field
        if field not in ("metadata.name", "metadata.namespace", *FIELDS.get(resource, ()), *more):
            raise bad_request(f"field label not supported: {field}")
        found.append((field, operator != "!=", value.strip()))
    return tuple(found)


def field_value(obj: Object, field: str) -> str:
    """Return the text of one selectable field."""
    value: Any = obj
    for name in _PATHS.get(field, field).split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None or value == "":
        return _DEFAULTS.get(field, "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def predicate(resource: str, labels: str, fields: str, more: tuple[str, ...] = ()) -> Predicate | None:
    """Return the test that a list or watch applies, or None when everything is meant.

    Raises:
        ApiError: 400, a selector cannot be parsed.
    """
    wanted_labels = label_requirements(labels)
    wanted_fields = field_requirements(resource, fields, more)
    if not wanted_labels and not wanted_fields:
        return None

    def test(obj: Object) -> bool:
        found = obj["metadata"].get("labels") or {}
        for each in wanted_labels:
            if not _holds(found, each):
                return False
        for field, equal, value in wanted_fields:
            if (field_value(obj, field) == value) != equal:
                return False
        return True

    return test


def exact_name(resource: str, fields: str, more: tuple[str, ...] = ()) -> str:
    """Return the name in a field selector that is `metadata.name=NAME` alone, else an empty string."""
    wanted = field_requirements(resource, fields, more) if fields else ()
    return wanted[0][2] if len(wanted) == 1 and wanted[0][:2] == ("metadata.name", True) else ""
