"""The signature algorithms that are signed with and believed, and no others: not ``none``, not HMAC with a public key.

RFC 9864 deprecates the name EdDSA for being a family; with Ed25519 keys alone, as here, it means one thing, and it is
what libraries understand. So joserfc's warning of it is left out.
"""

from __future__ import annotations

from typing import Any, Literal

from joserfc.jwk import ECKey, OKPKey
from joserfc.jws import JWSRegistry

Algorithm = Literal["ES256", "EdDSA"]

OURS: tuple[Algorithm, ...] = ("ES256", "EdDSA")
# What a client may sign its assertions with.
OF_CLIENTS = ("ES256", "EdDSA", "PS256", "RS256")


def _known() -> dict[str, Any]:
    known = JWSRegistry.algorithms
    eddsa = type("EdDSA", (type(known["EdDSA"]),), {"security_warning": None})()
    return {**{name: known[name] for name in OF_CLIENTS}, "EdDSA": eddsa}


class _Pinned(JWSRegistry):
    algorithms = _known()


own = _Pinned(algorithms=OURS)
of_clients = _Pinned(algorithms=OF_CLIENTS)


def generate(algorithm: Algorithm) -> ECKey | OKPKey:
    """A new private key, which knows its use and is called by its thumbprint (RFC 7638)."""
    declared: Any = {"use": "sig", "alg": algorithm}
    if algorithm == "ES256":
        return ECKey.generate_key("P-256", declared, auto_kid=True)
    return OKPKey.generate_key("Ed25519", declared, auto_kid=True)
