"""Fixtures: one fresh database per test, on each kind of server that there is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CursorResult, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.data import Database
from app.settings import DataSettings

SETTINGS = DataSettings(pool_size=5, pool_overflow=5, statement_timeout_seconds=30)
SERVERS = {"postgresql": "postgres_url", "mysql": "mysql_url"}
KINDS = ("sqlite", *SERVERS)
# The other driver of the same server.
OTHER_DRIVER = "asyncmy"


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, on SQLite, PostgreSQL and MySQL or MariaDB in turn."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'test.sqlite3'}"
        return
    with fresh(request.getfixturevalue(SERVERS[request.param])) as url:
        yield url


@pytest.fixture(params=[*SERVERS, OTHER_DRIVER])
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """As `database_url`, without SQLite, for what only servers have; with each driver."""
    kind = "mysql" if request.param == OTHER_DRIVER else request.param
    with fresh(request.getfixturevalue(SERVERS[kind])) as url:
        yield url.replace("aiomysql", "asyncmy") if request.param == OTHER_DRIVER else url


@contextmanager
def fresh(server: str) -> Iterator[str]:
    """Make a database beside that of `server`, for the length of the block."""
    name = f"mesh_test_{secrets.token_hex(6)}"
    tell(server, f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    tell(server, f"DROP DATABASE {name}{' WITH (FORCE)' if server.startswith('postgresql') else ''}")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database."""
    database = Database(database_url, SETTINGS)
    yield database
    await database.close()


Connect = Callable[..., Database]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes databases with `SETTINGS`, some of them changed, and closes them."""
    async with AsyncExitStack() as stack:

        def connect(url: str, *, changed: dict[str, float] | None = None, **options: Any) -> Database:
            database = Database(url, SETTINGS.model_copy(update=changed), **options)
            stack.push_async_callback(database.close)
            return database

        yield connect


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """What a database's own server says of it: who is connected, what runs, and that they are to go.

    Args:
        url: of the database that is looked at.
    """

    def __init__(self, url: str) -> None:
        this = make_url(url)
        self._is_postgresql = url.startswith("postgresql")
        self._name = this.database
        beside = this.set(database="postgres" if self._is_postgresql else "mysql")
        self._admin = Database(beside.render_as_string(hide_password=False), SETTINGS)

    async def connections(self) -> list[int]:
        """Their numbers."""
        if self._is_postgresql:
            query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{self._name}'"
        else:
            query = f"SELECT id FROM information_schema.processlist WHERE db = '{self._name}'"
        return [number for (number,) in await self._ask(query)]

    async def running(self) -> list[str]:
        """The statements that the database is at work on, or wait for a lock."""
        if self._is_postgresql:
            query = f"SELECT query FROM pg_stat_activity WHERE datname = '{self._name}' AND state = 'active'"
        else:
            query = (
                "SELECT info FROM information_schema.processlist "
                f"WHERE db = '{self._name}' AND command <> 'Sleep' AND info IS NOT NULL"
            )
        return [statement for (statement,) in await self._ask(query)]

    async def kill_all(self) -> None:
        """End every connection, and wait until the server has forgotten them."""
        kill = "SELECT pg_terminate_backend({})" if self._is_postgresql else "KILL {}"
        before = await self.connections()
        for number in before:
            with suppress(DBAPIError):  # MySQL: it has gone by itself
                await self._ask(kill.format(number))
        await self.until(lambda now: not set(before) & set(now), self.connections)

    async def until_idle(self) -> None:
        """Wait until nothing runs."""
        await self.until(lambda now: not now, self.running)

    async def until(self, condition: Callable[[Any], object], ask: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition(await ask()):
                await asyncio.sleep(0.01)

    async def _ask(self, statement: str) -> Any:
        async with self._admin.reading() as session:
            result = await session.execute(text(statement))
            return result.all() if isinstance(result, CursorResult) and result.returns_rows else []

    async def close(self) -> None:
        await self._admin.close()


@pytest.fixture
async def server(server_url: str) -> AsyncIterator[Server]:
    """The server of `server_url`."""
    server = Server(server_url)
    yield server
    await server.close()


def tell(url: str, statement: str) -> None:
    """Execute one statement outside of any transaction, in a thread: the test's event loop is not to be touched."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, _tell(url, statement)).result()


async def _tell(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()
