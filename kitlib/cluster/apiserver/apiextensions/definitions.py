"""CustomResourceDefinitions: their defaults, and which of them are refused.

Stands for `apiextensions-apiserver/pkg/apis/apiextensions` (`v1/defaults.go`, `validation/validation.go`) and for
`ValidateStructural`. Where it matters, paths are those of the internal type, as in Kubernetes' own messages. Left out:
CEL rules, the cost of schemas, and rules for webhooks beyond that there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from kitlib.cluster.apiserver.apiextensions.schemavalidation import pattern, validate
from kitlib.cluster.apiserver.apiextensions.structural import EMBEDDED, PRESERVE, prune
from kitlib.cluster.apiserver.validation.fielderrors import IMMUTABLE, FieldErrors, dns_1035_label, dns_subdomain
from kitlib.cluster.objects import Object, condition_true, deep_copy

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_APPROVAL = "api-approved.kubernetes.io"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_LIST_TYPE, _LIST_KEYS = "x-kubernetes-list-type", "x-kubernetes-list-map-keys"
_FORBIDDEN_NESTED = {
    "type": "empty",
    "default": "undefined",
    "title": "empty",
    "description": "empty",
    "nullable": "false",
    "additionalProperties": "undefined",
    PRESERVE: "false",
    EMBEDDED: "false",
    _INT_OR_STRING: "false",
    _LIST_TYPE: "undefined",
    _LIST_KEYS: "empty",
}
_EITHER = [{"type": "integer"}, {"type": "string"}]


def set_defaults(definition: Object) -> None:
    """Fill in the names that follow from others, and how versions are converted."""
    spec = definition.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names["singular"] = names.get("singular") or names["kind"].lower()
        names["listKind"] = names.get("listKind") or f"{names['kind']}List"
    spec.setdefault("conversion", {"strategy": "None"})


def note_stored_version(definition: Object) -> None:
    """Add the storage version to the versions in which objects may be stored."""
    stored = definition.setdefault("status", {}).setdefault("storedVersions", [])
    for version in (definition.get("spec") or {}).get("versions") or ():
        if version.get("storage") and version.get("name") not in stored:
            stored.append(version.get("name"))


def check(found: FieldErrors, definition: Object) -> None:
    """Check a new definition."""
    spec, meta = definition["spec"], definition["metadata"]
    names, group = spec["names"], spec.get("group", "")
    if meta.get("name") and meta["name"] != f"{names.get('plural', '')}.{group}":
        found.invalid("metadata.name", meta["name"], 'must be spec.names.plural+"."+spec.group')
    _check_group(found, group, meta.get("annotations") or {})
    found.one_of("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    _check_versions(found, spec.get("versions") or [])
    _check_names(found, names)
    _check_conversion(found, spec["conversion"])
    if spec.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        found.invalid("spec.preserveUnknownFields", True, text)
    _check_schemas(found, spec.get("versions") or [])


def check_update(found: FieldErrors, new: Object, old: Object) -> None:
    """Check what no update may change; `check` has gone over the new state."""
    spec, before = new["spec"], old["spec"]
    fixed = [("group", spec.get("group"), before["group"])]
    fixed.append(("names.plural", spec["names"].get("plural"), before["names"]["plural"]))
    if condition_true(old, "Established"):
        fixed.append(("scope", spec.get("scope"), before["scope"]))
        fixed.append(("names.kind", spec["names"].get("kind"), before["names"]["kind"]))
    for name, value, was in fixed:
        if value != was:
            found.invalid(f"spec.{name}", value, IMMUTABLE)
    served = [version.get("name") for version in spec.get("versions") or ()]
    for index, version in enumerate((new.get("status") or {}).get("storedVersions") or ()):
        if version not in served:
            text = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {version} and removes "
                f"{version} from status.storedVersions"
            )
            found.invalid(f"status.storedVersions[{index}]", version, text)


def _check_group(found: FieldErrors, group: str, annotations: Object) -> None:
    problems = ",".join(dns_subdomain(group))
    if not group:
        found.required("spec.group")
    elif problems:
        found.invalid("spec.group", group, problems)
    elif "." not in group:
        found.invalid("spec.group", group, "should be a domain with at least one dot")
    if group.endswith((".k8s.io", ".kubernetes.io")) and not annotations.get(_APPROVAL):
        text = f'protected groups must have approval annotation "{_APPROVAL}", see '
        where = f"metadata.annotations[{_APPROVAL}]"
        found.required(where, text + "https://github.com/kubernetes/enhancements/pull/1111")


def _check_versions(found: FieldErrors, versions: list[Object]) -> None:
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        _label(found, f"{path}.name", version.get("name", ""))
        for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
            _check_column(found, column, f"{path}.additionalPrinterColumns[{number}]")
        for number, item in enumerate(version.get("selectableFields") or ()):
            _json_path(found, f"{path}.selectableFields[{number}].jsonPath", item.get("jsonPath"))
        scale = (version.get("subresources") or {}).get("scale")
        if scale is not None:
            _check_scale(found, scale, f"{path}.subresources.scale")
    names = [version.get("name") for version in versions]
    if len(set(names)) < len(names):
        found.invalid("spec.versions", versions, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        found.invalid("spec.versions", versions, "must have exactly one version marked as storage version")


def _label(found: FieldErrors, path: str, value: str, words: str = "") -> None:
    problems = ",".join(dns_1035_label(value.lower() if words else value))
    if problems:
        found.invalid(path, value, words + problems)


def _check_names(found: FieldErrors, names: Object) -> None:
    mixed = "may have mixed case, but should otherwise match: "
    for name, words in (("plural", ""), ("singular", ""), ("kind", mixed), ("listKind", mixed)):
        if names.get(name):
            _label(found, f"spec.names.{name}", names[name], words)
        else:
            found.required(f"spec.names.{name}")
    for name in ("shortNames", "categories"):
        for index, value in enumerate(names.get(name) or ()):
            _label(found, f"spec.names.{name}[{index}]", value)
    if names.get("kind") and names["kind"] == names.get("listKind"):
        found.invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")


def _json_path(found: FieldErrors, path: str, value: Any, below: tuple[str, ...] = ()) -> None:
    if not value:
        found.required(path)
    elif not value.startswith("."):
        found.invalid(path, value, "must be a simple json path starting with .")
    elif below and not value.startswith(below):
        found.invalid(path, value, f"should be a json path under {' or '.join(each[:-1] for each in below)}")


def _check_column(found: FieldErrors, column: Object, path: str) -> None:
    if not column.get("name"):
        found.required(f"{path}.name")
    text = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not column.get("type"):
        found.required(f"{path}.type", text)
    elif column["type"] not in _COLUMN_TYPES:
        found.invalid(f"{path}.type", column["type"], text)
    _json_path(found, f"{path}.JSONPath", column.get("jsonPath"))


def _check_scale(found: FieldErrors, scale: Object, path: str) -> None:
    _json_path(found, f"{path}.specReplicasPath", scale.get("specReplicasPath"), (".spec.",))
    _json_path(found, f"{path}.statusReplicasPath", scale.get("statusReplicasPath"), (".status.",))
    if scale.get("labelSelectorPath"):
        _json_path(found, f"{path}.labelSelectorPath", scale["labelSelectorPath"], (".spec.", ".status."))


def _check_conversion(found: FieldErrors, conversion: Object) -> None:
    found.one_of("spec.conversion.strategy", conversion.get("strategy"), ("None", "Webhook"))
    if conversion.get("strategy") == "Webhook" and not conversion.get("webhook"):
        found.required("spec.conversion.webhookClientConfig", "required when strategy is set to Webhook")
    elif conversion.get("strategy") == "None" and conversion.get("webhook"):
        found.forbidden("spec.conversion.webhookClientConfig", "should not be set when strategy is not set to Webhook")


def _check_schemas(found: FieldErrors, versions: list[Object]) -> None:
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in versions]
    same = all(schema == schemas[0] for schema in schemas)
    for index, schema in enumerate(schemas):
        where = f"spec.versions[{index}].schema.openAPIV3Schema"
        if schema is None:
            found.required(where, "schemas are required")
        elif index == 0 or not same:
            problems = FieldErrors()
            _check_schema(problems, schema, "spec.validation.openAPIV3Schema" if same else where, "root")
            found += sorted(problems, key=lambda each: f"{each['field']}: {each['message']}")


_EMPTY_TYPE = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}


def _check_schema(found: FieldErrors, schema: Any, path: str, level: str) -> None:
    """Check that a schema is structural."""
    if not isinstance(schema, dict):
        found.invalid(path, schema, "must be a schema")
        return
    kind = schema.get("type")
    if not kind and not schema.get(_INT_OR_STRING) and not schema.get(PRESERVE):
        found.required(f"{path}.type", f"must not be empty {_EMPTY_TYPE[level]}")
    elif kind and kind not in _TYPES:
        found.not_supported(f"{path}.type", kind, _TYPES)
    elif kind and level == "root" and kind != "object":
        found.invalid(f"{path}.type", kind, "must be object at the root")
    if kind == "array" and "items" not in schema:
        found.required(f"{path}.items", "must be specified")
    _check_extensions(found, schema, path)
    _check_values(found, schema, path)
    if level == "root" and set((schema.get("properties") or {}).get("metadata") or ()) - {"type", "properties"}:
        text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        found.forbidden(f"{path}.properties[metadata]", text)
    for inner, where, name in _children(schema, path):
        _check_schema(found, inner, where, name)
    if schema.get("default") is not None:
        _check_default(found, schema, path)


def _children(schema: Object, path: str) -> Iterator[tuple[Any, str, str]]:
    for name, inner in (schema.get("properties") or {}).items():
        yield inner, f"{path}.properties[{name}]", "field"
    if "items" in schema:
        yield schema["items"], f"{path}.items", "item"
    if schema.get("additionalProperties") not in (None, True, False):
        yield schema["additionalProperties"], f"{path}.additionalProperties", "field"


def _check_extensions(found: FieldErrors, schema: Object, path: str) -> None:
    if schema.get("additionalProperties") is not None:
        if schema.get("properties"):
            text = "additionalProperties and properties are mutual exclusive"
            found.forbidden(f"{path}.additionalProperties", text)
        elif schema["additionalProperties"] is False:
            found.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        found.forbidden(f"{path}.uniqueItems", text)
    for name in ("$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id"):
        if schema.get(name):
            found.forbidden(f"{path}.{name}", f"{name} is not supported")
    if PRESERVE in schema and schema[PRESERVE] is not True:
        found.invalid(f"{path}.{PRESERVE}", schema[PRESERVE], "must be true or undefined")
    if schema.get(EMBEDDED) and schema.get("type") != "object":
        found.required(f"{path}.type", f"must be object if {EMBEDDED} is true")
    kind = schema.get(_LIST_TYPE)
    if kind is not None and kind not in ("atomic", "set", "map"):
        found.not_supported(f"{path}.{_LIST_TYPE}", kind, ("atomic", "set", "map"))
    if kind == "map" and not schema.get(_LIST_KEYS):
        found.required(f"{path}.{_LIST_KEYS}", f"must not be empty if {_LIST_TYPE} is map")


def _check_values(found: FieldErrors, schema: Object, path: str) -> None:
    """Check the parts that restrict values: patterns, and what stands below `allOf` and its like."""
    try:
        pattern(schema.get("pattern") or "")
    except re.error as error:
        text = f"must be a valid regular expression, but isn't: {error}"
        found.invalid(f"{path}.pattern", schema["pattern"], text)
    either = bool(schema.get(_INT_OR_STRING)) and schema.get("anyOf") == _EITHER
    junctors: Iterable[str] = ("allOf", "oneOf") if either else ("anyOf", "allOf", "oneOf")
    for junctor in junctors:
        for index, inner in enumerate(schema.get(junctor) or ()):
            if not (schema.get(_INT_OR_STRING) and junctor == "allOf" and index == 0 and inner.get("anyOf") == _EITHER):
                _check_nested(found, inner, f"{path}.{junctor}[{index}]")
    if "not" in schema:
        _check_nested(found, schema["not"], f"{path}.not")


def _check_nested(found: FieldErrors, schema: Any, path: str) -> None:
    if not isinstance(schema, dict):
        found.invalid(path, schema, "must be a schema")
        return
    for name, words in _FORBIDDEN_NESTED.items():
        if schema.get(name):
            found.forbidden(f"{path}.{name}", f"must be {words} to be structural")
    _check_values(found, schema, path)
    for inner, where, _ in _children({**schema, "additionalProperties": None}, path):
        _check_nested(found, inner, where)


def _check_default(found: FieldErrors, schema: Object, path: str) -> None:
    unknown: list[str] = []
    prune(deep_copy([schema["default"]]), {"items": schema}, unknown)
    if unknown:
        found.invalid(f"{path}.default", schema["default"], "must be pruned")
        return
    problems = FieldErrors()
    validate(problems, schema, schema["default"], f"{path}.default")
    found += problems
