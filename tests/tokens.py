"""An issuer of the tests' own: its keys lie in a file, its tokens are like identity's, or as wrong as a test wants them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey

from app import settings
from app.auth.algorithms import registry
from app.auth.keyring import Keyring
from app.auth.revocations import Revocations
from app.auth.verifier import Verifier
from app.settings import AuthSettings

ISSUER = "http://127.0.0.1:8000"
AUDIENCE = "mesh"
EVERYTHING = (
    "users:read users:write users:admin orders:read orders:write orders:admin "
    "inventory:read inventory:write inventory:reserve"
)


class TestIssuer:
    """Signs tokens; `jwks_file` is what ``settings.auth.jwks_file`` wants to know."""

    __test__ = False

    def __init__(self, folder: Path, *, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.key = ECKey.generate_key("P-256") if algorithm == "ES256" else OKPKey.generate_key("Ed25519")
        self.kid = self.key.thumbprint()
        self.jwks_file = folder / f"jwks-{self.kid[:8]}.json"
        self.jwks_file.write_text(json.dumps(self.jwks))

    @property
    def jwks(self) -> dict[str, Any]:
        public = self.key.as_dict(private=False)
        return {"keys": [{**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}]}

    def user(self, subject: str | int, scope: str = EVERYTHING, *, roles: tuple[str, ...] = (), **claims: Any) -> str:
        """The token of a user who came by some client. Admin scopes count as they stand: narrow them with `scope`."""
        return self.sign(
            {"sub": str(subject), "client_id": "demo-web", "scope": scope, "roles": list(roles), "sid": "family-1"}
            | claims
        )

    def client(self, client_id: str, scope: str = EVERYTHING, **claims: Any) -> str:
        """The token of a program that speaks for itself."""
        return self.sign({"sub": client_id, "client_id": client_id, "scope": scope} | claims)

    def sign(self, claims: dict[str, Any], *, header: dict[str, Any] | None = None) -> str:
        """A token with `claims` on top of those that every token has; a claim that is None is left out."""
        now = int(time.time())
        common = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 600,
            "jti": uuid.uuid4().hex,
        }
        given = {name: value for name, value in (common | claims).items() if value is not None}
        head = {"typ": "at+jwt", "alg": self.algorithm, "kid": self.kid} | (header or {})
        return jwt.encode(head, given, self.key, registry=registry)


class TestCredentials:
    """The tokens of one service for its peers, from the tests' own issuer: what `app.auth.outbound` has from identity.

    Args:
        client_id: the service that calls.
    """

    __test__ = False

    def __init__(self, issuer: TestIssuer, client_id: str) -> None:
        self._issuer, self._client_id = issuer, client_id
        self.refusals: list[str] = []

    def wanted(self, service: str) -> bool:
        return service != "identity"

    def at_hand(self, service: str, *, as_user: bool) -> str | None:
        return self._issuer.client(self._client_id, aud=service)

    async def fetch(self, service: str, *, as_user: bool) -> str:
        raise AssertionError("there is always one at hand")

    def refused(self, service: str, token: str) -> None:
        self.refusals.append(service)


def verifier(
    issuer: TestIssuer,
    *,
    audiences: tuple[str, ...] = (AUDIENCE, "things"),
    clock: Callable[[], float] = time.time,
    revocations: Revocations | None = None,
    **changes: Any,
) -> Verifier:
    """As in a process that has the keys of `issuer`; `changes` are of ``[auth]``."""
    config: AuthSettings = settings.load(auth=changes).auth

    async def keys() -> bytes:
        return issuer.jwks_file.read_bytes()

    revocations = Revocations() if revocations is None else revocations
    keyring = Keyring(keys, fresh_seconds=config.keys_seconds, retry_seconds=config.keys_retry_seconds)
    return Verifier(config, audiences=audiences, keyring=keyring, revocations=revocations, clock=clock)


def guard(issuer: TestIssuer) -> Any:
    """What an application without a process of its own asks of `app.auth.assembly.Auth`."""
    return SimpleNamespace(verifier=verifier(issuer))


def bearer(token: str) -> dict[str, str]:
    """The header that carries `token`."""
    return {"Authorization": f"Bearer {token}"}
