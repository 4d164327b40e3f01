"""Devices: they ask again and again, until somebody has said yes on another machine."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from app.services.identity import device
from app.services.identity.accounts import Session
from app.services.identity.models import device_codes
from tests.services.identity.parties import ISSUER, LOGGED_IN_AT, Identity, Json, polling, refreshing

WISH = {"client_id": "demo-device", "scope": "openid orders:read users:admin"}


async def begin(identity: Identity) -> Json:
    return await identity.ask(WISH, path="/oauth/device")


async def change(identity: Identity, **values: Any) -> None:
    async with identity.database.session() as session:
        await session.execute(update(device_codes).values(values))


async def wait(identity: Identity, seconds: float) -> None:
    """As if that much time had passed since the last poll."""
    await change(identity, polled_at=datetime.now(UTC) - timedelta(seconds=seconds))


async def decide(identity: Identity, user_code: str, *, approved: bool) -> bool:
    account = identity.people["user7"]
    session = Session("5" * 64, account, LOGGED_IN_AT, datetime.now(UTC) + timedelta(hours=1))
    with identity.running.process.flask.app_context():
        return await device.decide(user_code, session, approved)


async def test_a_device_gets_its_tokens_once_somebody_has_said_yes(identity: Identity) -> None:
    begun = await begin(identity)
    assert begun["verification_uri"] == f"{ISSUER}/account/device"
    assert begun["verification_uri_complete"] == f"{ISSUER}/account/device?user_code={begun['user_code']}"
    assert (begun["expires_in"], begun["interval"]) == (600, 5)
    assert await identity.refused(polling(begun["device_code"])) == "authorization_pending"
    with identity.running.process.flask.app_context():
        pending = await device.lookup(begun["user_code"].lower())
    assert pending is not None
    assert (pending.client.client_id, pending.scopes) == ("demo-device", ("openid", "orders:read", "users:admin"))
    assert await decide(identity, begun["user_code"], approved=True)
    assert not await decide(identity, begun["user_code"], approved=False)
    await wait(identity, 6)
    answer = await identity.ask(polling(begun["device_code"]))
    assert answer["scope"] == "openid orders:read"
    claims = await identity.claims(answer["access_token"])
    assert (claims["sub"], claims["client_id"], claims["auth_time"]) == ("7", "demo-device", LOGGED_IN_AT.timestamp())
    assert (await identity.claims(answer["id_token"], kind="JWT"))["sid"] == claims["sid"]
    await identity.ask(refreshing(answer["refresh_token"], client_id="demo-device"))
    assert await identity.refused(polling(begun["device_code"])) == "invalid_grant"


async def test_a_device_that_asks_too_often_has_to_wait_for_longer(identity: Identity) -> None:
    begun = await begin(identity)
    assert await identity.refused(polling(begun["device_code"])) == "authorization_pending"
    assert await identity.refused(polling(begun["device_code"])) == "slow_down"
    await wait(identity, 6)
    assert await identity.refused(polling(begun["device_code"])) == "slow_down"
    await wait(identity, 16)
    assert await identity.refused(polling(begun["device_code"])) == "authorization_pending"


async def test_a_device_hears_of_a_no(identity: Identity) -> None:
    begun = await begin(identity)
    assert await decide(identity, begun["user_code"], approved=False)
    assert await identity.refused(polling(begun["device_code"])) == "access_denied"


async def test_a_device_code_expires(identity: Identity) -> None:
    begun = await begin(identity)
    await change(identity, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert await identity.refused(polling(begun["device_code"])) == "expired_token"
    assert not await decide(identity, begun["user_code"], approved=True)


async def test_an_approved_device_code_is_used_once(identity: Identity) -> None:
    begun = await begin(identity)
    await decide(identity, begun["user_code"], approved=True)
    answers = await asyncio.gather(
        *(identity.post("/oauth/token", polling(begun["device_code"])) for _ in range(5))
    )  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]


async def test_a_device_code_is_its_own_clients(identity: Identity) -> None:
    begun = await begin(identity)
    assert await identity.refused(polling(begun["device_code"], client_id="mesh-cli")) == "invalid_grant"
    assert await identity.refused(polling("nonsense")) == "invalid_grant"
    assert await identity.refused(polling("")) == "invalid_request"
    assert await identity.refused(polling(begun["device_code"], audience="inventory")) == "invalid_target"


async def test_who_may_not_begin_is_told_so(identity: Identity) -> None:
    path = "/oauth/device"
    assert await identity.refused({"client_id": "demo-web"}, path=path) == "unauthorized_client"
    assert await identity.refused({}, path=path, status=401) == "invalid_client"
    assert await identity.refused(WISH | {"scope": "nonsense"}, path=path) == "invalid_scope"
    assert await identity.refused(WISH | {"scope": "inventory:reserve"}, path=path) == "invalid_scope"
    assert await identity.refused(WISH | {"audience": "inventory"}, path=path) == "invalid_target"
