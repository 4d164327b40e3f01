"""Clients that register themselves: what they may not have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.services.identity.client import digest
from tests.services.conftest import Start
from tests.services.identity.parties import CALLBACK, Identity, Json, add_page, populate, query_of, redemption

APP = {"client_name": "Mine", "redirect_uris": ["http://127.0.0.1/callback"], "scope": "openid orders:read"}


@pytest.fixture
async def registrar(start: Start, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Identity]:
    monkeypatch.setenv("MESH_IDENTITY__REGISTRATION", "true")
    started = await start("identity")
    add_page(started)
    async with started.as_(None) as running:
        yield Identity(running, await populate(running.database))


async def register(identity: Identity, **changes: Any) -> tuple[int, Any]:
    answer = await identity.running.client.post("/oauth/register", json=APP | changes)
    return answer.status_code, answer.json()


async def test_by_default_nobody_registers(identity: Identity) -> None:
    assert (await register(identity))[0] == 404


async def test_a_registered_client_acts_for_who_allows_it(registrar: Identity) -> None:
    status, told = await register(registrar)
    assert (status, told["token_endpoint_auth_method"]) == (201, "client_secret_basic")
    saved = await registrar.clients.find(told["client_id"])
    assert saved is not None
    assert (saved.secret_digest, saved.trusted, saved.audiences) == (digest(told["client_secret"]), False, ("mesh",))
    answer = await registrar.authorize(client_id=saved.client_id)
    form = redemption(query_of(answer.headers["location"])["code"], client_id=None)
    await registrar.ask(form, auth=(saved.client_id, told["client_secret"]))


async def test_a_public_client_gets_no_secret(registrar: Identity) -> None:
    status, told = await register(registrar, token_endpoint_auth_method="none")
    assert status == 201
    assert "client_secret" not in told
    answer = await registrar.authorize(client_id=told["client_id"], redirect_uri=CALLBACK)
    await registrar.ask(redemption(query_of(answer.headers["location"])["code"], client_id=told["client_id"]))


# In two parts: one address may register so many in a while.
DANGEROUS: dict[str, list[Json]] = {
    "what it may do": [
        {"grant_types": ["client_credentials"]},
        {"grant_types": ["urn:ietf:params:oauth:grant-type:token-exchange"]},
        {"grant_types": ["implicit"]},
        {"grant_types": 7},
        {"response_types": ["token"]},
        {"scope": "users:admin"},
        {"scope": "inventory:write"},
        {"scope": "inventory:reserve"},
        {"scope": "nonsense"},
        {"scope": 7},
        {"scope": ["openid"]},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"jwks_uri": "https://a.example/jwks"},
        {"client_name": "x" * 101},
        {"client_name": "a\nb"},
    ],
    "where it leads": [
        {"redirect_uris": []},
        {"redirect_uris": "https://a.example/cb"},
        {"redirect_uris": ["http://a.example/cb"]},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"redirect_uris": ["https://a.example/cb#x"]},
        {"redirect_uris": ["https://user@a.example/cb"]},
        {"redirect_uris": ["https://a.example/c b"]},
        {"redirect_uris": [7]},
        {"redirect_uris": ["https://a.example/cb"] * 11},
    ],
}


@pytest.mark.parametrize("part", DANGEROUS)
async def test_what_nobody_has_looked_at_gets_nothing_dangerous(
    registrar: Identity, subtests: pytest.Subtests, part: str
) -> None:
    for changes in DANGEROUS[part]:
        with subtests.test(**changes):
            status, told = await register(registrar, **changes)
            assert status == 400, told
            assert told["error"] in ("invalid_client_metadata", "invalid_redirect_uri")


async def test_a_registration_is_a_json_object(registrar: Identity) -> None:
    for content in (b"", b"[]", b"{", b"7"):
        answer = await registrar.running.client.post("/oauth/register", content=content)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")


async def test_registrations_are_limited(registrar: Identity) -> None:
    statuses = [(await register(registrar, scope="nonsense"))[0] for _ in range(21)]
    assert statuses == [400] * 20 + [429]
