from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Column, ForeignKey, Table, insert, make_url, select, text, update

from app.data import Contended, Database, Duplicate, StillReferenced, changes, tables
from app.errors import Misconfigured, Unavailable
from tests.data.databases import SETTINGS, Connect

metadata = tables.metadata()
pots = Table(
    "pots",
    metadata,
    Column("id", tables.BIG_ID, primary_key=True),
    Column("name", tables.key(20), unique=True),
    Column("made_at", tables.UtcDateTime()),
    **tables.NUMBERED,
)
lids = Table("lids", metadata, Column("pot", tables.BIG_ID, ForeignKey("pots.id"), primary_key=True), **tables.OPTIONS)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with a shelf of pots."""
    database = Database(database_url, SETTINGS)
    await set_up(database)
    yield database
    await database.close()


async def set_up(database: Database) -> None:
    async with database.session() as session:
        await (await session.connection()).run_sync(metadata.create_all)


async def put(database: Database, name: str) -> int:
    async with database.session() as session:
        return await changes.new_id(session, insert(pots).values(name=name))


async def names(database: Database) -> list[str]:
    async with database.reading() as session:
        return list((await session.execute(select(pots.c.name).order_by(pots.c.id))).scalars())


async def test_a_session_that_ends_well_is_committed(database: Database) -> None:
    assert await put(database, "kyusu") == 1
    assert await names(database) == ["kyusu"]


async def test_a_session_that_raises_leaves_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.session() as session:
            await session.execute(insert(pots).values(name="kyusu"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await names(database) == []


async def test_a_cancelled_session_leaves_nothing_and_the_pool_is_well(database: Database) -> None:
    for _ in range(SETTINGS.pool_size + SETTINGS.pool_overflow + 1):
        inside = asyncio.Event()

        async def write(inside: asyncio.Event = inside) -> None:
            async with database.session() as session:
                await session.execute(insert(pots).values(name="kyusu"))
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await names(database) == []


async def test_queries_that_are_cancelled_at_any_moment_cross_no_answers(database: Database) -> None:
    async def ask(number: int) -> None:
        async with database.reading() as session:
            answer = (await session.execute(text(f"SELECT {number}"))).scalar_one()
        assert answer == number

    for round_ in range(30):
        tasks = [asyncio.create_task(ask(round_ * 10 + n)) for n in range(10)]
        for _ in range(round_):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results)
        assert results[1::2] == [None] * 5


async def test_writers_that_are_cancelled_at_any_moment_hold_no_lock_and_leave_no_half(database: Database) -> None:
    async def pair(number: int) -> None:
        async with database.session() as session:
            await session.execute(insert(pots).values(name=f"{number}a"))
            await session.execute(insert(pots).values(name=f"{number}b"))

    for turns in range(40):
        task = asyncio.create_task(pair(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    async with asyncio.timeout(20):
        await pair(99)
    written = await names(database)
    assert {name[:-1] for name in written if name.endswith("a")} == {
        name[:-1] for name in written if name.endswith("b")
    }
    assert "99b" in written


async def test_what_must_be_unique_is_a_duplicate(database: Database) -> None:
    await put(database, "kyusu")
    with pytest.raises(Duplicate):
        await put(database, "kyusu")
    assert await put(database, "KYUSU") > 1


async def test_a_row_that_is_needed_stays(database: Database) -> None:
    pot = await put(database, "kyusu")
    async with database.session() as session:
        await session.execute(insert(lids).values(pot=pot))
    with pytest.raises(StillReferenced):
        async with database.session() as session:
            await session.execute(pots.delete())
    with pytest.raises(StillReferenced):
        async with database.session() as session:
            await session.execute(insert(lids).values(pot=99))


async def test_an_id_of_a_deleted_row_is_not_given_again(database: Database) -> None:
    first = await put(database, "kyusu")
    async with database.session() as session:
        await session.execute(pots.delete())
    assert await put(database, "gaiwan") > first


async def test_numbers_go_on_after_rows_that_brought_their_own(database: Database) -> None:
    async with database.session() as session:
        await session.execute(insert(pots), [{"id": 41, "name": "a"}, {"id": 40, "name": "b"}])
        await changes.count_on(session, pots.c.id)
    assert await put(database, "kyusu") == 42


async def test_a_moment_comes_back_in_utc_to_the_microsecond(database: Database) -> None:
    moment = datetime(2026, 3, 1, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=-5)))
    async with database.session() as session:
        await session.execute(insert(pots).values(name="kyusu", made_at=moment))
        found = (await session.execute(select(pots.c.made_at))).scalar_one()
    assert found == moment
    assert found.tzinfo is UTC


async def test_a_change_counts_rows_that_stay_as_they_were(database: Database) -> None:
    await put(database, "kyusu")
    async with database.session() as session:
        assert await changes.count(session, update(pots).values(name="kyusu")) == 1


async def test_many_writers_at_once_all_get_their_turn(database: Database) -> None:
    await asyncio.gather(*(put(database, f"pot {n}") for n in range(60)))
    assert len(await names(database)) == 60


async def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    async with database.session() as session:
        await session.execute(insert(pots).values(name="kyusu"))
        assert await names(database) == []


async def test_a_full_pool_is_unavailable_for_now(server_url: str, connect: Connect) -> None:
    database = connect(server_url, changed={"pool_size": 1, "pool_overflow": 1, "statement_timeout_seconds": 1.0})
    async with database.reading() as one, database.reading() as two:
        await asyncio.gather(one.execute(text("SELECT 1")), two.execute(text("SELECT 1")))
        with pytest.raises(Unavailable) as caught:
            await database.ping()
    assert caught.value.retry_after
    await database.ping()


@pytest.mark.parametrize("reading", [True, False])
async def test_a_statement_that_takes_too_long_is_stopped(server_url: str, connect: Connect, reading: bool) -> None:
    database = connect(server_url, changed={"statement_timeout_seconds": 1.0})
    names = ", ".join(f"information_schema.collations {alias}" for alias in "abcd")
    endless = "SELECT PG_SLEEP(60)" if "postgresql" in server_url else f"SELECT COUNT(*) FROM {names} WHERE RAND() < 0"
    with pytest.raises(Unavailable):
        async with database.reading() if reading else database.session() as session:
            await session.execute(text(endless))
    await database.ping()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "mysql+aiomysql"])
async def test_a_database_that_is_away_is_unavailable_and_its_password_stays_secret(
    driver: str, connect: Connect
) -> None:
    away = connect(f"{driver}://me:hunter2@127.0.0.1:{unused_port()}/tea")
    with pytest.raises(Unavailable) as caught:
        await away.ping()
    assert caught.value.retry_after == 1.0
    for shown in (repr(caught.value), str(caught.value), repr(away), away.url_without_password):
        assert "hunter2" not in shown


async def test_a_server_that_refuses_us_is_unavailable(server_url: str, connect: Connect) -> None:
    refused = connect(make_url(server_url).set(database="no_such_database").render_as_string(hide_password=False))
    with pytest.raises(Unavailable):
        await refused.ping()


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path, connect: Connect) -> None:
    away, before = connect(f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'tea.sqlite3'}"), threading.active_count()
    with pytest.raises(Unavailable):
        await away.ping()
    # aiosqlite's thread ends a moment later, and tells the loop.
    while threading.active_count() > before:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "url",
    ["hunter2", "", "oracle://me:hunter2@db/x", "postgresql+psycopg2://me:hunter2@db/x", "nosuch+hunter2://db/x",
     "sqlite+aiosqlite://", "sqlite:///:memory:", "postgresql://me:hunter2@db:port/x"],
)  # fmt: skip
def test_a_url_that_cannot_work_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        Database(url, SETTINGS)
    assert "hunter2@" not in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "mysql", "mariadb", "sqlite"])
async def test_a_url_without_a_driver_gets_an_asynchronous_one(scheme: str, connect: Connect) -> None:
    database = connect(f"{scheme}://me@db/tea" if scheme != "sqlite" else "sqlite:////tmp/tea.sqlite3")
    assert "+a" in database.url_without_password


async def test_another_process_that_writes_is_waited_for_and_then_named(tmp_path: Path, connect: Connect) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'tea.sqlite3'}"
    patient, hasty = connect(url), connect(url, changed={"statement_timeout_seconds": 0.3})
    await set_up(patient)
    async with patient.session() as session:
        await session.execute(insert(pots).values(name="kyusu"))
        with pytest.raises(Contended):
            await put(hasty, "gaiwan")
    await put(hasty, "gaiwan")
    assert await names(patient) == ["kyusu", "gaiwan"]
