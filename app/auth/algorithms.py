"""The signature algorithms that are believed, and no others: not ``none``, not HMAC with a public key for its secret.

RFC 9864 deprecates the name EdDSA for being a family; it is still what most libraries write, so it is accepted with
Ed25519 keys, and means that.
"""

from __future__ import annotations

from typing import Any

from joserfc.jwk import ECKey, Key, OKPKey
from joserfc.jws import JWSRegistry

CURVES = {"ES256": "P-256", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}


def pinned(*names: str) -> JWSRegistry:
    """joserfc's registry with the algorithms `names` and no others."""
    known: dict[str, Any] = {name: JWSRegistry.algorithms[name] for name in names}
    if "EdDSA" in known:
        known["EdDSA"] = type("EdDSA", (type(known["EdDSA"]),), {"security_warning": None})()
    return type("PinnedRegistry", (JWSRegistry,), {"algorithms": known})(algorithms=names)  # type: ignore[no-any-return]


registry = pinned(*CURVES)


def fits(key: Key, algorithm: str) -> bool:
    """Whether `key` is of the kind that `algorithm` signs with, and is not declared to be for another use."""
    curve = CURVES.get(algorithm)
    if curve is None or not isinstance(key, (ECKey, OKPKey)) or key.curve_name != curve:
        return False
    declared = key.get("alg")
    same = declared is None or CURVES.get(str(declared)) == curve
    return same and key.get("use") in (None, "sig")
