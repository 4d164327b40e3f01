"""A toy service on each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from app.data import Database
from app.mesh.keys import Keys
from tests.data.databases import SETTINGS, database_url, server_url
from tests.events import shop as toy
from tests.events.shop import Shop

__all__ = ["database_url", "server_url"]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with the toy's tables, on SQLite, PostgreSQL and MySQL in turn."""
    await _prepare(database_url)
    database = Database(database_url, SETTINGS)
    yield database
    await database.close()


@pytest.fixture
def shop(database: Database, redis_url: str, keys: Keys, store: redis.Redis) -> Shop:
    return Shop(database, redis_url, keys)


async def _prepare(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(toy.metadata.create_all)
        await connection.execute(insert(toy.outbox.tables.relay).values(id=1, batch=0))
    await engine.dispose()
