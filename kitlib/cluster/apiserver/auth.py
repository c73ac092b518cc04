"""Who sends a request, and what kubectl's `auth` commands answer.

Stands for bearer token authentication with a static token file and with tokens of ServiceAccounts, and for the review
kinds of authentication.k8s.io and authorization.k8s.io. Left out: client certificates, OIDC, and authorization itself:
whoever has a token may do everything. RBAC objects are stored, not enforced; the reviews say so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multidict import CIMultiDictProxy

from kitlib.cluster.apiserver import errors
from kitlib.cluster.apiserver.tokens import ISSUER, Find, ServiceAccountTokens
from kitlib.cluster.clock import rfc3339_now
from kitlib.cluster.objects import Object

PUBLIC_PATHS = frozenset(("/livez", "/readyz", "/healthz", "/version", "/version/"))
"""Paths that need no token."""

REASON = "RBAC is stored, not enforced: every authenticated user may do everything"


@dataclass(frozen=True)
class User:
    """Who sends a request.

    Attributes:
        name: Such as `kubernetes-admin` or `system:node:node-1`.
        groups: Such as `system:masters`.
        uid: Of a ServiceAccount.
        extra: Further facts, such as the Pod that a token is bound to.
    """

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict, compare=False)


class Authenticator:
    """Knows the bearer tokens.

    Args:
        path: JSON file `{token: {"user": name, "groups": [...]}}`; read again when it changes.
        find: Looks up what tokens of ServiceAccounts are bound to.

    Attributes:
        accounts: Issues and verifies tokens of ServiceAccounts.
    """

    def __init__(self, path: Path, find: Find) -> None:
        self._path = path
        self._changed = 0
        self._users: dict[bytes, User] = {}
        self.accounts = ServiceAccountTokens(path.with_name("sa.key"), find)
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
        user, _ = self.identify(token.strip(), (ISSUER,))
        if user is None:
            raise errors.unauthorized()
        return user

    def identify(self, token: str, audiences: Sequence[str]) -> tuple[User | None, list[str]]:
        """Return whose a token is and for which of some audiences it is good; those of the file are the API's."""
        digest = _digest(token)
        if digest not in self._users:
            info, good_for = self.accounts.verify(token, audiences) if token.count(".") == 2 else (None, [])
            if info is not None:
                return User(info["username"], tuple(info["groups"]), info["uid"], info["extra"]), good_for
            self._read()
        return self._users.get(digest) if ISSUER in audiences else None, [ISSUER]


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
        obj["metadata"]["creationTimestamp"] = rfc3339_now()
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
    info: Object = {"username": user.name, "groups": list(user.groups)}
    return {**info, **({"uid": user.uid} if user.uid else {}), **({"extra": user.extra} if user.extra else {})}


def _token_status(spec: Object, authenticator: Authenticator) -> Object:
    audiences = spec.get("audiences") or [ISSUER]
    user, good_for = authenticator.identify(spec.get("token") or "", audiences)
    if user is None:
        return {"authenticated": False, "user": {}, "error": "invalid bearer token"}
    return {"authenticated": True, "user": _user_info(user), "audiences": good_for}
