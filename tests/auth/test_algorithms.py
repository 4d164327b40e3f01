from __future__ import annotations

import warnings
from typing import Any

import pytest
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from app.auth.algorithms import CURVES, fits, registry

P256, ED = ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")


@pytest.mark.parametrize(("algorithm", "key"), [("ES256", P256), ("EdDSA", ED), ("Ed25519", ED)])
def test_these_sign_and_verify_without_a_warning(algorithm: str, key: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        signed = jws.serialize_compact({"alg": algorithm}, b"x", key, registry=registry)
        assert jws.deserialize_compact(signed, key, registry=registry).payload == b"x"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "PS256", "ES384", "ES512", "ES256K", "Ed448"])
def test_no_other_is_known(algorithm: str) -> None:
    assert algorithm not in CURVES
    for key in (OctKey.generate_key(256), RSAKey.generate_key(2048), P256, ED):
        with pytest.raises(JoseError):
            jws.serialize_compact({"alg": algorithm}, b"x", key, registry=registry)


@pytest.mark.parametrize(
    ("key", "algorithm", "fitting"),
    [
        (P256, "ES256", True),
        (P256, "EdDSA", False),
        (ED, "EdDSA", True),
        (ED, "Ed25519", True),
        (ED, "ES256", False),
        (P256, "none", False),
        (OctKey.generate_key(256), "HS256", False),
        (ECKey.generate_key("P-384"), "ES256", False),
        (ECKey.import_key(P256.as_dict(), {"use": "enc"}), "ES256", False),
        (ECKey.import_key(P256.as_dict(), {"use": "sig", "alg": "ES256"}), "ES256", True),
        (ECKey.import_key(P256.as_dict(), {"alg": "ES384"}), "ES256", False),
        (OKPKey.import_key(ED.as_dict(), {"alg": "EdDSA"}), "Ed25519", True),
    ],
)
def test_a_key_is_for_the_algorithm_of_its_kind(key: Any, algorithm: str, fitting: bool) -> None:
    assert fits(key, algorithm) is fitting
