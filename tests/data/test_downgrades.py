"""An operator may go back: by one revision, or to one that is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from app.data import Database, migrations
from app.errors import Conflict, InvalidInput
from tests.data.databases import SETTINGS
from tests.data.toys import CREATE, PRICE, revision, toy, with_two_revisions


def columns(connection: Connection) -> set[str]:
    found = inspect(connection)
    return {column["name"] for column in found.get_columns("toys")} if found.has_table("toys") else set()


async def columns_of(url: str) -> set[str]:
    database = Database(url, SETTINGS)
    async with database.reading() as session:
        found = await (await session.connection()).run_sync(columns)
    await database.close()
    return found


async def tell(url: str, statement: str) -> None:
    database = Database(url, SETTINGS)
    await database.transact(lambda session: session.execute(text(statement)))
    await database.close()


async def test_by_default_it_is_one_revision_and_the_rows_stay(database_url: str, tmp_path: Path) -> None:
    service = with_two_revisions(tmp_path)
    await migrations.upgrade(service, database_url)
    await tell(database_url, "INSERT INTO toys (id, price) VALUES (7, 3)")
    before = await migrations.downgrade(service, database_url)
    assert (before.current, before.pending) == ("0002", ())
    assert await columns_of(database_url) == {"id"}
    assert (await migrations.status(service, database_url)).pending == ("0002",)
    database = Database(database_url, SETTINGS)
    assert await database.read(lambda session: session.scalar(text("SELECT id FROM toys"))) == 7
    await database.close()
    await migrations.upgrade(service, database_url)
    assert await columns_of(database_url) == {"id", "price"}


async def test_before_the_first_there_is_nothing_and_nothing_to_go_back_from(database_url: str, tmp_path: Path) -> None:
    service = with_two_revisions(tmp_path)
    await migrations.upgrade(service, database_url)
    await migrations.downgrade(service, database_url, to="base")
    assert await columns_of(database_url) == set()
    for to in (None, "base"):
        assert (await migrations.downgrade(service, database_url, to=to)).current is None
    await migrations.upgrade(service, database_url)
    assert await columns_of(database_url) == {"id", "price"}


async def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    file = tmp_path / "toy.sqlite3"
    await migrations.downgrade(with_two_revisions(tmp_path), f"sqlite+aiosqlite:///{file}")
    assert not file.exists()


async def test_where_it_is_already_it_stays(database_url: str, tmp_path: Path) -> None:
    service = with_two_revisions(tmp_path)
    await migrations.upgrade(service, database_url)
    await migrations.downgrade(service, database_url, to="0002")
    assert await columns_of(database_url) == {"id", "price"}


@pytest.mark.parametrize("to", ["0003", "head", "-1", "nonsense", ""])
async def test_only_backwards_and_only_to_what_there_is(tmp_path: Path, to: str) -> None:
    service, url = with_two_revisions(tmp_path), f"sqlite+aiosqlite:///{tmp_path / 'toy.sqlite3'}"
    await migrations.upgrade(service, url)
    await migrations.downgrade(service, url)
    for forward_or_nowhere in (to, "0002"):
        with pytest.raises(InvalidInput, match="no revision before 0001"):
            await migrations.downgrade(service, url, to=forward_or_nowhere)
    assert (await migrations.status(service, url)).current == "0001"


async def test_what_newer_code_has_migrated_only_newer_code_takes_back(database_url: str, tmp_path: Path) -> None:
    newer, older = with_two_revisions(tmp_path / "newer"), toy(tmp_path / "older")
    revision(older, 1, CREATE, back="op.drop_table('toys')")
    await migrations.upgrade(newer, database_url)
    for to in (None, "0001", "base"):
        with pytest.raises(Conflict, match="newer code"):
            await migrations.downgrade(older, database_url, to=to)
    assert await columns_of(database_url) == {"id", "price"}


async def test_many_that_go_back_at_once_go_once(database_url: str, tmp_path: Path) -> None:
    service = with_two_revisions(tmp_path)
    await migrations.upgrade(service, database_url)
    found = await asyncio.gather(*(migrations.downgrade(service, database_url, to="base") for _ in range(3)))
    assert sorted(status.current or "" for status in found) == ["", "", "0002"]


# Not on MySQL, which commits with every statement about a table.
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_way_back_that_fails_leaves_all_as_it_was(database_url: str, tmp_path: Path) -> None:
    service = toy(tmp_path)
    revision(service, 1, CREATE, back="op.drop_table('toys'); op.execute('SELECT nonsense')")
    revision(service, 2, PRICE, back="op.drop_column('toys', 'price')")
    await migrations.upgrade(service, database_url)
    with pytest.raises(Exception, match="nonsense"):
        await migrations.downgrade(service, database_url, to="base")
    assert (await migrations.status(service, database_url)).current == "0002"
    assert await columns_of(database_url) == {"id", "price"}
