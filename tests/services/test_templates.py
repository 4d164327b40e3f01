"""A test finds a service's database as if it were new, whatever the one before has left in it."""

from __future__ import annotations

from datetime import UTC, datetime

from app.data import Database
from app.services.users import demo
from app.services.users.repository import UserRepository
from tests.data import databases
from tests.services.conftest import Fresh

NOW = datetime(2026, 11, 21, tzinfo=UTC)


async def ids(users: UserRepository) -> list[int]:
    return [user.id for user in (await users.page(limit=1000, cursor=None)).items]


async def leave_something(url: str) -> tuple[list[int], int]:
    """Who was there, and the number of one who came; user 7 has gone."""
    database = Database(url, databases.SETTINGS)
    users = UserRepository(database)
    found = await ids(users)
    added = await users.add(name="Ada", email="ada@example.com", created_at=NOW)
    if found:
        await users.remove(7)
    await database.close()
    return found, added.id


async def test_the_demo_is_as_it_was_and_its_rows_are_numbered_as_before(fresh: Fresh) -> None:
    everybody = list(range(1, demo.COUNT + 1))
    for _ in range(2):
        assert await leave_something(fresh("users", seeded=True)) == (everybody, demo.COUNT + 1)


async def test_without_demo_the_tables_are_empty_after_whatever_was_there(fresh: Fresh) -> None:
    await leave_something(fresh("users", seeded=True))
    for _ in range(2):
        assert await leave_something(fresh("users", seeded=False)) == ([], 1)
