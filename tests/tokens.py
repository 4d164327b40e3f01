"""An issuer of the tests' own: its keys lie in a file, its tokens are like identity's, or as wrong as a test wants them."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey

from app.auth.algorithms import registry

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


def bearer(token: str) -> dict[str, str]:
    """The header that carries `token`."""
    return {"Authorization": f"Bearer {token}"}
