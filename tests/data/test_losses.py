"""What a lost connection costs: nothing where nobody can tell, one error where it is not known what was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, event, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Away, Database, Lost, backends
from app.data.pool import IDLE_SECONDS
from tests.data.databases import SETTINGS, Clock, Connect, Server

metadata = MetaData()
cups = Table("cups", metadata, Column("id", Integer, primary_key=True, autoincrement=False), mysql_engine="InnoDB")

Ask = Callable[[Database], Awaitable[object]]


@pytest.fixture
async def database(server_url: str) -> AsyncIterator[Database]:
    """A database with a table."""
    database = Database(server_url, SETTINGS, clock=Clock())
    async with database.session() as session:
        await (await session.connection()).run_sync(metadata.create_all)
    yield database
    await database.close()


async def count(session: AsyncSession) -> int:
    return int(await session.scalar(select(func.count()).select_from(cups)) or 0)


async def by_reading(database: Database) -> object:
    async with database.reading() as session:
        return await count(session)


async def by_session(database: Database) -> object:
    async with database.session() as session:
        return await session.execute(insert(cups).values(id=1))


async def by_read(database: Database) -> object:
    return await database.read(count)


async def by_transact(database: Database) -> object:
    return await database.transact(lambda session: session.execute(insert(cups).values(id=1)))


@pytest.mark.parametrize("ask", [by_reading, by_session, by_read, by_transact])
async def test_a_connection_that_died_in_the_pool_is_replaced_unnoticed(
    database: Database, server: Server, ask: Ask
) -> None:
    opened: list[Any] = []
    event.listen(database._primary.pool._engine.sync_engine, "connect", lambda adapted, _: opened.append(adapted))
    # The first of them has been there since before we listen.
    await server.kill_all()
    await asyncio.gather(*(database.ping() for _ in range(3)))
    before = dict(database.again)
    await server.kill_all()
    async with asyncio.timeout(10):
        # What the server has sent as its last arrives in our process a moment later.
        while not all(backends.is_closed(adapted.driver_connection) for adapted in opened):
            await asyncio.sleep(0)
    await ask(database)
    assert database.again == before
    assert database.pools["primary"].lost >= 1


async def test_a_connection_whose_end_nobody_has_told_is_found_out_when_it_has_lain_idle(
    server_url: str, server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As behind a firewall that forgets: the socket looks open.
    monkeypatch.setattr("app.data.backends.is_closed", lambda _: False)
    clock = Clock()
    database = connect(server_url, clock=clock)
    await asyncio.gather(*(database.ping() for _ in range(3)))
    await server.kill_all()
    clock.now += IDLE_SECONDS
    await asyncio.gather(*(by_ping_once(database) for _ in range(6)))
    assert database.again["lost"] == 0


async def by_ping_once(database: Database) -> None:
    async with database.reading() as session:
        await session.execute(text("SELECT 1"))


@pytest.mark.parametrize("server_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("ask", [by_read, by_transact])
async def test_a_connection_that_dies_while_it_is_opened_is_opened_again(
    database: Database, server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = asyncpg.Connection.set_type_codec, 0

    async def die(connection: Any, *arguments: Any, **options: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            await server.kill_all()
            while not connection.is_closed():
                await asyncio.sleep(0.001)
        await begin(connection, *arguments, **options)

    # Its connections go; the next one is opened as it is needed.
    await database.close()
    # The first that SQLAlchemy does with a connection.
    monkeypatch.setattr(asyncpg.Connection, "set_type_codec", die)
    await ask(database)
    assert begun > 1
    assert database.again["lost"] == 1


async def test_a_read_is_done_again_from_the_start(database: Database, server: Server) -> None:
    runs = 0

    async def work(session: AsyncSession) -> int:
        nonlocal runs
        runs += 1
        await count(session)
        if runs == 1:
            await server.kill_all()
        return await count(session)

    assert await database.read(work) == 0
    assert (runs, database.again["lost"]) == (2, 1)


async def test_a_read_whose_statement_is_at_work_is_done_again(database: Database, server: Server) -> None:
    sleep = "SELECT PG_SLEEP(60)" if database.url_without_password.startswith("postgresql") else "SELECT SLEEP(60)"
    runs = 0

    async def work(session: AsyncSession) -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            await session.execute(text(sleep))
        return await count(session)

    reading = asyncio.create_task(database.read(work))
    await server.until(bool, server.running)
    await server.kill_all()
    assert await reading == 0
    assert (runs, database.again["lost"], database.pools["primary"].lost) == (2, 1, 1)


async def test_a_read_is_done_again_once_and_no_more(database: Database, server: Server) -> None:
    runs = 0

    async def work(session: AsyncSession) -> int:
        nonlocal runs
        runs += 1
        await session.connection()
        await server.kill_all()
        return await count(session)

    with pytest.raises(Lost) as caught:
        await database.read(work)
    assert runs == 2
    assert caught.value.retry_after
    await database.ping()


async def test_a_transaction_is_done_again_if_it_had_not_begun(database: Database, server: Server) -> None:
    runs = 0

    async def work(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        await session.connection()
        if runs == 1:
            await server.kill_all()
        await session.execute(insert(cups).values(id=runs))

    await database.transact(work)
    assert (runs, database.again["lost"]) == (2, 1)
    assert await database.read(count) == 1


async def test_a_transaction_that_has_begun_is_not_done_again(database: Database, server: Server) -> None:
    runs = 0

    async def work(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        await session.execute(insert(cups).values(id=1))
        await server.kill_all()
        await session.execute(insert(cups).values(id=2))

    with pytest.raises(Lost):
        await database.transact(work)
    assert runs == 1
    assert await database.read(count) == 0


async def test_a_commit_of_which_nobody_knows_is_not_repeated(database: Database, server: Server) -> None:
    runs = 0

    async def work(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        await session.execute(insert(cups).values(id=1))
        await server.kill_all()

    with pytest.raises(Lost, match="not known"):
        await database.transact(work)
    assert runs == 1
    assert database.again["lost"] == 0


async def test_a_server_that_is_away_is_not_asked_twice(connect: Connect) -> None:
    away = connect("postgresql+asyncpg://me@127.0.0.1:1/tea")
    with pytest.raises(Away):
        await away.ping()
    assert away.again["lost"] == 0


async def test_connections_that_die_at_any_moment_leave_the_pool_whole(database: Database, server: Server) -> None:
    done = asyncio.Event()
    wrong: list[object] = []
    lost = 0

    async def ask() -> None:
        nonlocal lost
        while not done.is_set():
            try:
                answer = await database.read(lambda session: session.scalar(text("SELECT 7")))
            except Lost:
                lost += 1
            else:
                wrong.extend([answer] if answer != 7 else [])

    askers = [asyncio.create_task(ask()) for _ in range(5)]
    for _ in range(10):
        await server.kill_all()
    done.set()
    await asyncio.gather(*askers)
    await database.ping()
    assert wrong == []
    assert database.pools["primary"].checked_out == 0
    assert database.pools["primary"].waiting == 0
    assert len(await server.connections()) <= SETTINGS.pool_size
