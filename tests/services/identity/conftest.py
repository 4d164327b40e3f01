"""An identity service: with an account, a client and a browser before it; or with the demo's accounts and clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.data import Database
from tests.services.conftest import Migrate, Running, Start
from tests.services.identity.browser import Browser, add_account, add_client
from tests.services.identity.parties import Identity, add_page, populate


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    """Identity, with the account ada and the client shop; asked by a stranger."""
    started = await start("identity")
    await add_account(started.database, name="Ada Lovelace", email="ada@example.com", roles=["admin"], subject="7")
    await add_client(started.database)
    async with started.as_(None) as running:
        yield running


@pytest.fixture
async def browser(running: Running) -> AsyncIterator[Browser]:
    browser = Browser(running)
    yield browser
    await browser.client.aclose()


@pytest.fixture
async def identity(start: Start) -> AsyncIterator[Identity]:
    """Identity with the demo's clients, and a page that needs no login."""
    started = await start("identity")
    add_page(started)
    async with started.as_(None) as running:
        yield Identity(running, await populate(running.database))


@pytest.fixture
async def database(migrated: Migrate) -> Database:
    return await migrated("identity")
