"""Who sends a request, and what kubectl's `auth` commands answer.

Stands for bearer token authentication with a static token file, and for the review kinds of authentication.k8s.io
and authorization.k8s.io. Left out: client certificates, OIDC, and authorization itself: whoever has a token may
do everything. RBAC objects are stored, not enforced; the reviews say so.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from multidict import CIMultiDictProxy

from kitlib.cluster.apiserver import errors
from kitlib.cluster.client import ApiError, Object

PUBLIC_PATHS = frozenset(("/livez", "/readyz", "/healthz", "/version", "/version/"))
"""Paths that need no token."""

REASON = "RBAC is stored, not enforced: every authenticated user may do everything"


@dataclass(frozen=True)
class User:
    """Who sends a request.

    Attributes:
        name: Such as `kubernetes-admin` or `system:node:node-1`.
        groups: Such as `system:masters`.
    """

    name: str
    groups: tuple[str, ...] = ()


class Authenticator:
    """Knows the bearer tokens.

    Args:
        path: JSON file `{token: {"user": name, "groups": [...]}}`; read again when it changes.
    """

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self._path = path
        self._changed = 0
        self._users: dict[bytes, User] = {}
        self._issued: dict[bytes, tuple[User, datetime]] = {}
        self._read()

    def _read(self) -> None:
        """Read the file when it is new; tokens are kept as digests, so that a look-up tells no timing."""
        changed = self._path.stat().st_mtime_ns if self._path.exists() else 0
        if changed == self._changed:
            return
        self._changed = changed
        stored = json.loads(self._path.read_text()) if changed else {}
        self._users = {
            _digest(token): User(entry["user"], (*entry.get("groups", ()), "system:authenticated"))
            for token, entry in stored.items()
        }

    def authenticate(self, header: str | None) -> User:
        """Return the user of an `Authorization` header.

        Raises:
            ApiError: 401, there is no header or its token is not known.
        """
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise errors.unauthorized()
        digest = _digest(token.strip())
        user = self._users.get(digest)
        if user is None and digest in self._issued:
            issued, expires = self._issued[digest]
            user = issued if expires > datetime.now(timezone.utc) else None
        if user is None:
            self._read()
            user = self._users.get(digest)
        if user is None:
            raise errors.unauthorized()
        return user

    def issue(self, namespace: str, account: str, seconds: int) -> tuple[str, str]:
        """Return a new token of a ServiceAccount and when it expires; it lives as long as this process."""
        token = secrets.token_urlsafe(48)
        now = datetime.now(timezone.utc)
        expires = now + timedelta(seconds=seconds)
        self._issued = {digest: entry for digest, entry in self._issued.items() if entry[1] > now}
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        self._issued[_digest(token)] = (User(f"system:serviceaccount:{namespace}:{account}", groups), expires)
        return token, expires.strftime("%Y-%m-%dT%H:%M:%SZ")


def impersonated(user: User, headers: CIMultiDictProxy[str]) -> User:
    """Return whom a request is to be taken for: the user, or who `kubectl --as` and `--as-group` name."""
    name = headers.get("Impersonate-User")
    if name is None:
        return user
    return User(name, (*headers.getall("Impersonate-Group", []), "system:authenticated"))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def review(kind: str, obj: Object, user: User, authenticator: Authenticator) -> Object:
    """Fill in the status of a review object.

    Args:
        kind: Such as `SelfSubjectAccessReview`.
        obj: The decoded request.
        user: Who asks.
        authenticator: Knows tokens, for `TokenReview`.
    """
    obj.setdefault("metadata", {})["creationTimestamp"] = None
    if kind == "SelfSubjectReview":
        obj["metadata"]["creationTimestamp"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        obj["status"] = {"userInfo": _user_info(user)}
    elif kind == "TokenReview":
        obj["status"] = _token_status(obj.get("spec") or {}, authenticator)
    elif kind == "SelfSubjectRulesReview":
        everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
        obj["status"] = {"resourceRules": [everything], "nonResourceRules": [paths], "incomplete": False}
    else:
        obj["status"] = {"allowed": True, "reason": REASON}
    return obj


def _user_info(user: User) -> Object:
    return {"username": user.name, "groups": list(user.groups)}


def _token_status(spec: Object, authenticator: Authenticator) -> Object:
    try:
        user = authenticator.authenticate(f"Bearer {spec.get('token', '')}")
    except ApiError:
        return {"authenticated": False, "user": {}, "error": "invalid bearer token"}
    return {"authenticated": True, "user": _user_info(user)}
