"""An identity service with an account and a client, and a browser before it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.services.conftest import Running, Start
from tests.services.identity.browser import Browser, add_account, add_client


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
