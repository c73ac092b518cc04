"""Errors about one field of an object, and the rules for names, in Kubernetes' words.

Stands for apimachinery's `field.Error` and `util/validation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import orjson

from kitlib.cluster.apiserver.schema import go_quote
from kitlib.cluster.objects import Object

Cause = dict[str, str]
IMMUTABLE = "field is immutable"
NEGATIVE = "must be greater than or equal to 0"
PORT_RANGE = "must be between 1 and 65535, inclusive"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return go_quote(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


class FieldErrors(list[Cause]):
    """The causes of a 422: a list of `{reason, message, field}`, in the order in which they were found."""

    def _add(self, reason: str, path: str, message: str, detail: str = "") -> None:
        message = f"{message}: {detail}" if detail else message
        self.append({"reason": f"FieldValue{reason}", "message": message, "field": path})

    def required(self, path: str, detail: str = "") -> None:
        """Add: a value is missing."""
        self._add("Required", path, "Required value", detail)

    def invalid(self, path: str, value: Any, detail: str) -> None:
        """Add: a value breaks a rule."""
        self._add("Invalid", path, f"Invalid value: {_shown(value)}", detail)

    def each(self, path: str, value: Any, details: Iterable[str]) -> None:
        """Add one `invalid` for each detail."""
        for detail in details:
            self.invalid(path, value, detail)

    def not_supported(self, path: str, value: Any, supported: Sequence[str]) -> None:
        """Add: a value is none of an enumeration."""
        quoted = ", ".join(go_quote(item) for item in supported)
        self._add("NotSupported", path, f"Unsupported value: {_shown(value)}", f"supported values: {quoted}")

    def duplicate(self, path: str, value: Any) -> None:
        """Add: a value that must be unique occurs twice."""
        self._add("Duplicate", path, f"Duplicate value: {_shown(value)}")

    def not_found(self, path: str, value: Any) -> None:
        """Add: a value names something that is not there."""
        self._add("NotFound", path, f"Not found: {_shown(value)}")

    def forbidden(self, path: str, detail: str) -> None:
        """Add: a field may not be set, or not be changed."""
        self._add("Forbidden", path, "Forbidden", detail)

    def too_long(self, path: str, limit: int) -> None:
        """Add: a value has too many bytes."""
        self._add("TooLong", path, "Too long", f"may not be more than {limit} bytes")

    def too_many(self, path: str, number: int, limit: int) -> None:
        """Add: a list has too many items."""
        self._add("TooMany", path, f"Too many: {number}", f"must have at most {limit} items")

    def non_negative(self, obj: Object, *names: str, path: str) -> None:
        """Check that each named field of an object is absent or at least 0."""
        for name in names:
            if obj.get(name) is not None and obj[name] < 0:
                self.invalid(f"{path}.{name}", obj[name], NEGATIVE)

    def named(self, path: str, value: str | None, rule: Callable[[str], Iterable[str]]) -> None:
        """Check a name that must be there by its rule."""
        if value:
            self.each(path, value, rule(value))
        else:
            self.required(path)

    def all_there(self, obj: Object, *names: str, path: str) -> None:
        """Check that an object has each named field, and not empty."""
        for name in names:
            if not obj.get(name):
                self.required(f"{path}.{name}")

    def unique(self, path: str, value: Any, seen: set[Any], shown: Any = None) -> None:
        """Check that a value has not been seen before, and note it; an empty one may come again."""
        if value and value in seen:
            self.duplicate(path, value if shown is None else shown)
        seen.add(value)

    def one_of(self, path: str, value: str | None, supported: Sequence[str]) -> None:
        """Check a value of an enumeration; an absent one is `required`."""
        if not value:
            self.required(path)
        elif value not in supported:
            self.not_supported(path, value, supported)


Checks = dict[str, Callable[[FieldErrors, Object], None]]
"""By kind, what checks a new object."""

UpdateChecks = dict[str, Callable[[FieldErrors, Object, Object], None]]
"""By kind, what checks the new and the old state of an object."""


def _rule(message: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples).rstrip(", ")
    return f"{message} (e.g. {shown}, regex used for validation is '{pattern}')"


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_PERCENT = "[0-9]+%"

_ENDS = "and must start and end with an alphanumeric character"
_LABEL_TEXT = _rule(
    f"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', {_ENDS}",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_TEXT = _rule(
    f"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', {_ENDS}",
    _SUBDOMAIN,
    "example.com",
)
_DNS_1035_TEXT = _rule(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character",
    _DNS_1035,
    "my-name",
    "abc-123",
)
_NAME_CHARACTERS = f"must consist of alphanumeric characters, '-', '_' or '.', {_ENDS}"
_QUALIFIED_TEXT = _rule(_NAME_CHARACTERS, _QUALIFIED, "MyName", "my.name", "123-abc")
_LABEL_VALUE_TEXT = _rule(
    f"a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', {_ENDS}",
    _LABEL_VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_CONFIG_KEY_TEXT = _rule(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)
PERCENT_TEXT = _rule("a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%")
_ENV_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"


def _matches(value: str, pattern: str, limit: int, text: str) -> Iterator[str]:
    if len(value.encode(errors="replace")) > limit:
        yield f"must be no more than {limit} bytes"
    if not re.fullmatch(pattern, value, re.ASCII):
        yield text


def dns_label(value: str) -> Iterator[str]:
    """Yield what is wrong with a DNS label (RFC 1123)."""
    return _matches(value, _LABEL, 63, _LABEL_TEXT)


def dns_subdomain(value: str) -> Iterator[str]:
    """Yield what is wrong with a DNS subdomain (RFC 1123)."""
    return _matches(value, _SUBDOMAIN, 253, _SUBDOMAIN_TEXT)


def dns_1035_label(value: str) -> Iterator[str]:
    """Yield what is wrong with the name of a Service."""
    return _matches(value, _DNS_1035, 63, _DNS_1035_TEXT)


def label_value(value: str) -> Iterator[str]:
    """Yield what is wrong with the value of a label."""
    return _matches(value, _LABEL_VALUE, 63, _LABEL_VALUE_TEXT)


def config_key(value: str) -> Iterator[str]:
    """Yield what is wrong with a key of a ConfigMap or Secret."""
    yield from _matches(value, _CONFIG_KEY, 253, _CONFIG_KEY_TEXT)
    if value in (".", ".."):
        yield f"must not be '{value}'"
    elif value.startswith(".."):
        yield "must not start with '..'"


def env_name(value: str) -> Iterator[str]:
    """Yield what is wrong with the name of an environment variable."""
    if not re.fullmatch(r"[ -<>-~]+", value):
        yield _ENV_TEXT


def path_segment(value: str) -> Iterator[str]:
    """Yield what is wrong with a name that may hold anything but path syntax."""
    if value in (".", ".."):
        yield f"may not be '{value}'"
    for part in ("/", "%"):
        if part in value:
            yield f"may not contain '{part}'"


def qualified_name(value: str) -> Iterator[str]:
    """Yield what is wrong with the key of a label, an annotation, a resource: `[prefix/]name`."""
    *prefix, name = value.split("/")
    if len(prefix) > 1:
        text = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        yield f"a qualified name {_QUALIFIED_TEXT} {text}"
        return
    if prefix and not prefix[0]:
        yield "prefix part must be non-empty"
    elif prefix:
        yield from (f"prefix part {text}" for text in dns_subdomain(prefix[0]))
    if not name:
        yield "name part must be non-empty"
    elif len(name) > 63:
        yield "name part must be no more than 63 bytes"
    if not re.fullmatch(_QUALIFIED, name, re.ASCII):
        yield f"name part {_QUALIFIED_TEXT}"


def port_name(value: str) -> Iterator[str]:
    """Yield what is wrong with the name of a port."""
    if len(value) > 15:
        yield "must be no more than 15 bytes"
    if not re.fullmatch("[-a-z0-9]*", value, re.ASCII):
        yield "must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)"
    if not re.search("[a-z]", value):
        yield "must contain at least one letter (a-z)"
    if "--" in value:
        yield "must not contain consecutive hyphens"
    if value.startswith("-") or value.endswith("-"):
        yield "must not begin or end with a hyphen"


def check_labels(found: FieldErrors, labels: Object | None, path: str) -> None:
    """Check the keys and values of labels."""
    for key, value in (labels or {}).items():
        found.each(path, key, qualified_name(key))
        found.each(path, value, label_value(value))


def check_annotations(found: FieldErrors, annotations: Object | None, path: str) -> None:
    """Check the keys of annotations and their size in all."""
    size = 0
    for key, value in (annotations or {}).items():
        found.each(path, key, qualified_name(key.lower()))
        size += len(key.encode()) + len(value.encode())
    if size > 256 << 10:
        found.too_long(path, 256 << 10)


_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def check_selector(found: FieldErrors, selector: Object | None, path: str) -> None:
    """Check a label selector."""
    check_labels(found, (selector or {}).get("matchLabels"), f"{path}.matchLabels")
    for index, item in enumerate((selector or {}).get("matchExpressions") or ()):
        where, operator, values = f"{path}.matchExpressions[{index}]", item.get("operator"), item.get("values")
        if operator in ("In", "NotIn") and not values:
            found.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            found.forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator not in _OPERATORS:
            found.invalid(f"{where}.operator", operator or "", "not a valid selector operator")
        found.each(f"{where}.key", item.get("key", ""), qualified_name(item.get("key", "")))


def check_port(found: FieldErrors, value: Any, path: str) -> None:
    """Check a port given by number or by name."""
    if isinstance(value, str):
        found.each(path, value, port_name(value))
    elif value is None or not 0 < value < 65536:
        found.invalid(path, value or 0, PORT_RANGE)


_NUMBER_OF_PERCENT = "[0-9]{1,18}%"


def percent_or_int(found: FieldErrors, value: Any, path: str) -> int | None:
    """Check an absolute number or a percentage; return its number, for telling 0 from the rest."""
    if isinstance(value, str):
        if not re.fullmatch(_NUMBER_OF_PERCENT, value, re.ASCII):
            found.invalid(path, value, PERCENT_TEXT)
            return None
        return int(value[:-1])
    if value is not None and value < 0:
        found.invalid(path, value, NEGATIVE)
    return value if isinstance(value, int) else None


def not_above_all(found: FieldErrors, value: Any, path: str) -> None:
    """Check that a percentage is of no more than there is."""
    if isinstance(value, str) and re.fullmatch(_NUMBER_OF_PERCENT, value, re.ASCII) and int(value[:-1]) > 100:
        found.invalid(path, value, "must not be greater than 100%")
