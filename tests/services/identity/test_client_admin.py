"""Clients, as an administrator registers them and gives them other secrets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.data import Database
from app.errors import Conflict, InvalidInput, Misconfigured, NotFound
from app.services.identity import client_admin, demo
from app.services.identity.account_store import AccountStore
from app.services.identity.client import Client
from app.services.identity.client_admin import Issued
from app.services.identity.client_store import ClientStore

NOW = timedelta(0)
MINUTE = timedelta(minutes=1)


async def add(database: Database, client_id: str = "shop", **given: Any) -> Issued:
    return await client_admin.add_client(database, client_id, **{"audiences": ["mesh"], **given})


async def found(database: Database, client_id: str = "shop") -> Client:
    client = await ClientStore(database).find(client_id)
    assert client is not None
    return client


async def seeded(database: Database) -> None:
    await demo.seed_with(database, accounts={}, clients={"orders": "of orders"}, issuer="http://127.0.0.1:8000")


async def test_what_was_asked_for_is_registered_and_its_secret_counts(database: Database) -> None:
    issued = await add(database, scope=["users:read", "orders:read", "users:read"], name="The shop", trusted=True)
    client = await found(database)
    assert issued.secret is not None
    assert client.accepts(issued.secret, datetime.now(UTC))
    assert (client.name, client.scopes, client.audiences) == ("The shop", ("users:read", "orders:read"), ("mesh",))
    assert client.grant_types == ("client_credentials",)
    assert client.trusted
    assert not client.demo
    assert issued.secret not in repr(issued)


async def test_a_public_client_has_no_secret(database: Database) -> None:
    issued = await add(database, public=True, redirect_uris=["https://shop.example/cb"])
    assert issued.secret is None
    client = await found(database)
    assert client.is_public
    assert client.grant_types == ("authorization_code", "refresh_token")


async def test_grants_have_short_names_and_whole_ones(database: Database) -> None:
    whole = "urn:ietf:params:oauth:grant-type:token-exchange"
    await add(database, grants=["device_code", whole, "token_exchange"])
    assert (await found(database)).grant_types == ("urn:ietf:params:oauth:grant-type:device_code", whole)


async def test_a_second_one_of_the_same_id_is_refused_and_the_first_stays(database: Database) -> None:
    first = await add(database)
    with pytest.raises(Conflict, match="There is a client shop already"):
        await add(database, scope=["users:read"])
    assert first.secret is not None
    assert (await found(database)).accepts(first.secret, datetime.now(UTC))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"client_id": ""}, "A client's id"),
        ({"client_id": "a b"}, "A client's id"),
        ({"client_id": "-rf"}, "A client's id"),
        ({"client_id": "a" * 65}, "A client's id"),
        ({"client_id": "a\n"}, "A client's id"),
        ({"name": ""}, "A client's name"),
        ({"name": "a\x1b[2J"}, "A client's name"),
        ({"scope": ['a"b']}, "is no scope"),
        ({"scope": [f"scope:{n:090}" for n in range(12)]}, "too many scopes"),
        ({"audiences": []}, "needs an audience"),
        ({"audiences": ["a b"]}, "is no audience"),
        ({"grants": ["password"]}, "No grant 'password'; there are: authorization_code"),
        ({"grants": ["authorization_code"]}, "needs a redirect URI"),
        ({"redirect_uris": ["https://shop.example/cb"]}, "needs a redirect URI, and nothing else does"),
        ({"public": True, "grants": ["client_credentials"]}, "A public client has no secret"),
        ({"public": True, "redirect_uris": ["http://shop.example/cb"]}, "a redirect URI is https"),
        ({"public": True, "redirect_uris": ["javascript:alert(1)"]}, "a redirect URI is https"),
        ({"public": True, "redirect_uris": ["https://shop.example/#x"]}, "a redirect URI is https"),
    ],
)
async def test_what_makes_no_sense_is_not_registered(database: Database, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        await add(database, **given)
    assert await ClientStore(database).every() == []


async def test_the_old_secret_counts_for_the_overlap(database: Database) -> None:
    first = await add(database)
    second = await client_admin.rotate_secret(database, "shop", MINUTE)
    client, now = await found(database), datetime.now(UTC)
    assert first.secret is not None
    assert second.secret is not None
    assert first.secret != second.secret
    assert client.accepts(second.secret, now)
    assert client.accepts(first.secret, now)
    assert not client.accepts(first.secret, now + MINUTE)
    assert second.old_until is not None
    assert now < second.old_until <= now + MINUTE


async def test_without_an_overlap_the_old_one_is_over_at_once(database: Database) -> None:
    first = await add(database)
    await client_admin.rotate_secret(database, "shop", NOW)
    assert first.secret is not None
    assert not (await found(database)).accepts(first.secret, datetime.now(UTC))


async def test_a_client_that_leaves_the_demo_leaves_its_secret_behind(database: Database) -> None:
    await seeded(database)
    await client_admin.rotate_secret(database, "orders", MINUTE)
    client = await found(database, "orders")
    assert not client.demo
    assert not client.accepts("of orders", datetime.now(UTC))
    # The next start of the demo does not take it back.
    await seeded(database)
    assert not (await found(database, "orders")).accepts("of orders", datetime.now(UTC))


async def test_a_client_that_stays_in_the_demo_has_its_overlap(database: Database) -> None:
    await seeded(database)
    await client_admin.rotate_secret(database, "orders", MINUTE, in_demo=True)
    client = await found(database, "orders")
    assert client.demo
    assert client.accepts("of orders", datetime.now(UTC))


async def test_what_has_no_secret_or_is_not_there_gets_none(database: Database) -> None:
    await add(database, public=True, redirect_uris=["https://shop.example/cb"])
    with pytest.raises(InvalidInput, match="has no secret"):
        await client_admin.rotate_secret(database, "shop", NOW)
    for nobody in ("nobody", "a\0b", ""):
        with pytest.raises(NotFound, match="There is no client"):
            await client_admin.rotate_secret(database, nobody, NOW)
    for overlap in (-MINUTE, timedelta(days=91)):
        with pytest.raises(InvalidInput, match="The overlap"):
            await client_admin.rotate_secret(database, "shop", overlap)


async def test_every_change_is_in_the_audit_log_without_a_secret(database: Database) -> None:
    first = await add(database, scope=["users:read"])
    second = await client_admin.rotate_secret(database, "shop", MINUTE)
    entries = await AccountStore(database).events()
    assert [(entry.event, entry.client_id) for entry in entries] == [
        ("secret_rotated", "shop"),
        ("client_created", "shop"),
    ]
    assert not any(str(issued.secret) in str(entries) for issued in (first, second))


async def test_production_refuses_the_demos_clients_by_name(database: Database) -> None:
    await add(database)
    await client_admin.refuse_demo(database)
    await seeded(database)
    with pytest.raises(Misconfigured, match=r"clients of the demo \(demo-device, demo-web, mesh-cli, orders\)"):
        await client_admin.refuse_demo(database)
