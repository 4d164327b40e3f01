"""Refresh tokens: rotation, theft, retries."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app.services.identity.client import digest
from app.services.identity.models import accounts, refresh_tokens
from tests.services.identity.parties import Identity, Json, refreshing


async def used_before(identity: Identity, token: str, seconds: float) -> None:
    """Move the first use of a refresh token back in time."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    async with identity.database.session() as session:
        this = update(refresh_tokens).where(refresh_tokens.c.digest == digest(token))
        await session.execute(this.values(used_at=moment))


async def ends(identity: Identity, *answers: Json) -> bool:
    """Whether none of these tokens counts any more."""
    dead = [not await identity.is_active(answer["access_token"]) for answer in answers]
    dead += [await identity.refused(refreshing(a["refresh_token"])) == "invalid_grant" for a in answers]
    return all(dead)


async def test_a_refresh_token_is_good_for_the_next_one(identity: Identity) -> None:
    first = await identity.login(scope="openid orders:read")
    second = await identity.ask(refreshing(first["refresh_token"]))
    third = await identity.ask(refreshing(second["refresh_token"]))
    assert len({first["refresh_token"], second["refresh_token"], third["refresh_token"]}) == 3
    claims = [await identity.claims(answer["access_token"]) for answer in (first, second, third)]
    assert len({c["jti"] for c in claims}) == 3
    assert len({(c["sid"], c["sub"], c["auth_time"], c["scope"]) for c in claims}) == 1
    again = await identity.claims(third["id_token"], kind="JWT")
    assert "nonce" not in again


async def test_a_refresh_token_that_comes_again_ends_its_family(identity: Identity) -> None:
    first = await identity.login()
    second = await identity.ask(refreshing(first["refresh_token"]))
    await used_before(identity, first["refresh_token"], 11)
    assert await identity.refused(refreshing(first["refresh_token"])) == "invalid_grant"
    assert await ends(identity, first, second)


async def test_a_refresh_that_is_repeated_at_once_is_a_retry(identity: Identity) -> None:
    first = await identity.login()
    second, retried = [await identity.ask(refreshing(first["refresh_token"])) for _ in range(2)]
    assert second["refresh_token"] != retried["refresh_token"]
    for answer in (second, retried):
        await identity.ask(refreshing(answer["refresh_token"]))


async def test_the_grace_counts_from_the_first_use(identity: Identity) -> None:
    first = await identity.login()
    await identity.ask(refreshing(first["refresh_token"]))
    await used_before(identity, first["refresh_token"], 3)
    await identity.ask(refreshing(first["refresh_token"]))
    await used_before(identity, first["refresh_token"], 10.5)
    assert await identity.refused(refreshing(first["refresh_token"])) == "invalid_grant"


async def test_refreshes_at_the_same_time_are_all_served(identity: Identity) -> None:
    first = await identity.login()
    answers = await asyncio.gather(*(identity.ask(refreshing(first["refresh_token"])) for _ in range(5)))
    assert len({answer["refresh_token"] for answer in answers}) == 5
    assert await identity.is_active(answers[0]["access_token"])


async def test_a_refresh_may_narrow_the_scope_and_never_widen_it(identity: Identity) -> None:
    first = await identity.login(scope="orders:read orders:write")
    less = await identity.ask(refreshing(first["refresh_token"], scope="orders:read"))
    assert less["scope"] == "orders:read"
    for scope in ("orders:read users:read", "users:admin", "nonsense"):
        assert await identity.refused(refreshing(less["refresh_token"], scope=scope)) == "invalid_scope"
    # The next refresh token has what the first one had (RFC 6749, 6).
    assert (await identity.ask(refreshing(less["refresh_token"])))["scope"] == "orders:read orders:write"


async def test_who_is_no_admin_any_more_loses_what_only_admins_have(identity: Identity) -> None:
    first = await identity.admin_login("users:read users:admin inventory:write")
    assert first["scope"] == "users:read users:admin inventory:write"
    async with identity.database.session() as session:
        await session.execute(update(accounts).values(roles=""))
    second = await identity.ask(refreshing(first["refresh_token"]))
    assert second["scope"] == "users:read"
    assert (await identity.claims(second["access_token"]))["roles"] == []


async def test_a_refresh_token_is_its_own_clients(identity: Identity) -> None:
    first = await identity.login()
    stolen = refreshing(first["refresh_token"], client_id="demo-device")
    assert await identity.refused(stolen) == "invalid_grant"
    await identity.ask(refreshing(first["refresh_token"]))


async def test_a_refresh_token_expires(identity: Identity) -> None:
    first = await identity.login()
    async with identity.database.session() as session:
        await session.execute(update(refresh_tokens).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert await identity.refused(refreshing(first["refresh_token"])) == "invalid_grant"


async def test_a_refresh_cannot_change_the_audience(identity: Identity) -> None:
    first = await identity.login()
    wrong = refreshing(first["refresh_token"], audience="inventory")
    assert await identity.refused(wrong) == "invalid_target"
    assert await identity.refused(refreshing("nonsense")) == "invalid_grant"


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_to_revoke_any_token_ends_the_family(identity: Identity, kind: str) -> None:
    first = await identity.login()
    second = await identity.ask(refreshing(first["refresh_token"]))
    form = {"client_id": "demo-web", "token": second[kind], "token_type_hint": "nonsense"}
    await identity.ask(form, path="/oauth/revoke")
    assert await ends(identity, first, second)
    # What is over can be ended again, and so can what never was (RFC 7009, 2.2).
    await identity.ask(form, path="/oauth/revoke")
    await identity.ask(form | {"token": "nonsense"}, path="/oauth/revoke")


async def test_only_its_own_client_revokes_a_token(identity: Identity) -> None:
    answer = await identity.login()
    form = {"token": answer["access_token"]}
    assert await identity.refused(form, client="orders", path="/oauth/revoke") == "invalid_grant"
    form = {"client_id": "demo-web"}
    assert await identity.refused(form, path="/oauth/revoke") == "invalid_request"
    own = await identity.ask({"grant_type": "client_credentials"}, client="demo-client")
    form = {"token": own["access_token"]}
    assert await identity.refused(form, client="demo-client", path="/oauth/revoke") == "unsupported_token_type"
    assert await identity.is_active(answer["access_token"])
