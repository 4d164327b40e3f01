"""Authorization code, PKCE, OpenID Connect: at the token endpoint."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from app.services.identity.client import digest
from app.services.identity.models import accounts
from app.services.identity.tokens import half_hash
from tests.services.identity.parties import (
    ISSUER,
    LOGGED_IN_AT,
    SECRETS,
    Identity,
    redemption,
    refreshing,
)


async def test_a_code_is_good_for_tokens_that_say_for_whom_they_are(identity: Identity) -> None:
    answer = await identity.login(scope="openid profile orders:read")
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 600
    assert answer["scope"] == "openid profile orders:read"
    claims = await identity.claims(answer["access_token"])
    family = await identity.tokens.find_family(claims["sid"])
    assert family is not None
    assert claims == {
        "iss": ISSUER, "sub": "7", "aud": "mesh", "client_id": "demo-web", "scope": "openid profile orders:read",
        "roles": [], "sid": family.sid, "auth_time": int(LOGGED_IN_AT.timestamp()),
        "jti": claims["jti"], "iat": claims["iat"], "exp": claims["iat"] + 600,
    }  # fmt: skip


async def test_an_id_token_comes_along_with_the_scope_openid(identity: Identity) -> None:
    answer = await identity.login(scope="openid profile email")
    claims = await identity.claims(answer["id_token"], kind="JWT")
    assert claims["nonce"] == "n-1"
    assert claims["aud"] == "demo-web"
    assert claims["auth_time"] == int(LOGGED_IN_AT.timestamp())
    assert claims["at_hash"] == half_hash(answer["access_token"], "ES256")
    assert claims["sid"] == (await identity.claims(answer["access_token"]))["sid"]
    assert (claims["sub"], claims["name"], claims["email"]) == ("7", "User7", "user7@example.com")
    assert "id_token" not in await identity.login(scope="orders:read")


async def test_the_role_admin_is_in_the_token_of_who_has_it(identity: Identity) -> None:
    answer = await identity.admin_login("users:admin")
    claims = await identity.claims(answer["access_token"])
    assert (claims["roles"], claims["scope"]) == (["admin"], "users:admin")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"code_verifier": "b" * 43}, "invalid_grant"),
    ({"code_verifier": None}, "invalid_request"),
    ({"code_verifier": "short"}, "invalid_request"),
    ({"redirect_uri": "http://127.0.0.1:54322/callback"}, "invalid_grant"),
    ({"redirect_uri": None}, "invalid_grant"),
    ({"code": None}, "invalid_request"),
    ({"code": "another"}, "invalid_grant"),
    ({"code": "\0"}, "invalid_request"),
    ({"audience": "inventory"}, "invalid_target"),
    ({"grant_type": "password", "username": "user7", "password": "x"}, "unsupported_grant_type"),
    ({"grant_type": "implicit"}, "unsupported_grant_type"),
    ({"grant_type": '"\u00fc"'}, "unsupported_grant_type"),
    ({"grant_type": None}, "invalid_request"),
    ({"client_id": "mesh-cli"}, "unauthorized_client"),
]


async def test_a_redemption_that_is_not_all_right_is_refused(identity: Identity, subtests: pytest.Subtests) -> None:
    for changes, error in WRONG:
        with subtests.test(**changes):
            code = await identity.code()
            assert await identity.refused(redemption(code, **changes)) == error
            # What was tried in vain has used nothing up.
            await identity.ask(redemption(code))


async def test_a_code_that_comes_again_ends_what_came_of_it(identity: Identity) -> None:
    code = await identity.code()
    answer = await identity.ask(redemption(code))
    assert await identity.is_active(answer["access_token"])
    assert await identity.refused(redemption(code)) == "invalid_grant"
    assert not await identity.is_active(answer["access_token"])
    assert await identity.refused(refreshing(answer["refresh_token"])) == "invalid_grant"


async def test_of_many_who_come_with_one_code_at_once_at_most_one_is_served(identity: Identity) -> None:
    code = await identity.code()
    answers = await asyncio.gather(*(identity.post("/oauth/token", redemption(code)) for _ in range(5)))
    served = [answer for answer in answers if answer.status_code == 200]
    assert len(served) == 1
    assert {answer.json()["error"] for answer in answers if answer.status_code != 200} == {"invalid_grant"}
    assert not await identity.is_active(served[0].json()["access_token"])


async def test_a_code_does_not_outlive_its_minute(identity: Identity) -> None:
    code = await identity.code(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert await identity.refused(redemption(code)) == "invalid_grant"


async def test_a_code_is_its_own_clients(identity: Identity) -> None:
    code = await identity.code(client_id="another-web")
    assert await identity.refused(redemption(code)) == "invalid_grant"
    found = await identity.tokens.find_code(digest(code))
    assert found is not None
    assert found.used_at is None


async def test_an_account_that_was_disabled_gets_no_tokens(identity: Identity) -> None:
    code, answer = await identity.code(), await identity.login()
    async with identity.database.session() as session:
        await session.execute(update(accounts).values(disabled=True))
    assert await identity.refused(redemption(code)) == "invalid_grant"
    assert await identity.refused(refreshing(answer["refresh_token"])) == "invalid_grant"


@pytest.mark.parametrize("name", ["code", "code_verifier", "client_id", "grant_type", "client_secret", "refresh_token"])
async def test_nothing_of_a_request_may_stand_in_the_query(identity: Identity, name: str) -> None:
    code = await identity.code()
    form = redemption(code)
    value = form.pop(name, "x")
    assert await identity.refused(form, params={name: value}) == "invalid_request"
    assert (await identity.running.client.get("/oauth/token", params=redemption(code))).status_code == 405


async def test_what_the_query_says_besides_is_ignored(identity: Identity) -> None:
    await identity.ask(redemption(await identity.code()), params={"utm_source": "x"})


async def test_a_parameter_comes_once(identity: Identity) -> None:
    form = redemption(await identity.code()) | {"client_id": ["demo-web", "demo-web"]}
    assert await identity.refused(form) == "invalid_request"


async def test_a_confidential_client_needs_its_secret_and_its_verifier(identity: Identity) -> None:
    await identity.database.transact(_make_confidential)
    code = await identity.code(client_id="demo-client")
    form = redemption(code, client_id=None)
    assert await identity.refused(redemption(code, client_id="demo-client"), status=401) == "invalid_client"
    without = redemption(code, client_id=None, code_verifier=None)
    assert await identity.refused(without, client="demo-client") == "invalid_request"
    await identity.ask(form, client="demo-client")


async def test_a_public_client_that_claims_to_have_a_secret_is_none(identity: Identity) -> None:
    code = await identity.code()
    assert await identity.refused(redemption(code), status=401, auth=("demo-web", "x")) == "invalid_client"
    bearer = {"authorization": "Bearer x"}
    assert await identity.refused(redemption(code), status=401, headers=bearer) == "invalid_client"
    assert await identity.refused(redemption(code, client_secret="x"), status=401) == "invalid_client"


async def test_no_log_shows_a_token(identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await identity.login()
    again = await identity.ask(refreshing(answer["refresh_token"]))
    for secret in (answer["access_token"], answer["refresh_token"], again["access_token"], again["refresh_token"]):
        assert secret not in caplog.text


async def test_a_client_proves_in_one_way_who_it_is(identity: Identity) -> None:
    form = {"grant_type": "client_credentials", "client_secret": SECRETS["demo-client"]}
    assert await identity.refused(form, client="demo-client") == "invalid_request"
    form = {"grant_type": "client_credentials", "client_id": "orders"}
    assert await identity.refused(form, client="demo-client") == "invalid_request"


async def _make_confidential(session: Any) -> None:
    from app.services.identity.models import clients

    values = {"grant_types": "authorization_code", "redirect_uris": "http://127.0.0.1/callback"}
    await session.execute(update(clients).where(clients.c.client_id == "demo-client").values(values))
