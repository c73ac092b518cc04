"""The subresource `token` of a ServiceAccount: a new token for the asking.

Stands for `TokenREST` in pkg/registry/core/serviceaccount.
"""

from __future__ import annotations

from kitlib.cluster.apiserver import errors, registry, schema
from kitlib.cluster.apiserver.auth import Authenticator
from kitlib.cluster.apiserver.objectmeta import check_type
from kitlib.cluster.apiserver.options import WriteOptions
from kitlib.cluster.apiserver.registry import Kind
from kitlib.cluster.apiserver.rest import REST
from kitlib.cluster.apiserver.schema import go_quote
from kitlib.cluster.apiserver.tokens import ISSUER
from kitlib.cluster.clock import rfc3339, rfc3339_now
from kitlib.cluster.objects import Object

_GROUP, _KIND = "authentication.k8s.io", "TokenRequest"
TOKEN_REQUEST = Kind(
    _GROUP, "v1", _KIND, "tokenrequests", "tokenrequest", True, (), (), ("create",), (), f"AuthenticationV1{_KIND}"
)
_ACCOUNTS = registry.lookup("serviceaccounts")
_BINDABLE = {kind.kind: kind for kind in map(registry.lookup, ("pods", "secrets", "nodes"))}


def request_token(
    rest: REST, authenticator: Authenticator, namespace: str, name: str, obj: Object, options: WriteOptions
) -> Object:
    """Return a TokenRequest with a new token of a ServiceAccount.

    Raises:
        ApiError: 404, no such ServiceAccount, or nothing such to bind the token to; 400 or 409, it is not that; 422,
            the life asked for is too short or too long.
    """
    check_type(TOKEN_REQUEST, obj)
    options.warnings += schema.decode(TOKEN_REQUEST, obj, options.field_validation)
    account = rest.entry(_ACCOUNTS, namespace, name).obj
    spec = obj.setdefault("spec", {})
    seconds = spec.setdefault("expirationSeconds", 3600)
    spec["audiences"] = spec.get("audiences") or [ISSUER]
    if not 600 <= seconds <= 1 << 32:
        rule = "less than 10 minutes" if seconds < 600 else "larger than 2^32 seconds"
        message = f"Invalid value: {seconds}: may not specify a duration {rule}"
        cause = {"reason": "FieldValueInvalid", "message": message, "field": "spec.expirationSeconds"}
        raise errors.invalid(TOKEN_REQUEST, name, [cause])
    bound = _bound(rest, namespace, name, spec.get("boundObjectRef"))
    token, until = authenticator.accounts.issue(account, seconds, spec["audiences"], bound)
    expires = rfc3339(until)
    meta = {"name": name, "namespace": namespace, "creationTimestamp": rfc3339_now()}
    return {**obj, "metadata": meta, "status": {"token": token, "expirationTimestamp": expires}}


def _bound(rest: REST, namespace: str, account: str, reference: Object | None) -> Object | None:
    if not reference:
        return None
    version, bound = reference.get("apiVersion", ""), _BINDABLE.get(reference.get("kind", ""))
    if version != "v1" or bound is None:
        kind = f"{version if '/' in version else '/' + version}, Kind={reference.get('kind', '')}"
        raise errors.bad_request(f"cannot bind token to object of type {kind}")
    name, uid = reference.get("name") or "", reference.get("uid")
    obj = rest.entry(bound, namespace if bound.namespaced else "", name).obj
    if bound.kind == "Pod" and (obj["spec"].get("serviceAccountName") or "default") != account:
        text = f"cannot bind token for serviceaccount {go_quote(account)} to pod running with different serviceaccount"
        raise errors.bad_request(f"{text} name.")
    if uid and uid != obj["metadata"]["uid"]:
        why = f"the UID in the bound object reference ({uid}) does not match the UID in record. "
        raise errors.conflict(bound, name, f"{why}The object might have been deleted and then recreated")
    return obj
