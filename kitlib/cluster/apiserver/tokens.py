"""Tokens of ServiceAccounts: JSON web tokens that say whose they are, for whom, and until when.

Stands for `pkg/serviceaccount` (claims, validators) and the signing key of `kubeadm init` (`sa.key`). A token is good
while its ServiceAccount exists, and the Pod that it is bound to, if any. Left out: the OpenID discovery documents,
tokens kept in Secrets, and tokens bound to a Secret or a Node.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from kitlib.cluster.apiserver.keys import private_key
from kitlib.cluster.objects import Object
from kitlib.cluster.store import Entry

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Who signs; also the audience that the API server itself is."""

_LEEWAY = 60
_KNOWN_LIMIT = 1000
_ECDSA = ec.ECDSA(hashes.SHA256())

Find = Callable[[str, str, str], "Entry | None"]
"""Returns a stored object by resource, namespace and name."""


class ServiceAccountTokens:
    """Issues and verifies tokens.

    Args:
        key_file: The signing key; made when it is needed first, and kept, so that tokens outlive this process.
        find: Looks up ServiceAccounts and what tokens are bound to.
    """

    def __init__(self, key_file: Path, find: Find) -> None:
        self._key_file, self._find = key_file, find
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._verified: dict[bytes, Object] = {}

    def _signing_key(self) -> ec.EllipticCurvePrivateKey:
        if self._key is None:
            self._key = private_key(self._key_file)
        return self._key

    def issue(self, account: Object, seconds: int, audiences: Sequence[str], bound: Object | None) -> tuple[str, int]:
        """Return a new token, bound to a Pod, Secret or Node if one is given, and the second when it expires."""
        meta, now = account["metadata"], int(time.time())
        own: Object = {"namespace": meta["namespace"], "serviceaccount": _named(meta)}
        if bound is not None:
            own[bound["kind"].lower()] = _named(bound["metadata"])
            if bound["kind"] == "Pod" and bound["spec"].get("nodeName"):
                own["node"] = {"name": bound["spec"]["nodeName"]}
        claims = {"aud": list(audiences), "exp": now + seconds, "iat": now, "iss": ISSUER, "jti": str(uuid.uuid4())}
        claims |= {"kubernetes.io": own, "nbf": now}
        claims["sub"] = f"system:serviceaccount:{meta['namespace']}:{meta['name']}"
        header = {"alg": "ES256", "kid": self._key_id()}
        signed = b".".join(_encode(orjson.dumps(part)) for part in (header, claims))
        r, s = decode_dss_signature(self._signing_key().sign(signed, _ECDSA))
        signature = _encode(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        return (signed + b"." + signature).decode(), now + seconds

    def _key_id(self) -> str:
        public = self._signing_key().public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return _encode(hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).digest()).decode()

    def verify(self, token: str, audiences: Sequence[str]) -> tuple[Object | None, list[str]]:
        """Return the `UserInfo` of a token and for which of some audiences it is good; None when it is not."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        claims = self._verified.get(digest) or self._read(token)
        if claims is None:
            return None, []
        if len(self._verified) >= _KNOWN_LIMIT:
            self._verified.clear()
        self._verified[digest] = claims
        good_for = [audience for audience in audiences if audience in claims["aud"]]
        in_time = claims["nbf"] - _LEEWAY <= time.time() < claims["exp"]
        return (self._user(claims) if in_time and good_for else None), good_for

    def _read(self, token: str) -> Object | None:
        """Return the claims of a token that this cluster signed, else None."""
        signed, _, signature = token.rpartition(".")
        try:
            raw = _decode(signature)
            if len(raw) != 64 or signed.count(".") != 1:
                return None
            pair = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
            self._signing_key().public_key().verify(pair, signed.encode(), _ECDSA)
            claims: Object = orjson.loads(_decode(signed.partition(".")[2]))
        except (ValueError, binascii.Error, InvalidSignature):
            return None
        return claims

    def _user(self, claims: Object) -> Object | None:
        own = claims["kubernetes.io"]
        namespace, account = own["namespace"], own["serviceaccount"]
        extra: dict[str, list[str]] = {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
        if not self._lives("serviceaccounts", namespace, account):
            return None
        bound = [
            ("pods", namespace, own.get("pod")),
            ("secrets", namespace, own.get("secret")),
            ("nodes", "", own.get("node")),
        ]
        if any(
            named and "uid" in named and not self._lives(resource, where, named) for resource, where, named in bound
        ):
            return None
        if "pod" in own:
            node = {"node-name": own["node"]["name"]} if "node" in own else {}
            facts = {**node, "pod-name": own["pod"]["name"], "pod-uid": own["pod"]["uid"]}
            extra |= {f"authentication.kubernetes.io/{name}": [value] for name, value in facts.items()}
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        return {"username": claims["sub"], "uid": account["uid"], "groups": groups, "extra": extra}

    def _lives(self, resource: str, namespace: str, named: Object) -> bool:
        entry = self._find(resource, namespace, named["name"])
        return entry is not None and entry.obj["metadata"]["uid"] == named["uid"]


def _named(meta: Object) -> Object:
    return {"name": meta["name"], "uid": meta["uid"]}


def _encode(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _decode(text: Any) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
