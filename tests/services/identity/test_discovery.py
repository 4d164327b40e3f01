"""What the server says of itself, and that it is true."""

from __future__ import annotations

from typing import Any

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oauth2.rfc9207 import AuthorizationServerMetadata as IssuerMetadata
from openapi_spec_validator import validate

from app import settings
from app.services.identity import discovery
from tests.services.conftest import Start
from tests.services.identity.parties import ISSUER, Identity


async def test_both_addresses_give_metadata_that_are_valid(identity: Identity) -> None:
    found = []
    for name in ("oauth-authorization-server", "openid-configuration"):
        answer = await identity.running.client.get(f"/.well-known/{name}")
        assert answer.headers["cache-control"] == "public, max-age=300"
        found.append(answer.json())
    AuthorizationServerMetadata(found[0]).validate(metadata_classes=[IssuerMetadata])
    assert found[0] == found[1] == discovery.document(identity.running.process.settings)
    assert found[0]["issuer"] == ISSUER
    assert "registration_endpoint" not in found[0]


async def test_every_endpoint_that_is_named_is_there(identity: Identity) -> None:
    document: dict[str, Any] = discovery.document(identity.running.process.settings)
    pages = ("authorization_endpoint", "end_session_endpoint")
    for name, url in document.items():
        if (name.endswith("_endpoint") or name == "jwks_uri") and name not in pages:
            path = url.removeprefix(ISSUER)
            statuses = [(await identity.running.client.request(m, path)).status_code for m in ("GET", "POST")]
            assert 404 not in statuses, name
    for grant in document["grant_types_supported"]:
        answer = await identity.post("/oauth/token", {"grant_type": grant})
        assert answer.json()["error"] != "unsupported_grant_type"


async def test_the_keys_may_be_kept_for_a_while(identity: Identity) -> None:
    answer = await identity.running.client.get("/oauth/jwks")
    assert answer.headers["cache-control"] == "public, max-age=300"
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


async def test_the_routes_are_documented(identity: Identity) -> None:
    document = (await identity.running.client.get("/openapi.json")).json()
    validate(document)
    assert {"/oauth/token", "/oauth/jwks", "/.well-known/openid-configuration"} <= set(document["paths"])


async def test_with_edwards_curves_all_is_the_same(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_IDENTITY__ALGORITHM", "EdDSA")
    from tests.services.identity.parties import exchanging, populate

    async with (await start("identity")).as_(None) as running:
        identity = Identity(running, await populate(running.database))
        answer = await identity.login(scope="openid orders:read")
        assert (await identity.claims(answer["id_token"], kind="JWT"))["sub"] == "7"
        await identity.ask(exchanging(answer["access_token"]), client="orders")
        (key,) = (await running.client.get("/oauth/jwks")).json()["keys"]
    assert (key["alg"], key["crv"]) == ("EdDSA", "Ed25519")


def test_registration_is_named_where_it_is_on() -> None:
    on = settings.load(identity={"registration": True})
    assert discovery.document(on)["registration_endpoint"] == f"{ISSUER}/oauth/register"
