"""The Status objects of refused requests, with Kubernetes' texts, reasons and details.

Stands for k8s.io/apimachinery/pkg/api/errors. Every function returns an `ApiError` to raise.
"""

from __future__ import annotations

from typing import Any

from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.client import ApiError
from kitlib.cluster.objects import Object

Cause = dict[str, str]

MEDIA_TYPES = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def status(code: int, reason: str, message: str, details: Object | None = None) -> Object:
    """Return a `v1.Status` object of a failure."""
    found: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    found["message"] = message
    found["reason"] = reason
    if details is not None:
        found["details"] = details
    found["code"] = code
    return found


def success(kind: Kind, name: str, uid: str = "") -> Object:
    """Return the `v1.Status` object of a deletion or a binding that is done."""
    details = _details(kind, name)
    if uid:
        details["uid"] = uid
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _details(kind: Kind, name: str, **more: Any) -> Object:
    details: Object = {"name": name} if name else {}
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.plural
    details.update(more)
    return details


def bad_request(message: str) -> ApiError:
    """400: the request makes no sense."""
    return ApiError(status(400, "BadRequest", message))


def unauthorized() -> ApiError:
    """401: no valid token."""
    return ApiError(status(401, "Unauthorized", "Unauthorized"))


def forbidden(kind: Kind, name: str, why: str, causes: list[Cause] | None = None) -> ApiError:
    """403: understood, and refused."""
    details = _details(kind, name, **({"causes": causes} if causes else {}))
    return ApiError(status(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', details))


def not_found(kind: Kind, name: str) -> ApiError:
    """404: no object of this name."""
    return ApiError(status(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name)))


def no_such_resource() -> ApiError:
    """404: the path names a resource that the server does not have."""
    return ApiError(status(404, "NotFound", "the server could not find the requested resource", {}))


def method_not_allowed() -> ApiError:
    """405: the resource has no such verb."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(status(405, "MethodNotAllowed", message, {}))


def definition_terminating(kind: Kind) -> ApiError:
    """405: a create while the kind's CustomResourceDefinition is being deleted."""
    message = "create not allowed while custom resource definition is terminating"
    return ApiError(status(405, "MethodNotAllowed", message, _details(kind, "")))


def not_acceptable() -> ApiError:
    """406: no encoding that the client accepts."""
    return ApiError(status(406, "NotAcceptable", f"only the following media types are accepted: {MEDIA_TYPES}", {}))


def already_exists(kind: Kind, name: str) -> ApiError:
    """409: create of a name that is taken."""
    message = f'{kind.resource} "{name}" already exists'
    return ApiError(status(409, "AlreadyExists", message, _details(kind, name)))


def conflict(kind: Kind, name: str, why: str = MODIFIED, subresource: str = "") -> ApiError:
    """409: somebody else was faster, or a precondition does not hold."""
    resource = f"{kind.resource}/{subresource}" if subresource else kind.resource
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return ApiError(status(409, "Conflict", message, _details(kind, name)))


def expired(message: str) -> ApiError:
    """410: the revision is older than the history that is kept."""
    return ApiError(status(410, "Expired", message))


def too_large() -> ApiError:
    """413: the body is longer than 3 MiB."""
    return ApiError(status(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728", {}))


def unsupported_media_type(accepted: str = MEDIA_TYPES) -> ApiError:
    """415: the body is in a format that the server does not read."""
    message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    return ApiError(status(415, "UnsupportedMediaType", message, {}))


def invalid(kind: Kind, name: str, causes: list[Cause]) -> ApiError:
    """422: the object breaks rules; `causes` are `{reason, message, field}`."""
    return _invalid(kind.group, kind.kind, name, causes)


def invalid_options(options: str, field: str, message: str, reason: str = "FieldValueForbidden") -> ApiError:
    """422: the query parameters do not fit together; `options` such as `ListOptions`."""
    return _invalid("meta.k8s.io", options, "", [{"reason": reason, "message": message, "field": field}])


def _invalid(group: str, kind: str, name: str, causes: list[Cause]) -> ApiError:
    lines = list(dict.fromkeys(f"{cause['field']}: {cause['message']}" for cause in causes))
    text = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    qualified = f"{kind}.{group}" if group else kind
    details: Object = {"name": name} if name else {}
    if group:
        details["group"] = group
    details.update(kind=kind, causes=causes)
    return ApiError(status(422, "Invalid", f'{qualified} "{name}" is invalid: {text}', details))


def too_many_requests(message: str, causes: list[Cause], retry_after: int = 0) -> ApiError:
    """429: not now, as for an eviction that a PodDisruptionBudget refuses."""
    details: Object = {"causes": causes}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
    return ApiError(status(429, "TooManyRequests", message, details))


def internal(message: str) -> ApiError:
    """500: the server's own fault, such as a full disk."""
    details = {"causes": [{"message": message}]}
    return ApiError(status(500, "InternalError", f"Internal error occurred: {message}", details))


def revision_ahead(revision: int, current: int) -> ApiError:
    """504: the client knows a later revision than this server."""
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    message = f"Timeout: Too large resource version: {revision}, current: {current}"
    return ApiError(status(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1}))
