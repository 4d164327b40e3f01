"""Signing keys and when they change: pure decisions, and how a private key is sealed.

    ────────────┬───────── signs ─────────┬── published ──┐
      key 1     │                         │               │
                └─────────────────────────┴───────────────┘ forgotten
                       ┌─ published ──────┬───────── signs ─────────┬── …
      key 2            │     (overlap)    │                         │

Time is cut into turns of equal length, counted from the epoch, so that every process arrives at the same plan by
itself: two that add the next key at once want the same place, and the database has room for one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OctKey, OKPKey

from app.errors import Misconfigured
from app.services.identity.algorithms import Algorithm

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PURPOSE = b"flask-mesh identity: signing keys at rest"
# Not secret: it keeps development and tests on the same path as production.
_DEVELOPMENT_SECRET = "development"  # noqa: S105

PrivateKey = ECKey | OKPKey


@dataclass(frozen=True, slots=True)
class Policy:
    """A key signs for one `turn`; it is published `overlap` before, and `afterlife` after: what it signed lives so long."""

    algorithm: Algorithm = "ES256"
    turn: timedelta = timedelta(days=30)
    overlap: timedelta = timedelta(days=1)
    afterlife: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key. `private` is None where it cannot be read: sealed with another secret than ours."""

    kid: str
    algorithm: Algorithm
    public: dict[str, Any]
    signs_from: datetime
    signs_until: datetime
    published_until: datetime
    private: PrivateKey | None

    def signs(self, now: datetime) -> bool:
        return self.private is not None and self.signs_from <= now < self.signs_until


@dataclass(frozen=True, slots=True)
class Turn:
    """When a key that is to be added signs, and until when it is published."""

    algorithm: Algorithm
    signs_from: datetime
    signs_until: datetime
    published_until: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to change: keys to add, and the ids of keys to forget."""

    add: tuple[Turn, ...] = ()
    forget: tuple[str, ...] = ()


def plan(keys: Sequence[Key], now: datetime, policy: Policy) -> Plan:
    """What has to change so that a key of the policy's algorithm signs now, and the next one is known in time."""
    mine = [key for key in keys if key.algorithm == policy.algorithm]
    add: list[Turn] = []
    for moment in (now, now + min(policy.overlap, policy.turn)):
        covered = any(key.signs(moment) for key in mine) or any(turn.signs_until > moment for turn in add)
        if not covered:
            add.append(_turn(mine, moment, policy))
    return Plan(tuple(add), tuple(key.kid for key in keys if key.published_until <= now))


def signer(keys: Sequence[Key], now: datetime, policy: Policy) -> Key | None:
    """Who signs now: of several the oldest, since verifiers have known it for longest."""
    able = [key for key in keys if key.algorithm == policy.algorithm and key.signs(now)]
    return min(able, key=lambda key: (key.signs_from, key.kid), default=None)


def published(keys: Sequence[Key], now: datetime) -> list[Key]:
    """Whom verifiers should know: who signs, who will, and who did until lately."""
    return sorted((key for key in keys if now < key.published_until), key=lambda key: (key.signs_from, key.kid))


def _turn(mine: Sequence[Key], moment: datetime, policy: Policy) -> Turn:
    start = moment - (moment - _EPOCH) % policy.turn
    end = start + policy.turn
    if any(key.signs_from == start for key in mine):
        # The place is taken by a key that nobody here can read.
        start = moment
    return Turn(policy.algorithm, start, end, end + policy.afterlife)


class Seal:
    """Encrypts private keys for the database: a compact JWE, ``dir`` with A256GCM.

    Args:
        secret: any text; the key is derived from it (HKDF, RFC 5869). None only outside production, where a fixed,
            public secret stands in: there is nothing to protect, and processes must be able to read each other's keys.

    Raises:
        Misconfigured: in production without a secret.
    """

    def __init__(self, secret: str | None, *, production: bool) -> None:
        if secret is None and production:
            raise Misconfigured("MESH_IDENTITY__KEY_SECRET must be set: it encrypts the signing keys")
        derived = HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive((secret or _DEVELOPMENT_SECRET).encode())
        self._key = OctKey.import_key(derived)

    def close(self, key: PrivateKey) -> str:
        text = json.dumps(key.as_dict(private=True))
        return jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, text, self._key)

    def open(self, sealed: str) -> PrivateKey | None:
        """The private key, or None if it was sealed with another secret."""
        try:
            text = jwe.decrypt_compact(sealed, self._key, ["dir", "A256GCM"]).plaintext
        except (JoseError, ValueError):
            return None
        key = JWKRegistry.import_key(json.loads(text or b"{}"))
        return key if isinstance(key, (ECKey, OKPKey)) else None
