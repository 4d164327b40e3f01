"""What tokens are signed with here, and what clients may sign their assertions with."""

from __future__ import annotations

from typing import Any, Literal

from joserfc.jwk import ECKey, OKPKey

from app.auth.algorithms import pinned

Algorithm = Literal["ES256", "EdDSA"]

OURS: tuple[Algorithm, ...] = ("ES256", "EdDSA")
# What a client may sign its assertions with.
OF_CLIENTS = ("ES256", "EdDSA", "PS256", "RS256")


own = pinned(*OURS)
of_clients = pinned(*OF_CLIENTS)


def generate(algorithm: Algorithm) -> ECKey | OKPKey:
    """A new private key, which knows its use and is called by its thumbprint (RFC 7638)."""
    declared: Any = {"use": "sig", "alg": algorithm}
    if algorithm == "ES256":
        return ECKey.generate_key("P-256", declared, auto_kid=True)
    return OKPKey.generate_key("Ed25519", declared, auto_kid=True)
