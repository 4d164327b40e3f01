"""Fixtures: one fresh database per test, on each kind of server that there is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.data import Database
from app.settings import DataSettings

SETTINGS = DataSettings(pool_size=5, pool_overflow=5, statement_timeout_seconds=30)
SERVERS = {"postgresql": "postgres_url", "mysql": "mysql_url"}
KINDS = ("sqlite", *SERVERS)


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, on SQLite, PostgreSQL and MySQL or MariaDB in turn."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'test.sqlite3'}"
        return
    with fresh(request.getfixturevalue(SERVERS[request.param])) as url:
        yield url


@pytest.fixture(params=[*SERVERS])
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """As `database_url`, without SQLite: for what only servers have."""
    with fresh(request.getfixturevalue(SERVERS[request.param])) as url:
        yield url


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


def tell(url: str, statement: str) -> None:
    """Execute one statement outside of any transaction, in a thread: the test's event loop is not to be touched."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, _tell(url, statement)).result()


async def _tell(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()
