"""Reads go to the replica while it answers, and to the primary while it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.context import Context, activate
from app.data import Database
from app.data.replica import REST_SECONDS, Replica
from app.errors import DeadlineExceeded, Misconfigured
from tests.data.databases import SETTINGS, Clock, Connect, Server, fresh

metadata = MetaData()
# Which of the two it is; a true replica would say the same.
names = Table("names", metadata, Column("number", Integer, primary_key=True, autoincrement=False))
PRIMARY, REPLICA = 1, 2
AWAY = "postgresql+asyncpg://me:hunter2@127.0.0.1:1/tea"


@pytest.fixture
async def urls(postgres_url: str) -> AsyncIterator[tuple[str, str]]:
    """Of a primary and of what is told to be its replica."""
    with fresh(postgres_url) as primary, fresh(postgres_url) as replica:
        for url, number in ((primary, PRIMARY), (replica, REPLICA)):
            database = Database(url, SETTINGS)
            async with database.session() as session:
                await (await session.connection()).run_sync(metadata.create_all)
                await session.execute(insert(names).values(number=number))
            await database.close()
        yield primary, replica


async def name(session: AsyncSession) -> int:
    return int(await session.scalar(select(names.c.number)) or 0)


async def by_reading(database: Database, *, fresh: bool = False) -> int:
    async with database.reading(fresh=fresh) as session:
        return await name(session)


async def by_read(database: Database, *, fresh: bool = False) -> int:
    return await database.read(name, fresh=fresh)


Read = Callable[..., Awaitable[int]]
WAYS = pytest.mark.parametrize("read", [by_reading, by_read])


@WAYS
async def test_a_read_goes_to_the_replica_unless_it_must_be_fresh(
    urls: tuple[str, str], connect: Connect, read: Read
) -> None:
    database = connect(urls[0], read_url=urls[1])
    assert await read(database) == REPLICA
    assert await read(database, fresh=True) == PRIMARY
    assert await database.transact(name) == PRIMARY
    async with database.session() as session:
        assert await name(session) == PRIMARY


async def test_without_a_replica_reads_go_to_the_primary(urls: tuple[str, str], connect: Connect) -> None:
    database = connect(urls[0])
    assert await by_read(database) == await by_reading(database) == PRIMARY
    assert database.describe()["replica"] is None


@WAYS
async def test_a_replica_that_is_away_is_left_alone_for_a_while(
    urls: tuple[str, str], connect: Connect, read: Read
) -> None:
    clock = Clock()
    database = connect(urls[0], read_url=AWAY, clock=clock)
    assert await read(database) == PRIMARY
    assert database.replica_is_asked is False
    assert "left alone for 5.0 s" in database.describe()["replica"]["state"]
    tries = database._follower.state.failures  # type: ignore[union-attr]
    assert [await read(database) for _ in range(3)] == [PRIMARY] * 3
    assert database._follower.state.failures == tries  # type: ignore[union-attr]
    clock.now += REST_SECONDS
    assert await read(database) == PRIMARY
    assert database._follower.state.failures == tries + 1  # type: ignore[union-attr]


@WAYS
async def test_a_replica_that_is_back_is_asked_again(urls: tuple[str, str], connect: Connect, read: Read) -> None:
    clock = Clock()
    primary, replica = urls
    database = connect(primary, read_url=replica, clock=clock)
    assert database._follower is not None
    database._follower.state.failed()
    assert await read(database) == PRIMARY
    clock.now += REST_SECONDS
    assert [await read(database), await read(database)] == [REPLICA, REPLICA]
    assert database.replica_is_asked is True


async def test_a_read_whose_replica_dies_is_answered_by_the_primary(urls: tuple[str, str], connect: Connect) -> None:
    primary, replica = urls
    database, server = connect(primary, read_url=replica), Server(replica)
    runs = 0

    async def work(session: AsyncSession) -> int:
        nonlocal runs
        runs += 1
        number = await name(session)
        if runs == 1:
            await server.kill_all()
        await session.execute(text("SELECT 1"))
        return number

    assert await database.read(work) == PRIMARY
    assert database.again == {"contended": 0, "lost": 0, "replica": 1}
    await server.close()


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """The URL of a server that accepts, and says nothing."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"postgresql+asyncpg://me@127.0.0.1:{port}/tea?ssl=disable"
    server.close()
    await server.wait_closed()


async def test_a_replica_that_says_nothing_costs_one_request_and_is_left_alone(
    urls: tuple[str, str], connect: Connect
) -> None:
    async with silence() as url:
        database = connect(urls[0], read_url=url)
        with activate(Context("test", deadline=time.monotonic() + 0.3)), pytest.raises(DeadlineExceeded):
            await by_read(database)
        assert database.replica_is_asked is False
        assert await by_read(database) == PRIMARY


async def test_a_slow_query_is_no_reason_to_leave_the_replica_alone(urls: tuple[str, str], connect: Connect) -> None:
    database = connect(urls[0], read_url=urls[1])

    async def work(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        await session.execute(text("SELECT PG_SLEEP(60)"))

    with activate(Context("test", deadline=time.monotonic() + 0.5)), pytest.raises(DeadlineExceeded):
        await database.read(work)
    assert database.replica_is_asked is True
    assert await by_read(database) == REPLICA


async def test_the_replica_is_no_matter_to_a_ping(urls: tuple[str, str], connect: Connect) -> None:
    await connect(urls[0], read_url=AWAY).ping()


def test_a_replica_of_another_kind_is_refused() -> None:
    with pytest.raises(Misconfigured, match="DATABASE_READ_URL"):
        Database("sqlite:////tmp/tea.sqlite3", SETTINGS, read_url=AWAY)
    with pytest.raises(Misconfigured, match="DATABASE_READ_URL") as caught:
        Database("sqlite:////tmp/tea.sqlite3", SETTINGS, read_url="oracle://me:hunter2@db/x")
    assert "hunter2" not in str(caught.value)


async def test_a_replica_s_password_is_shown_nowhere(urls: tuple[str, str], connect: Connect) -> None:
    secret = make_url(urls[1]).set(password="hunter2").render_as_string(hide_password=False)
    database = connect(urls[0], read_url=secret)
    assert "hunter2" not in repr(database)
    assert "hunter2" not in str(database.describe())


def test_one_read_tries_and_the_others_wait_for_what_comes_of_it() -> None:
    clock = Clock()
    replica = Replica(clock)
    assert replica.permit()
    replica.failed()
    assert not replica.permit()
    clock.now += REST_SECONDS
    assert [replica.permit(), replica.permit()] == [True, False]
    replica.succeeded()
    assert [replica.permit(), replica.permit()] == [True, True]


def test_a_try_of_which_nothing_is_heard_is_followed_by_another() -> None:
    clock = Clock()
    replica = Replica(clock)
    replica.failed()
    clock.now += REST_SECONDS
    assert replica.permit()
    clock.now += REST_SECONDS
    assert replica.permit()
    assert repr(replica) == "<Replica left alone for 5.0 s>"
