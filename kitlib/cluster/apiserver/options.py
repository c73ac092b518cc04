"""What a request may ask for beside its object: dry run, field manager, selectors, pages, revisions.

Stands for the option types of meta.k8s.io/v1 (`CreateOptions`, `PatchOptions`, `ListOptions`, ...) and their
validation.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from kitlib.cluster.apiserver.errors import bad_request, invalid_options

_VALIDATIONS = ("", "Ignore", "Warn", "Strict")


@dataclass
class WriteOptions:
    """Options of create, update, patch and delete.

    Attributes:
        dry_run: Go through everything, store nothing.
        field_manager: Who writes, for managedFields.
        field_validation: What to do with unknown fields: `Ignore`, `Warn` or `Strict`.
        force: Take conflicting fields in a server-side apply.
        warnings: Texts for `Warning` headers, filled while the request is handled.
    """

    dry_run: bool = False
    field_manager: str = "kit"
    field_validation: str = "Warn"
    force: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ListOptions:
    """Options of list and watch, under the names of `ListOptions`."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""
    timeout_seconds: int = 0
    allow_watch_bookmarks: bool = False
    send_initial_events: bool | None = None

    @property
    def revision(self) -> int:
        """The resource version as a number; 0 when none is given."""
        return int(self.resource_version or 0)


def flag(query: Mapping[str, str], name: str) -> bool:
    """Return a boolean parameter; as in Kubernetes everything but empty, `0` and `false` is true."""
    return name in query and query[name].lower() not in ("", "0", "false")


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not text:
        return 0
    try:
        value = int(text) if text.lstrip("-").isdecimal() and text.isascii() else None
    except ValueError:
        value = None
    if value is None or abs(value) >= 1 << 63:
        raise bad_request(f'strconv.ParseInt: parsing "{text[:64]}": invalid syntax')
    return value


def write_options(query: Mapping[str, str], manager: str, options: str, apply: bool = False) -> WriteOptions:
    """Read the parameters of a write.

    Args:
        query: The request's parameters.
        manager: Field manager when the request names none.
        options: Name of the option type for messages, such as `CreateOptions`.
        apply: Whether the write is a server-side apply, which must name its manager.

    Raises:
        ApiError: 422, a value is missing or not supported.
    """
    if apply and not query.get("fieldManager"):
        message = "Required value: is required for apply patch"
        raise invalid_options(options, "fieldManager", message, "FieldValueRequired")
    if not query:
        return WriteOptions(field_manager=manager)
    dry_run, validation = query.get("dryRun", ""), query.get("fieldValidation", "")
    check_dry_run(dry_run, options)
    if validation not in _VALIDATIONS:
        message = f'Unsupported value: "{validation}": supported values: "", "Ignore", "Warn", "Strict"'
        raise invalid_options(options, "fieldValidation", message, "FieldValueNotSupported")
    asked = query.get("fieldManager", "")
    if len(asked) > 128:
        raise invalid_options(options, "fieldManager", "Too long: may not be more than 128 bytes", "FieldValueTooLong")
    return WriteOptions(
        dry_run=bool(dry_run),
        field_manager=asked or manager,
        field_validation=validation or "Warn",
        force=flag(query, "force"),
    )


def check_dry_run(value: str, options: str) -> None:
    """Raise 422 unless a `dryRun` value is empty or `All`."""
    if value not in ("", "All"):
        message = f'Unsupported value: "{value}": supported values: "All"'
        raise invalid_options(options, "dryRun", message, "FieldValueNotSupported")


def list_options(query: Mapping[str, str], watch: bool) -> ListOptions:
    """Read the parameters of a list or a watch.

    Raises:
        ApiError: 400 or 422, the parameters make no sense.
    """
    if not query:
        return ListOptions()
    revision = query.get("resourceVersion", "")
    if revision and not (revision.isdecimal() and revision.isascii() and len(revision) < 19):
        quoted = f'"{revision[:64]}"'
        raise bad_request(f"Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: invalid syntax")
    options = ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        resource_version=revision,
        resource_version_match=query.get("resourceVersionMatch", ""),
        limit=_number(query, "limit"),
        continue_token=query.get("continue", ""),
        timeout_seconds=_number(query, "timeoutSeconds"),
        allow_watch_bookmarks=flag(query, "allowWatchBookmarks"),
        send_initial_events=flag(query, "sendInitialEvents") if "sendInitialEvents" in query else None,
    )
    _check_list(options, watch)
    return options


def _check_list(options: ListOptions, watch: bool) -> None:
    match, initial = options.resource_version_match, options.send_initial_events
    if match not in ("", "Exact", "NotOlderThan"):
        message = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""'
        raise invalid_options("ListOptions", "resourceVersionMatch", message, "FieldValueNotSupported")
    why = ""
    if watch and initial is not None and match != "NotOlderThan":
        why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    elif watch and initial is None and match:
        why = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
    elif not watch and match and options.continue_token:
        why = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
    elif not watch and match and not options.resource_version:
        why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif not watch and match == "Exact" and options.revision == 0:
        why = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    if why:
        raise invalid_options("ListOptions", "resourceVersionMatch", why)
    if not watch and initial is not None:
        why = "Forbidden: sendInitialEvents is forbidden for list"
        raise invalid_options("ListOptions", "sendInitialEvents", why)


def encode_continue(revision: int, namespace: str, name: str) -> str:
    """Return the token of the page after this object."""
    token = {"v": "meta.k8s.io/v1", "rv": revision, "start": f"{namespace}/{name}\0"}
    return base64.urlsafe_b64encode(orjson.dumps(token)).decode().rstrip("=")


def decode_continue(token: str) -> tuple[int, tuple[str, str]]:
    """Return the revision of the first page, and namespace and name of its last object.

    Raises:
        ApiError: 400, the token is not one of ours.
    """
    try:
        found = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = found["start"].rstrip("\0").partition("/")
        return int(found["rv"]), (namespace, name)
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
