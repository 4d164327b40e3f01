"""Within a request, no statement runs longer on the server than the request has, and every wait ends with it."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import deadline
from app.context import Context, activate
from app.data import Database
from app.errors import DeadlineExceeded, Unavailable
from tests.data.databases import SETTINGS, Connect, Server

metadata = MetaData()
cups = Table("cups", metadata, Column("id", Integer, primary_key=True), Column("size", Integer))

_COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i > 0) SELECT COUNT(*) FROM n"
_TABLES = ", ".join(f"information_schema.collations {alias}" for alias in "abcd")
ENDLESS = {
    "sqlite": _COUNT,
    "postgresql": "SELECT PG_SLEEP(600)",
    "mysql": f"SELECT COUNT(*) FROM {_TABLES} WHERE RAND() < 0",
}
WAYS = ["read", "reading", "session", "transact"]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with two cups."""
    database = Database(database_url, SETTINGS)
    async with database.session() as session:
        await (await session.connection()).run_sync(metadata.create_all)
        await session.execute(insert(cups), [{"id": 1, "size": 0}, {"id": 2, "size": 0}])
    yield database
    await database.close()


@contextmanager
def request(seconds: float) -> Iterator[None]:
    with activate(Context("test", deadline=time.monotonic() + seconds)):
        yield


def endless(database: Database) -> str:
    return ENDLESS[database.url_without_password.partition("+")[0]]


async def run(database: Database, way: str, statement: str) -> None:
    if way in ("read", "transact"):
        await getattr(database, way)(lambda session: session.execute(text(statement)))
        return
    async with database.reading() if way == "reading" else database.session() as session:
        await session.execute(text(statement))


@pytest.mark.parametrize("way", WAYS)
async def test_a_statement_ends_with_its_request_and_on_the_server_too(
    server_url: str, server: Server, connect: Connect, way: str
) -> None:
    database = connect(server_url)
    await database.ping()
    with request(0.3), pytest.raises(DeadlineExceeded):
        await run(database, way, endless(database))
    await server.until_idle()
    await database.ping()
    assert database.pools["primary"].checked_out == 0


@pytest.mark.parametrize("way", ["read", "transact"])
async def test_requests_that_end_and_are_given_up_at_any_moment_leave_nothing_running(
    server_url: str, server: Server, connect: Connect, way: str
) -> None:
    database, loop, rng = connect(server_url), asyncio.get_running_loop(), random.Random(7)
    await database.ping()

    async def ask(seconds: float) -> None:
        # As a request is bounded, which is cancelled by its own end just when its statement is.
        with request(seconds), deadline.of(loop).within(seconds):
            await run(database, way, endless(database))

    for number in range(30):
        seconds = rng.uniform(0.011, 0.05)
        asking = asyncio.create_task(ask(seconds))
        if number % 2:
            loop.call_later(rng.uniform(0, 1.1 * seconds), asking.cancel)
        with suppress(DeadlineExceeded, TimeoutError, asyncio.CancelledError):
            await asking
    # PostgreSQL forgets a request to cancel that overtakes its statement: of thirty, one may go on until the server's limit.
    most = 1 if server_url.startswith("postgresql") else 0
    await server.until(lambda now: len(now) <= most, server.running)
    await database.ping()
    assert database.pools["primary"].checked_out == 0


@pytest.mark.parametrize("way", WAYS)
async def test_sqlite_s_thread_ends_with_the_request(tmp_path: Path, connect: Connect, way: str) -> None:
    database = connect(f"sqlite+aiosqlite:///{tmp_path / 'tea.sqlite3'}")
    before = threading.active_count()
    with request(0.3), pytest.raises(DeadlineExceeded):
        await run(database, way, endless(database))
    async with asyncio.timeout(10):
        # The connection is closed by its thread, which has to be through with the statement for that.
        while threading.active_count() > before:
            await asyncio.sleep(0.01)
    await database.ping()


async def test_a_client_that_goes_away_stops_sqlite_at_any_moment(tmp_path: Path, connect: Connect) -> None:
    database = connect(f"sqlite+aiosqlite:///{tmp_path / 'tea.sqlite3'}")
    before = threading.active_count()
    for turns in range(30):
        task = asyncio.create_task(run(database, "reading", _COUNT))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await database.close()
    async with asyncio.timeout(20):
        while threading.active_count() > before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", WAYS)
async def test_without_time_nothing_is_sent(database_url: str, connect: Connect, way: str) -> None:
    database = connect(database_url)
    with request(0.0), pytest.raises(DeadlineExceeded):
        await run(database, way, "SELECT 1")
    assert database.pools["primary"].opened == 0


async def test_the_database_s_own_timeout_is_no_deadline(server_url: str, connect: Connect) -> None:
    database = connect(server_url, changed={"statement_timeout_seconds": 0.5})
    with request(20.0), pytest.raises(Unavailable) as caught:
        await run(database, "read", endless(database))
    assert not isinstance(caught.value, DeadlineExceeded)
    assert caught.value.retry_after


async def test_the_wait_for_a_connection_ends_with_the_request(database_url: str, connect: Connect) -> None:
    database = connect(database_url, changed={"pool_size": 1, "pool_overflow": 0})
    async with database.reading() as session:
        await session.execute(text("SELECT 1"))
        with request(0.2), pytest.raises(DeadlineExceeded):
            await database.ping()
    await database.ping()


async def test_the_wait_for_a_lock_ends_with_the_request(database: Database) -> None:
    grow = update(cups).where(cups.c.id == 1).values(size=cups.c.size + 1)
    async with database.session() as session:
        await session.execute(grow)
        with request(0.3), pytest.raises(DeadlineExceeded):
            await database.transact(lambda session: session.execute(grow))
    await database.transact(lambda session: session.execute(grow))
    assert await database.read(lambda session: session.scalar(text("SELECT size FROM cups WHERE id = 1"))) == 2


async def test_the_wait_for_another_process_ends_with_the_request(tmp_path: Path, connect: Connect) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'tea.sqlite3'}"
    ours, theirs = connect(url), connect(url)
    create = "CREATE TABLE {} (id INTEGER)"
    await run(ours, "session", create.format("ours"))
    async with theirs.session() as session:
        await session.execute(text("INSERT INTO ours VALUES (1)"))
        before = threading.active_count()
        with request(0.3), pytest.raises(DeadlineExceeded):
            await run(ours, "session", "INSERT INTO ours VALUES (2)")
        await ours.ping()
        async with asyncio.timeout(10):
            # If the ping had to open another connection: the thread of the first ends, too. Its own patience would have
            # been a quarter of a minute.
            while threading.active_count() > before:
                await asyncio.sleep(0.01)
    await run(ours, "session", "INSERT INTO ours VALUES (3)")
    assert await ours.read(lambda session: session.scalar(text("SELECT SUM(id) FROM ours"))) == 4


async def test_requests_that_end_at_any_moment_cross_no_answers(database: Database) -> None:
    async def ask(number: int, seconds: float) -> int | None:
        with request(seconds):
            try:
                return await database.read(lambda session: session.scalar(text(f"SELECT {number}")))
            except DeadlineExceeded:
                return None

    late = 0
    for round_ in range(20):
        numbers = range(round_ * 10, round_ * 10 + 10)
        answers = await asyncio.gather(*(ask(n, 20.0 if n % 2 else 0.011 + n % 10 * 0.002) for n in numbers))
        assert all(answer in (None, number) for number, answer in zip(numbers, answers, strict=True))
        assert None not in answers[1::2]
        late += answers.count(None)
    assert database.pools["primary"].checked_out == 0
    await database.ping()


async def test_many_rows_are_still_one_statement(mysql_url: str, connect: Connect) -> None:
    database = connect(mysql_url)

    async def inserts(session: AsyncSession) -> int:
        (row,) = await session.execute(text("SHOW SESSION STATUS LIKE 'Com_insert'"))
        return int(row[1])

    async with database.session() as session:
        await session.execute(text("CREATE TEMPORARY TABLE cups (id INTEGER PRIMARY KEY, size INTEGER)"))
        with request(5.0):
            before = await inserts(session)
            await session.execute(insert(cups), [{"id": n, "size": n} for n in range(500)])
            assert await inserts(session) == before + 1
            assert await session.scalar(text("SELECT COUNT(*) FROM cups")) == 500
