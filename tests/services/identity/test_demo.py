"""The demo's accounts and clients."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import update

from app.data import Database
from app.services.identity import catalogue, demo, scopes
from app.services.identity.account_store import AccountStore
from app.services.identity.client_store import ClientStore
from app.services.identity.models import accounts, clients
from app.services.identity.passwords import verify
from tests.services.conftest import Start
from tests.services.identity.parties import ISSUER, SECRETS, Identity, Json, populate

PEOPLE = {"admin": "first password", "user7": "second password"}


async def seed(database: Database, **changes: Json) -> None:
    given = {"accounts": PEOPLE, "clients": SECRETS} | changes
    await demo.seed_with(database, **given, issuer=ISSUER)


async def test_people_get_the_subjects_that_they_have_elsewhere(database: Database) -> None:
    await asyncio.gather(*(seed(database) for _ in range(2)))
    store = AccountStore(database)
    admin, seven = await store.find_by_username("admin"), await store.find_by_subject("7")
    assert admin is not None
    assert seven is not None
    assert (admin.subject, admin.roles) == ("admin", ("admin",))
    assert (seven.username, seven.name, seven.roles) == ("user7", "User7", ())
    async with database.reading() as session:
        hashed = (await session.execute(accounts.select().where(accounts.c.id == seven.id))).one().password_hash
    assert await verify("second password", hashed)
    assert not await verify("first password", hashed)


async def test_seeding_again_changes_secrets_and_little_else(database: Database) -> None:
    await seed(database, accounts={})
    async with database.session() as session:
        await session.execute(update(clients).where(clients.c.client_id == "orders").values(name="Ours"))
        await session.execute(update(clients).where(clients.c.client_id == "users").values(demo=False))
    await seed(database, accounts={}, clients={**SECRETS, "orders": "new", "users": "new"})
    store = ClientStore(database)
    orders, users = await store.find("orders"), await store.find("users")
    assert orders is not None
    assert users is not None
    assert (orders.name, orders.check_client_secret("new")) == ("Ours", True)
    assert not users.check_client_secret("new")


async def test_each_demo_client_is_what_it_is_called(database: Database) -> None:
    await seed(database, accounts={})
    store = ClientStore(database)
    found = {name: await store.find(name) for name in ("orders", "demo-client", "demo-web", "demo-device", "mesh-cli")}
    shown = {
        name: (client.is_public, client.trusted, client.audiences) for name, client in found.items() if client
    }  # fmt: skip
    assert shown == {
        "orders": (False, True, ("users", "orders", "inventory")),
        "demo-client": (False, False, ("mesh",)),
        "demo-web": (True, True, ("mesh",)),
        "demo-device": (True, False, ("mesh",)),
        "mesh-cli": (True, True, ("mesh",)),
    }


async def test_in_production_the_demos_clients_do_not_count(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_ENV", "production")
    monkeypatch.setenv("MESH_IDENTITY__KEY_SECRET", "a secret of this test that is long enough")
    monkeypatch.setenv("MESH_AUTH__CLIENT_SECRET", "another secret of this test that is long enough")
    running = await start("identity")
    identity = Identity(running, await populate(running.database))
    form = {"grant_type": "client_credentials", "audience": "inventory"}
    assert await identity.refused(form, client="orders", status=401) == "invalid_client"
    async with running.database.session() as session:
        await session.execute(update(clients).values(demo=False))
    await identity.ask(form, client="orders")


async def test_a_service_that_was_added_later_has_its_scopes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seed(database, accounts={})
    monkeypatch.setattr(catalogue, "of_api", lambda: scopes.of_services(["users", "hello"]))
    await seed(database, accounts={})
    store = ClientStore(database)
    client, web = await store.find("demo-client"), await store.find("demo-web")
    assert client is not None
    assert web is not None
    assert client.scopes == ("users:read", "users:write", "users:admin", "hello:read", "hello:write", "hello:admin")
    assert set(client.scopes) < set(web.scopes)


def test_every_service_but_identity_and_the_gateway_has_scopes() -> None:
    assert {scope.partition(":")[0] for scope in catalogue.of_api()} == {"inventory", "orders", "users"}
