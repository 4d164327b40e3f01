"""Tokens that are nearly good: of bytes, segments, JSON and signatures changed at random."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from app.auth.algorithms import registry

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**400, "", "none", "HS256", "admin", "mesh", [], {}, ["mesh"], [[]], "../../etc/passwd", "\0",
)  # fmt: skip
_NAMES = (
    "alg",
    "kid",
    "typ",
    "jwk",
    "jku",
    "crit",
    "b64",
    "x5c",
    "sub",
    "iss",
    "aud",
    "exp",
    "iat",
    "nbf",
    "scope",
    "roles",
)

Mutation = Callable[[str, random.Random, ECKey], str]


def mutant(token: str, rng: random.Random, foreign: ECKey) -> str:
    """`token`, changed by one to three of the mutations; never the token itself.

    Args:
        foreign: a key that nobody believes.
    """
    changed = token
    while changed == token:
        for mutation in rng.choices(_MUTATIONS, k=rng.randint(1, 3)):
            changed = mutation(changed, rng, foreign)
    return changed


def _letter(token: str, rng: random.Random, _: ECKey) -> str:
    at = rng.randrange(len(token) + 1)
    return token[:at] + rng.choice(_LETTERS + ".=+/ \t\u00e9\0") + token[at + rng.randint(0, 1) :]


def _cut(token: str, rng: random.Random, _: ECKey) -> str:
    return token[: rng.randrange(len(token) + 1)]


def _twice(token: str, rng: random.Random, _: ECKey) -> str:
    return token + rng.choice(("", ".")) + token[rng.randrange(len(token) + 1) :]


def _shuffled(token: str, rng: random.Random, _: ECKey) -> str:
    parts = token.split(".")
    rng.shuffle(parts)
    return ".".join(parts)


def _without(token: str, rng: random.Random, _: ECKey) -> str:
    parts = token.split(".")
    parts[rng.randrange(len(parts))] = ""
    return ".".join(parts)


def _bit(token: str, rng: random.Random, _: ECKey) -> str:
    parts = token.split(".")
    at = rng.randrange(len(parts))
    raw = bytearray(_bytes(parts[at]))
    if raw:
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    parts[at] = _text(bytes(raw))
    return ".".join(parts)


def _json(token: str, rng: random.Random, _: ECKey) -> str:
    parts = token.split(".")
    at = rng.randrange(min(2, len(parts)))
    value = _object(parts[at])
    value[rng.choice(_NAMES)] = rng.choice(_VALUES)
    parts[at] = _text(json.dumps(value).encode())
    return ".".join(parts)


def _deep(token: str, rng: random.Random, _: ECKey) -> str:
    depth = rng.randrange(1, 2000)
    parts = token.split(".")
    raw = json.dumps(_object(parts[0]))[:-1] + f', "x": {"[" * depth}{"]" * depth}}}'
    return ".".join([_text(raw.encode()), *parts[1:]])


def _forged(token: str, rng: random.Random, foreign: ECKey) -> str:
    """Signed well, and by nobody whom we know."""
    header, claims = (_object(part) for part in [*token.split("."), "", ""][:2])
    head = {"typ": "at+jwt", "alg": "ES256", "kid": header.get("kid", "k")}
    if not isinstance(head["kid"], str):
        head["kid"] = "k"
    return jwt.encode(head, claims | {"roles": ["admin"]}, foreign, registry=registry)


_MUTATIONS: tuple[Mutation, ...] = (
    _letter, _letter, _cut, _twice, _shuffled, _without, _bit, _bit, _json, _json, _deep, _forged,
)  # fmt: skip


def _bytes(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return b""


def _object(part: str) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(part))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
