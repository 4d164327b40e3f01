"""Accounts, as an administrator ends them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.data import Database
from app.errors import NotFound
from app.services.identity import admin
from app.services.identity.account_store import AccountStore
from app.services.identity.authorization import Family
from app.services.identity.models import families
from tests.services.identity.browser import add_account

HOUR = timedelta(hours=1)


async def found(database: Database, account_id: int, sid: str) -> None:
    now = datetime.now(UTC)
    family = Family(sid, "shop", account_id, None, "orders:read", "mesh", now, now, now + HOUR)
    values = {name: getattr(family, name) for name in Family.__dataclass_fields__}
    async with database.session() as session:
        await session.execute(families.insert().values(values))


async def test_a_disabled_account_is_logged_out_and_its_families_end(database: Database) -> None:
    ada, bob = await add_account(database), await add_account(database, "bob")
    store, now = AccountStore(database), datetime.now(UTC)
    for account, mark in ((ada, "a"), (bob, "b")):
        await store.open_session(mark * 64, account.id, auth_time=now, expires_at=now + HOUR)
        await found(database, account.id, f"family-{mark}")

    assert await admin.disable_account(database, "Ada") == ["family-a"]
    assert [(account.username, account.disabled) for account in await store.every()] == [("ada", True), ("bob", False)]
    assert await store.find_session("a" * 64, now) is None
    assert await store.find_session("b" * 64, now) is not None
    (entry, *_) = await store.events()
    assert (entry.event, entry.subject) == ("account_disabled", ada.subject)
    # Once more changes nothing.
    assert await admin.disable_account(database, "ada") == []


async def test_who_is_not_there_cannot_be_disabled(database: Database) -> None:
    with pytest.raises(NotFound, match="There is no account 'nobody'"):
        await admin.disable_account(database, "nobody")
