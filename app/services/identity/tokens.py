"""Tokens: what they claim, how they are signed, and how one of ours is read again.

Access tokens are JWTs as RFC 9068 has them, ID tokens as OpenID Connect Core 2. Nothing here does any I/O.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from app.services.identity import algorithms, scopes
from app.services.identity.accounts import Account
from app.services.identity.authorization import Family
from app.services.identity.keys import Key

Claims = dict[str, Any]

ACCESS_TOKEN_TYPE = "at+jwt"  # noqa: S105  # a header's value, not a secret
_HALF_HASHES = {"ES256": hashlib.sha256, "EdDSA": hashlib.sha512}


@dataclass(frozen=True, slots=True)
class Issue:
    """By whom, when and for how many seconds a token is issued."""

    issuer: str
    now: datetime
    seconds: float

    def claims(self, *, until: int | None = None) -> Claims:
        """Issuer, times and a fresh id; expiring no later than `until`."""
        issued = int(self.now.timestamp())
        expires = issued + int(self.seconds)
        if until is not None:
            expires = min(expires, until)
        return {"iss": self.issuer, "iat": issued, "exp": expires, "jti": secrets.token_hex(16)}


def for_client(issue: Issue, client_id: str, *, audience: str, scope: str) -> Claims:
    """The claims of a client's own access token."""
    return {**issue.claims(), "sub": client_id, "client_id": client_id, "aud": audience, "scope": scope}


def for_user(issue: Issue, account: Account, family: Family, *, scope: str) -> Claims:
    """The claims of an access token in a user's name."""
    return {
        **issue.claims(),
        "sub": account.subject,
        "client_id": family.client_id,
        "aud": family.audience,
        "scope": scope,
        "roles": list(account.roles),
        "sid": family.sid,
        "auth_time": int(family.auth_time.timestamp()),
    }


def exchanged(
    issue: Issue, subject: Mapping[str, Any], account: Account, *, client: str, audience: str, scope: str
) -> Claims:
    """The claims of a token by which `client` acts for the user of another one; it lives no longer (RFC 8693).

    Args:
        subject: the claims of that other token, which were verified.
    """
    actor: Claims = {"sub": client}
    if "act" in subject:
        actor["act"] = subject["act"]
    roles = [role for role in subject.get("roles", ()) if role in account.roles]
    return {
        **issue.claims(until=int(subject["exp"])),
        "sub": subject["sub"],
        "client_id": client,
        "aud": audience,
        "scope": scope,
        "roles": roles,
        "sid": subject["sid"],
        "auth_time": subject["auth_time"],
        "act": actor,
    }


def for_id(issue: Issue, account: Account, family: Family, *, scope: str, nonce: str | None, at_hash: str) -> Claims:
    """The claims of an ID token."""
    claims: Claims = {
        **issue.claims(),
        "sub": account.subject,
        "aud": family.client_id,
        "auth_time": int(family.auth_time.timestamp()),
        "sid": family.sid,
        "at_hash": at_hash,
        **person(account, scope),
    }
    return claims if nonce is None else {**claims, "nonce": nonce}


def person(account: Account, scope: str) -> Claims:
    """What `scope` lets a client know about somebody (OpenID Connect Core 5.4)."""
    granted = scopes.words(scope)
    claims: Claims = {"sub": account.subject}
    if "profile" in granted:
        claims |= {"name": account.name, "preferred_username": account.username}
    if "email" in granted:
        claims["email"] = account.email
    return claims


def half_hash(token: str, algorithm: str) -> str:
    """``at_hash``: the left half of the token's hash (OpenID Connect Core 3.1.3.6)."""
    hashed = _HALF_HASHES[algorithm](token.encode()).digest()
    return urlsafe_b64encode(hashed[: len(hashed) // 2]).rstrip(b"=").decode()


def sign(claims: Claims, key: Key, *, kind: str) -> str:
    """A compact JWS.

    Args:
        kind: the header's ``typ``.
    """
    if key.private is None:
        raise ValueError("this key cannot sign here")
    header = {"typ": kind, "alg": key.algorithm, "kid": key.kid}
    return jwt.encode(header, claims, key.private, [key.algorithm], registry=algorithms.own)


def key_id(token: str) -> str | None:
    """The key that a token names, if it is a JWS that looks like an access token at all; nothing of it is believed yet."""
    try:
        header = jws.extract_compact(token.encode(), registry=algorithms.own).headers()
    except (JoseError, ValueError):
        return None
    kid = header.get("kid")
    return kid if header.get("typ") == ACCESS_TOKEN_TYPE and isinstance(kid, str) else None


def read(token: str, key: Key, *, issuer: str, now: datetime) -> Claims | None:
    """The claims of an access token of ours, or None if it is none or has expired."""
    public = JWKRegistry.import_key(key.public)
    try:
        decoded = jwt.decode(token, public, [key.algorithm], registry=algorithms.own)
    except (JoseError, ValueError):
        return None
    claims = decoded.claims
    right = decoded.header.get("typ") == ACCESS_TOKEN_TYPE and claims.get("iss") == issuer
    return claims if right and now.timestamp() < claims.get("exp", 0) else None


def audiences(claims: Mapping[str, Any]) -> Sequence[str]:
    """The audience, which may be one text or a list."""
    audience = claims.get("aud", ())
    return (audience,) if isinstance(audience, str) else tuple(audience)
