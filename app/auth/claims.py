"""A token's header and claims, checked as RFC 9068 says, without any I/O.

The checks that need no key come first, so that nonsense costs no signature.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.auth.algorithms import CURVES
from app.auth.principal import Principal
from app.errors import InvalidToken

_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# What lets a token bring its own key, or change what is signed: RFC 7515, 4.1 and RFC 7797.
_REFUSED = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_LONGEST = 256
# Seconds of the epoch beyond any calendar.
_FURTHEST = 1e12


@dataclass(frozen=True, slots=True)
class Header:
    """What is believed of a token's header before its signature is checked: which key, and how."""

    kid: str
    algorithm: str


def read_header(token: str, *, max_bytes: int) -> Header:
    """The header of a compact JWS.

    Raises:
        InvalidToken: it is none, too long, of another type than an access token, or signed in a way that is not believed.
    """
    if len(token) > max_bytes:
        raise InvalidToken("The token is too long")
    parts = token.split(".")
    if len(parts) != 3 or not all(map(_is_canonical, parts)):
        raise InvalidToken("The token is malformed")
    header = _object(parts[0])
    if not _REFUSED.isdisjoint(header):
        raise InvalidToken("The token's header is not acceptable")
    kind, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidToken("It is not an access token")
    if not isinstance(algorithm, str) or algorithm not in CURVES:
        raise InvalidToken("The token's algorithm is not accepted")
    if not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST:
        raise InvalidToken("The token does not name its key")
    return Header(kid, algorithm)


def read(
    claims: Mapping[str, Any], *, issuer: str, audiences: Collection[str], now: float, leeway_seconds: float
) -> Principal:
    """Whom these claims, whose signature is right, stand for.

    Args:
        audiences: the names by which a token may mean us.
        now: seconds of the epoch.

    Raises:
        InvalidToken: of another issuer, for another audience, expired, not yet valid, or not as RFC 9068 says.
    """
    if claims.get("iss") != issuer:
        raise InvalidToken("The token comes from another issuer")
    audience = _words(claims.get("aud"), split=False)
    if audience.isdisjoint(audiences):
        raise InvalidToken("The token is meant for somebody else")
    expires_at = _moment(claims, "exp")
    if now >= expires_at + leeway_seconds:
        raise InvalidToken("The token has expired")
    if max(_moment(claims, "iat"), _moment(claims, "nbf", default=0.0)) > now + leeway_seconds:
        raise InvalidToken("The token is not valid yet")
    return Principal(
        subject=_text(claims, "sub"),
        client_id=_text(claims, "client_id"),
        scopes=_words(claims.get("scope", ""), split=True),
        roles=_words(claims.get("roles", []), split=False),
        audience=audience,
        expires_at=expires_at,
        session=_text(claims, "sid") if "sid" in claims else None,
        actor=_actor(claims.get("act")),
    )


def _is_canonical(part: str) -> bool:
    """Whether it is base64url exactly as an encoder writes it: lax decoders take several spellings for one signature."""
    try:
        raw = part.encode("ascii")
        return bool(raw) and urlsafe_b64encode(urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))).rstrip(b"=") == raw
    except (ValueError, binascii.Error):
        return False


def _object(part: str) -> dict[str, Any]:
    try:
        found = orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        raise InvalidToken("The token is malformed") from None
    if not isinstance(found, dict):
        raise InvalidToken("The token is malformed")
    return found


def _moment(claims: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    # Compared, and not converted: an integer of JSON's may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_FURTHEST < value < _FURTHEST:
        raise InvalidToken(f"The token's {name} is no time")
    return float(value)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise InvalidToken(f"The token's {name} is missing")
    return value


def _words(value: Any, *, split: bool) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset(value.split(" ") if split else (value,)) - {""}
    if not split and isinstance(value, list) and all(isinstance(word, str) for word in value):
        return frozenset(value)
    raise InvalidToken("The token's lists are malformed")


def _actor(value: Any) -> str | None:
    """Of a chain of actors (RFC 8693, 4.1) the outermost: who acts now."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidToken("The token's actor is malformed")
    return _text(value, "sub")
