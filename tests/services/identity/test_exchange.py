"""Token exchange: a service acts for a user, and gets no more than it came with."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from app.services.identity import algorithms, key_store, tokens
from app.services.identity.models import accounts
from tests.services.identity.parties import ACCESS_TOKEN, ISSUER, Identity, Json, exchanging, refreshing

HELD = "orders:read orders:write"


async def forge(identity: Identity, token: str, kind: str = "at+jwt", **changes: Any) -> str:
    """Another token of ours, with other claims."""
    settings = identity.running.process.settings
    key = await key_store.open_ring(identity.database, settings).signer()
    return tokens.sign(await identity.claims(token) | changes, key, kind=kind)


async def test_a_service_gets_a_token_for_another_one_in_the_users_name(identity: Identity) -> None:
    held = (await identity.admin_login(HELD))["access_token"]
    subject = await identity.claims(held)
    answer = await identity.ask(exchanging(held), client="orders")
    assert answer["issued_token_type"] == ACCESS_TOKEN
    assert "refresh_token" not in answer
    claims = await identity.claims(answer["access_token"])
    assert claims["exp"] <= subject["exp"]
    assert claims == {
        "iss": ISSUER, "sub": "admin", "client_id": "orders", "aud": "inventory", "scope": HELD, "roles": ["admin"],
        "sid": subject["sid"], "auth_time": subject["auth_time"], "act": {"sub": "orders"},
        "iat": claims["iat"], "exp": claims["exp"], "jti": claims["jti"],
    }  # fmt: skip


async def test_who_acts_for_who_acts_is_all_told(identity: Identity) -> None:
    held = (await identity.login(scope=HELD))["access_token"]
    first = (await identity.ask(exchanging(held, audience="orders"), client="users"))["access_token"]
    second = await identity.ask(exchanging(first), client="orders")
    assert (await identity.claims(second["access_token"]))["act"] == {"sub": "orders", "act": {"sub": "users"}}


async def test_an_exchange_narrows_and_never_widens(identity: Identity) -> None:
    held = (await identity.login(scope=HELD))["access_token"]
    less = await identity.ask(exchanging(held, scope="orders:read users:read inventory:reserve"), client="orders")
    assert less["scope"] == "orders:read"
    assert await identity.refused(exchanging(held, scope="users:read"), client="orders") == "invalid_scope"
    assert await identity.refused(exchanging(held, scope="nonsense"), client="orders") == "invalid_scope"
    again = exchanging(less["access_token"], scope=HELD)
    assert (await identity.ask(again, client="inventory"))["scope"] == "orders:read"


async def test_an_exchanged_token_dies_with_the_one_it_comes_from(identity: Identity) -> None:
    soon = int(time.time()) + 30
    held = await forge(identity, (await identity.login())["access_token"], exp=soon)
    answer = await identity.ask(exchanging(held), client="orders")
    assert answer["expires_in"] <= 30
    assert (await identity.claims(answer["access_token"]))["exp"] == soon


async def test_roles_that_were_taken_away_do_not_travel(identity: Identity) -> None:
    held = (await identity.admin_login(HELD))["access_token"]
    async with identity.database.session() as session:
        await session.execute(update(accounts).values(roles=""))
    answer = await identity.ask(exchanging(held), client="orders")
    assert (await identity.claims(answer["access_token"]))["roles"] == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"audience": "mesh"}, "invalid_target"),
    ({"audience": "nobody"}, "invalid_target"),
    ({"audience": None}, "invalid_target"),
    ({"subject_token": None}, "invalid_request"),
    ({"subject_token": "nonsense"}, "invalid_request"),
    ({"subject_token_type": None}, "invalid_request"),
    ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
    ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
    ({"actor_token": "x"}, "invalid_request"),
]


async def test_an_exchange_that_is_not_all_right_is_refused(identity: Identity, subtests: pytest.Subtests) -> None:
    held = (await identity.login(scope=HELD))["access_token"]
    for changes, error in WRONG:
        with subtests.test(**changes):
            assert await identity.refused(exchanging(held, **changes), client="orders") == error


async def test_only_a_living_token_of_ours_can_be_exchanged(identity: Identity) -> None:
    login = await identity.login()
    held: str = login["access_token"]
    settings = identity.running.process.settings
    ours = await key_store.open_ring(identity.database, settings).signer()
    stranger = algorithms.generate("ES256")
    foreign = tokens.sign(await identity.claims(held), replace(ours, private=stranger), kind="at+jwt")
    own = await identity.ask({"grant_type": "client_credentials"}, client="demo-client")
    bad = {
        "expired": await forge(identity, held, exp=int(time.time()) - 1),
        "of another issuer": await forge(identity, held, iss="https://another.example"),
        "of another type": await forge(identity, held, kind="JWT"),
        "an ID token": login["id_token"],
        "signed by another key": foreign,
        "of another family": await forge(identity, held, sid="nonsense"),
        "of another person": await forge(identity, held, sub="admin"),
        "for somebody else": await forge(identity, held, aud="inventory"),
        "a client's": own["access_token"],
        "too long": held + "x" * 20_000,
    }
    for what, token in bad.items():
        assert await identity.refused(exchanging(token), client="orders") == "invalid_request", what
    await identity.ask(exchanging(held), client="orders")
    await identity.ask({"client_id": "demo-web", "token": held}, path="/oauth/revoke")
    assert await identity.refused(exchanging(held), client="orders") == "invalid_request"


async def test_only_who_is_registered_for_it_exchanges(identity: Identity) -> None:
    held = (await identity.login())["access_token"]
    assert await identity.refused(exchanging(held), client="demo-client") == "unauthorized_client"
    assert await identity.refused(exchanging(held, client_id="demo-web"), status=401) == "invalid_client"


# Introspection and userinfo: what is told of a token, and to whom


async def introspect(identity: Identity, token: str, client: str = "orders") -> Json:
    return await identity.ask({"token": token}, client=client, path="/oauth/introspect")


async def test_our_services_are_told_what_a_token_of_the_public_api_says(identity: Identity) -> None:
    held = (await identity.login())["access_token"]
    told = await introspect(identity, held)
    assert told == {"active": True, "token_type": "Bearer", **await identity.claims(held)}


async def test_nobody_is_told_of_tokens_that_are_none_of_their_business(identity: Identity) -> None:
    login = await identity.login()
    exchanged = (await identity.ask(exchanging(login["access_token"]), client="orders"))["access_token"]
    nothing = {"active": False}
    assert await introspect(identity, login["access_token"], "demo-client") == nothing
    assert await introspect(identity, exchanged, "users") == nothing
    assert await introspect(identity, login["refresh_token"]) == nothing
    assert await introspect(identity, "nonsense") == nothing
    assert (await introspect(identity, exchanged, "inventory"))["active"]
    assert (await introspect(identity, exchanged, "orders"))["active"]
    form = {"token": exchanged, "client_id": "demo-web"}
    assert await identity.refused(form, path="/oauth/introspect", status=401) == "invalid_client"
    assert await identity.refused({}, client="orders", path="/oauth/introspect") == "invalid_request"


async def test_userinfo_tells_who_the_user_is(identity: Identity) -> None:
    client = identity.running.client
    for scope, told in (
        ("openid", {"sub": "7"}),
        ("openid profile", {"sub": "7", "name": "User7", "preferred_username": "user7"}),
        ("openid email", {"sub": "7", "email": "user7@example.com"}),
    ):
        bearer = {"authorization": f"Bearer {(await identity.login(scope=scope))['access_token']}"}
        for method in ("GET", "POST"):
            answer = await client.request(method, "/oauth/userinfo", headers=bearer)
            assert (answer.status_code, answer.json()) == (200, told)


async def test_userinfo_asks_for_a_token_in_the_header_that_is_meant_for_it(identity: Identity) -> None:
    client = identity.running.client
    login = await identity.login(scope="openid orders:read")
    held = login["access_token"]
    plain = (await identity.login(scope="orders:read"))["access_token"]
    exchanged = (await identity.ask(exchanging(held), client="orders"))["access_token"]
    for token, status in ((plain, 403), (exchanged, 401), ("nonsense", 401), (login["id_token"], 401)):
        answer = await client.get("/oauth/userinfo", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status
        assert "error=" in answer.headers["www-authenticate"]
    elsewhere: list[Json] = [{"params": {"access_token": held}}, {"data": {"access_token": held}}]
    for options in elsewhere:
        answer = await client.request("POST", "/oauth/userinfo", **options)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="identity"')
    await identity.ask(refreshing(login["refresh_token"]))
    async with identity.database.session() as session:
        await session.execute(update(accounts).values(disabled=True))
    answer = await client.get("/oauth/userinfo", headers={"authorization": f"Bearer {held}"})
    assert answer.status_code == 401


def test_a_token_has_one_audience_or_several() -> None:
    assert tokens.audiences({"aud": "mesh"}) == ("mesh",)
    assert tokens.audiences({"aud": ["mesh", "orders"]}) == ("mesh", "orders")
